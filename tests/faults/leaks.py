"""What a daemon holds: processes, descriptors, sockets, rings. A fault that is over must leave it as it was."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.faults.daemon import Daemon, wait_for
from vedette.streamer.supervisor.rundir import run_dir_for

#: Descriptors a process may hold more than before: an HTTP connection, a reconnect under way, SQLite's own.
SLACK = 4


@dataclass(frozen=True)
class Holdings:
    """processes: role or camera -> descriptors. rings, sockets: names in the run folder."""

    processes: dict[str, int]
    rings: int
    sockets: tuple[str, ...]

    @property
    def descriptors(self) -> int:
        """All together."""
        return sum(self.processes.values())


def holdings(daemon: Daemon) -> Holdings:
    """What the daemon and its children hold now."""
    run_dir = run_dir_of(daemon)
    found = {}
    assert daemon.process is not None
    parent = psutil.Process(daemon.process.pid)
    for process in [parent, *parent.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            name = "supervisor" if process == parent else process.name()
            assert name not in found, f"two processes are {name}"
            found[name] = process.num_fds()
    rings = sum(path.name.startswith("ring-") for path in run_dir.iterdir())  # the files and their lanes of credits
    return Holdings(found, rings, tuple(sorted(path.name for path in run_dir.iterdir() if path.is_socket())))


def run_dir_of(daemon: Daemon) -> Path:
    """Its run folder."""
    return run_dir_for(daemon.store, daemon.environment)


def as_before(daemon: Daemon, before: Holdings, within_s: float = 30.0) -> Holdings:
    """Wait until the daemon holds no more than before: the same processes, rings and sockets, no more descriptors."""
    now: Holdings | None = None

    def same() -> bool:
        nonlocal now
        try:
            now = holdings(daemon)
        except (AssertionError, psutil.Error):  # one is just being replaced
            return False
        same_things = now.processes.keys() == before.processes.keys() and now.rings == before.rings
        grown = [n for n, fds in now.processes.items() if fds > before.processes.get(n, fds) + SLACK]
        return same_things and now.sockets == before.sockets and not grown

    try:
        wait_for("as before", same, within_s)
    except AssertionError as error:
        raise AssertionError(f"leaked: before {before}, now {now}") from error
    assert now is not None
    return now

"""The prologue every child process shares: ``python -m vedette.streamer.worker``.

The supervisor writes one JSON line, the `Setup`, to the child's standard input and keeps the pipe open:
further lines are control messages (``{"control": "reload", "config": {...}}``). The child answers on the
heartbeat pipe with one JSON line a beat. A child whose supervisor dies dies with it (PR_SET_PDEATHSIG, and
end of file on standard input, which holds even when the parent was gone before the prologue ran).
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vedette.streamer.config import Config
from vedette.streamer.log import setup_logging

log = logging.getLogger("vedette.worker")

_PR_SET_PDEATHSIG = 1

#: role -> "module:function"; the function takes a Life and returns when told to stop.
ROLES = {
    "capture": "vedette.streamer.capture:run",
    "infer": "vedette.streamer.infer:run",
    "hub": "vedette.streamer.hub:run",
}


@dataclass(frozen=True, slots=True)
class Setup:
    """What a child must know at birth. ring: name of the ring file made for this life of a capture process."""

    role: str
    name: str
    boot: str
    run_dir: str
    config: dict[str, Any]
    heartbeat_fd: int
    parent_pid: int
    ring: str | None = None
    input_hw: tuple[int, int] = (256, 416)
    secrets: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


class Life:
    """A child's view of its own life: what it was told, when to stop, and where to report progress.

    ``beat`` must be called by the loop that does the work, so that a heartbeat proves progress.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.config = Config.model_validate(setup.config)
        self.run_dir = Path(setup.run_dir)
        self.stopping = threading.Event()
        #: control messages from the supervisor, in order
        self.control: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._last_beat = 0.0
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The camera for capture processes, else the role."""
        return self.setup.name

    def beat(self, state: str, *, every_s: float = 0.5, force: bool = False, **report: Any) -> None:
        """Tell the supervisor that the working loop moved; at most one line every ``every_s`` seconds.

        state: one word (``connecting``, ``streaming``, ``idle``...). report: counters and gauges, JSON-able.
        """
        now = time.monotonic()
        with self._lock:
            if not force and now - self._last_beat < every_s:
                return
            self._last_beat = now
            line = json.dumps({"state": state, "mono_ns": time.monotonic_ns(), **report}, allow_nan=False) + "\n"
            try:
                os.write(self.setup.heartbeat_fd, line.encode())
            except BlockingIOError:
                return  # the supervisor is slow to read; the next beat will do
            except BrokenPipeError:
                self.stopping.set()  # the supervisor is gone


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies; exit now if that already happened."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        os._exit(1)


def _follow_control(life: Life) -> None:
    for line in sys.stdin:
        try:
            message = json.loads(line)
        except ValueError:
            log.error("control line is not JSON: %.80r", line)
            continue
        life.control.put(message)
    # End of file: the supervisor is gone (or closed us on purpose); stop either way.
    life.stopping.set()


def main() -> int:
    """Run one child to its end. Exit status 0 when it stopped because it was told to."""
    setup_fields = json.loads(sys.stdin.readline())
    setup_fields["input_hw"] = tuple(setup_fields["input_hw"])
    setup_fields["secrets"] = tuple(setup_fields["secrets"])
    setup = Setup(**setup_fields)
    die_with_parent(setup.parent_pid)
    faulthandler.enable()
    setup_logging(secrets=setup.secrets)
    os.set_blocking(setup.heartbeat_fd, False)
    life = Life(setup)
    signal.signal(signal.SIGTERM, lambda *_: life.stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides the order
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.Thread(target=_follow_control, args=(life,), name="control", daemon=True).start()
    module, _, function = ROLES[setup.role].partition(":")
    run: Callable[[Life], int | None] = getattr(importlib.import_module(module), function)
    life.beat("starting", force=True)
    return run(life) or 0


if __name__ == "__main__":
    sys.exit(main())

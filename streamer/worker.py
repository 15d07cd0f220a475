"""The prologue every child process shares: ``python -m vedette.streamer.worker`` (or ``.birth``, tied to its parent sooner).

The supervisor writes one JSON line, the `Setup`, to the child's standard input and keeps the pipe open:
further lines are control messages (``{"control": "reload", "config": {...}}``). The child answers on the
heartbeat pipe with one JSON line a beat. A child whose supervisor dies dies with it (PR_SET_PDEATHSIG, and
end of file on standard input, which holds even when the parent was gone before the prologue ran).

What a beat says: ``state`` (one word), ``mono_ns``, ``deadline_s`` when the next beat may take longer than
`SILENCE_S`, and the role's own report. States ``starting`` and ``loading`` mean *not yet up*; ``failed`` carries
``error``, the sentence a person should read; every other word means up. What the supervisor understands:

* any role: ``error`` (last problem, redacted by whoever prints it)
* infer: ``input_hw`` [height, width] once the engine is loaded; captures are started with it
* capture: ``streaming``, ``connecting``, ``frozen`` (the picture stands still), ``ended`` (a file that does not
  loop); ``epoch``, ``last_frame_mono_ns`` (newest picture taken from the source, null before the first), ``fps``,
  ``drops`` {reason: n}, ``reconnects``, ``last_error``. A capture process may exit 0 after ``ended``.
  ``interval_s``, the learned time between pictures, is handed to the next life as ``Setup.extra["interval_s"]``.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import logging
import os
import queue
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from vedette.streamer.birth import die_with_parent, prctl
from vedette.streamer.config import Config
from vedette.streamer.errors import VedetteError
from vedette.streamer.log import redact, setup_logging

log = logging.getLogger("vedette.worker")

#: A child counts as hung when it was silent this long, unless its last beat announced a ``deadline_s``.
SILENCE_S = 10.0
#: What a child may take from its birth to the end of its imports.
START_S = 60.0
#: Not yet up, in these states.
STARTING_STATES = ("starting", "loading")

_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38

#: role -> "module:function"; the function takes a Life and returns when told to stop.
ROLES = {
    "capture": "vedette.streamer.capture.role:run",
    "infer": "vedette.streamer.infer.role:run",
    "hub": "vedette.streamer.hub.role:run",
}


@dataclass(frozen=True, slots=True)
class Setup:
    """What a child must know at birth. ring: name of the ring file made for this life of a capture process.

    target: ``module:function`` to run; the role's row of `ROLES` when None.
    """

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
    target: str | None = None


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
        self._last_beat = float("-inf")
        self._unsent = b""
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The camera for capture processes, else the role."""
        return self.setup.name

    def beat(
        self,
        state: str,
        *,
        every_s: float = 0.5,
        force: bool = False,
        deadline_s: float | None = None,
        **report: Any,
    ) -> None:
        """Tell the supervisor that the working loop moved; at most one line every ``every_s`` seconds.

        state: one word, see the module. force: say it now (every change of state should). deadline_s: how long until
        silence counts as hung, 10 s when None; announce more *before* a long step (loading an engine, opening a
        camera). report: counters and gauges, JSON-able, finite.
        """
        now = time.monotonic()
        with self._lock:
            if not force and now - self._last_beat < every_s:
                return
            self._last_beat = now
            if deadline_s is not None:
                report["deadline_s"] = deadline_s
            line = json.dumps({"state": state, "mono_ns": time.monotonic_ns(), **report}, allow_nan=False) + "\n"
            self._write(line.encode())

    def _write(self, line: bytes) -> None:
        """Never blocks: a line that finds the pipe full is dropped, a line that was torn is finished first."""
        try:
            if self._unsent:
                self._unsent = self._unsent[os.write(self.setup.heartbeat_fd, self._unsent) :]
            if not self._unsent:
                self._unsent = line[os.write(self.setup.heartbeat_fd, line) :]
        except BlockingIOError:
            return  # the supervisor is slow to read; the next beat will do
        except BrokenPipeError:
            self.stopping.set()  # the supervisor is gone


def _confine(setup: Setup) -> None:
    """Less power and no traces: no new privileges, no core file (it would hold pictures), nothing for others."""
    prctl(_PR_SET_NAME, f"vd-{setup.name}"[:15].encode())
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o027)


def _log_thread_death(args: threading.ExceptHookArgs) -> None:
    """A thread's last words go through the redacting log too."""
    if args.exc_value is not None:
        who = args.thread.name if args.thread else "a thread"
        log.critical("%s: a bug", who, exc_info=(args.exc_type, args.exc_value, args.exc_traceback))


def _lines(fd: int) -> Iterator[bytes]:
    """Lines until end of file. Not sys.stdin: a thread that waits inside it makes the interpreter abort at exit."""
    held = b""
    while chunk := os.read(fd, 1 << 16):
        *lines, held = (held + chunk).split(b"\n")
        yield from lines


def _follow_control(life: Life, lines: Iterator[bytes]) -> None:
    for line in lines:
        try:
            message = json.loads(line)
        except ValueError:
            log.error("control line is not JSON: %.80r", line)
            continue
        life.control.put(message)
    # End of file: the supervisor is gone (or closed us on purpose); stop either way.
    life.stopping.set()


def _read_setup(lines: Iterator[bytes]) -> Setup:
    fields = json.loads(next(lines, b"{}"))
    fields["input_hw"] = tuple(fields["input_hw"])
    fields["secrets"] = tuple(fields["secrets"])
    return Setup(**fields)


def main() -> int:
    """Run one child to its end. Exit status 0 when it stopped because it was told to, else the error's own."""
    lines = _lines(0)
    setup = _read_setup(lines)
    die_with_parent(setup.parent_pid)
    _confine(setup)
    faulthandler.enable()
    setup_logging(secrets=setup.secrets)
    threading.excepthook = _log_thread_death
    os.set_blocking(setup.heartbeat_fd, False)
    life = Life(setup)
    signal.signal(signal.SIGTERM, lambda *_: life.stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides the order
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.Thread(target=_follow_control, args=(life, lines), name="control", daemon=True).start()
    life.beat("starting", force=True, deadline_s=START_S)
    module, _, function = (setup.target or ROLES[setup.role]).partition(":")
    try:
        run: Callable[[Life], int | None] = getattr(importlib.import_module(module), function)
        return run(life) or 0
    except VedetteError as error:
        # the supervisor says the sentence: it knows whether this ends the daemon or only this life
        life.beat("failed", force=True, error=redact(str(error))[:2000])
        return error.exit_code
    except Exception as error:
        log.critical("%s: a bug", setup.name, exc_info=True)
        life.beat("failed", force=True, error=redact(f"{type(error).__name__}: {error}")[:2000])
        return 1


def leave(status: int) -> NoReturn:
    """End the process at once: what had to be saved is. Taking the interpreter down around C libraries costs a loaded
    machine seconds, and the supervisor kills who is not gone after two."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main())

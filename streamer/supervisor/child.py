"""One child process: spawned afresh (never forked), heard through a pipe, killed when it stays silent.

Must be used from the main thread: PR_SET_PDEATHSIG follows the *thread* that spawned the child.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

from vedette.streamer.jsontext import load_json
from vedette.streamer.worker import SILENCE_S, START_S, STARTING_STATES, Setup

log = logging.getLogger("vedette.supervisor")

#: A line longer than this is no heartbeat; the capture processes decode what strangers send.
MAX_LINE = 32 * 1024
#: No child may ask for more patience than this, seconds.
MAX_DEADLINE_S = 3600.0
#: Variables that belong to the supervisor alone: a child must not speak to systemd.
_OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")


class Child:
    """A living (or just dead) child.

    beat: its last report, {} before the first. born_s, last_beat_s: monotonic seconds.
    """

    def __init__(self, setup: Setup, process: subprocess.Popen[bytes], beat_fd: int, now_s: float) -> None:
        self.setup = setup
        self.beat_fd = beat_fd
        self.born_s = self.last_beat_s = now_s
        self.deadline_s = START_S
        self.beat: dict[str, Any] = {}
        self.malformed = 0
        #: it closed its end of the heartbeat pipe: nothing more will be heard
        self.deaf = False
        self._process = process
        self._heard = b""
        self._outgoing = b""

    @classmethod
    def spawn(
        cls, setup: Setup, now_s: float, environment: Mapping[str, str] | None = None, hidden: Collection[str] = ()
    ) -> Child:
        """Start a fresh interpreter that runs ``setup.role``; heartbeat_fd and parent_pid are filled in here.

        environment: variables added to the child's own. hidden: secrets; variables that hold one are left out, for the
        child gets what it needs by its setup.
        """
        reader, writer = os.pipe()
        try:
            process = subprocess.Popen(
                # -P: the folder one happens to stand in must not provide modules
                [sys.executable, "-P", "-m", "vedette.streamer.birth", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=2,  # standard output belongs to the command that runs us
                pass_fds=(writer,),
                env={**_inherited(hidden), **(environment or {})},
                process_group=0,  # Ctrl-C is the supervisor's to hear
            )
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        os.set_blocking(reader, False)
        child = cls(replace(setup, heartbeat_fd=writer, parent_pid=os.getpid()), process, reader, now_s)
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        child._send_line(asdict(child.setup))
        return child

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def state(self) -> str:
        """The word of its last beat; ``starting`` before the first."""
        return str(self.beat.get("state", "starting"))

    @property
    def up(self) -> bool:
        """Whether it said that it works."""
        return self.state not in STARTING_STATES and self.state != "failed"

    def listen(self, now_s: float) -> None:
        """Take in every beat that waits."""
        while True:
            try:
                chunk = os.read(self.beat_fd, 1 << 16)
            except BlockingIOError:
                return
            if not chunk:
                self.deaf = True
                return
            *lines, self._heard = (self._heard + chunk).split(b"\n")
            for line in lines:
                self._take(line, now_s)
            if len(self._heard) > MAX_LINE:
                self._heard = b""
                self.malformed += 1

    def _take(self, line: bytes, now_s: float) -> None:
        try:
            beat = load_json(line)
            state, deadline_s = beat["state"], float(beat.get("deadline_s", SILENCE_S))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            self.malformed += 1
            return
        if not isinstance(state, str) or len(line) > MAX_LINE or not deadline_s > 0:
            self.malformed += 1
            return
        self.beat = beat
        self.last_beat_s = now_s
        self.deadline_s = min(deadline_s, MAX_DEADLINE_S)

    def forgive(self, pause_s: float) -> None:
        """Do not count a pause in which the supervisor did not run either."""
        self.last_beat_s += pause_s

    def silent_for(self, now_s: float) -> float:
        """Seconds since its last beat (or birth)."""
        return now_s - self.last_beat_s

    def overdue(self, now_s: float) -> bool:
        """Whether it counts as hung."""
        return self.silent_for(now_s) > self.deadline_s

    def send(self, message: dict[str, Any]) -> None:
        """Queue a control message; `flush` until `pending` is false. Never blocks on a child that does not read."""
        self._send_line(message)

    def _send_line(self, message: object) -> None:
        self._outgoing += json.dumps(message, allow_nan=False).encode() + b"\n"
        self.flush()

    @property
    def pending(self) -> bool:
        """Whether control messages still wait for room in the pipe."""
        return bool(self._outgoing)

    def flush(self) -> None:
        """Write what the pipe takes now."""
        stdin = self._process.stdin
        if stdin is None or stdin.closed:
            return
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[os.write(stdin.fileno(), self._outgoing) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._outgoing = b""  # it is dead; its exit status says more than this does

    def exit_status(self) -> int | None:
        """None while it lives; else its status, negative for the signal that ended it."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask it to stop."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now; works on stopped and hanging processes alike."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        self._process.send_signal(number)  # polls first: never signals a pid that was reaped

    def close(self, timeout_s: float = 2.0) -> int | None:
        """Reap it and release its pipes; its status. Call after its end; waits at most timeout_s for one just killed."""
        if self.beat_fd < 0:
            return self.exit_status()
        try:
            status: int | None = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            log.error("%s: pid %d did not die of SIGKILL within %g s", self.setup.name, self.pid, timeout_s)
            status = None
        self.listen(time.monotonic())
        if self._process.stdin is not None:
            self._process.stdin.close()
        os.close(self.beat_fd)
        self.beat_fd = -1
        return status


def _inherited(hidden: Collection[str]) -> dict[str, str]:
    """Our environment without what is hidden: a short secret may be part of an innocent path, so it must be the whole."""

    def holds_one(value: str) -> bool:
        return any(secret == value or (len(secret) >= 8 and secret in value) for secret in hidden)

    return {k: v for k, v in os.environ.items() if k not in _OURS and not holds_one(v)}


def status_words(status: int | None) -> str:
    """What an exit status means: ``exit 3``, ``SIGSEGV``."""
    if status is None:
        return "still there"
    if status >= 0:
        return f"exit {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"

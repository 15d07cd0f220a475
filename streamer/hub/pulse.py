"""The hub's heartbeat: a loop that waits for a slow disk lives, one that hangs anywhere else, or is stopped, does not.

The loop beats as it turns. While it waits for the disk it cannot, so a thread beats in its place, for so long as a disk
may take. A stopped process (SIGSTOP) stops the thread, too, so that it is found as soon as any other role.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

#: How often the thread looks, seconds.
LOOK_S = 0.5


class Beat(Protocol):
    """`vedette.streamer.worker.Life.beat`; called from two threads."""

    def __call__(self, state: str, **report: Any) -> None: ...


class Pulse:
    """One loop's pulse. patience_s: how long one wait for the disk is vouched for; raising it forgives slower disks and
    finds a loop that hangs *in* the disk later. now_s: the monotonic clock, an argument so that tests can move it."""

    def __init__(self, beat: Beat, patience_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._beat, self._patience_s, self._now_s = beat, patience_s, now_s
        self._said: tuple[str, dict[str, Any]] | None = None
        self._waits_since_s: float | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look, name="pulse", daemon=True)

    def start(self) -> None:
        """Let the thread vouch; before this nobody does."""
        self._thread.start()

    def turn(self, state: str, **report: Any) -> None:
        """The loop went round: beat, and remember what to say in its place."""
        self._said = state, report
        self._beat(state, **report)

    @contextlib.contextmanager
    def disk(self) -> Iterator[None]:
        """What is done inside waits for the disk and for nothing else."""
        self._waits_since_s = self._now_s()
        try:
            yield
        finally:
            self._waits_since_s = None

    def vouch(self) -> None:
        """Beat in place of a loop that waits for the disk, while it has not waited too long."""
        since_s, said = self._waits_since_s, self._said
        if said is not None and since_s is not None and self._now_s() - since_s < self._patience_s:
            self._beat(said[0], **said[1])

    def _look(self) -> None:
        while not self._stopping.wait(LOOK_S):
            self.vouch()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

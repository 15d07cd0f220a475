"""A post that must be manned: the hub, infer, or one camera. It starts its child, buries it, and starts the next.

Waiting for the next start is progress; only a living child that stays silent is a hang.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vedette.streamer.bus.ring import SLOTS, create_ring, remove_ring, ring_name, slot_bytes_for
from vedette.streamer.supervisor.child import Child, status_words
from vedette.streamer.supervisor.restart import Backoff
from vedette.streamer.worker import Setup

log = logging.getLogger("vedette.supervisor")

#: A child that is replaced or removed while the daemon runs gets this long before it is killed, seconds.
STOP_S = 2.0


@dataclass(frozen=True, slots=True)
class Death:
    """The end of one life. sentence: its last words. wanted: it had been told to stop. killed: it had to be."""

    status: int | None
    sentence: str
    was_up: bool
    wanted: bool
    killed: bool

    @property
    def clean(self) -> bool:
        """Whether it stopped as told: exit 0, or SIGTERM before it could listen for it."""
        return self.wanted and not self.killed and self.status in (0, -15)


class Post:
    """One row of the process table.

    restarts: lives after the first. due_s: when the next life begins, None when none is wanted. dying: its free
    restarts are used up and it waits.
    """

    def __init__(
        self,
        setup: Setup,
        backoff: Backoff,
        environment: Mapping[str, str] | None = None,
        hidden: Collection[str] = (),
    ) -> None:
        self.setup = setup
        self.child: Child | None = None
        self.restarts = 0
        self.due_s: float | None = None
        self.dying = False
        self.ended = False
        self.last_error: str | None = None
        self._backoff = backoff
        self._environment = environment
        self._hidden = hidden
        self._malformed = 0
        self._lives = 0
        self._ring: Path | None = None
        self._kill_s: float | None = None
        self._killed = False
        self._again = False

    @property
    def name(self) -> str:
        """``hub``, ``infer``, or the camera."""
        return self.setup.name

    @property
    def camera(self) -> str | None:
        """The camera of a capture post."""
        return self.setup.name if self.setup.role == "capture" else None

    @property
    def state(self) -> str:
        """The child's own word, or ``ended``, ``backoff``, ``starting`` when there is none."""
        if self.child is not None:
            return self.child.state
        if self.ended:
            return "ended"
        return "backoff" if self.dying else "starting"

    @property
    def up(self) -> bool:
        """Whether its child said that it works."""
        return self.child is not None and self.child.up

    def man(self, now_s: float) -> None:
        """Ask for a child, now."""
        self.due_s = now_s

    @property
    def starting(self) -> bool:
        """Whether its child still loads its code."""
        return self.child is not None and self.child.state == "starting"

    @property
    def malformed(self) -> int:
        """Beats that were none, over all its lives."""
        return self._malformed + (self.child.malformed if self.child else 0)

    def tick(self, now_s: float, *, may_start: bool = True) -> Death | None:
        """Start, hear, kill or bury, as it is time for; the death when its child's life ended.

        may_start: false while so many others start that one more would only slow them all down.
        """
        if self.child is None:
            if self.due_s is not None and now_s >= self.due_s and may_start:
                self._start(now_s)
            return None
        self.child.listen(now_s)
        self.child.flush()
        if self.child.exit_status() is not None:
            return self._bury(now_s)
        if self._kill_s is not None and now_s >= self._kill_s:
            self.kill()
        elif self.child.overdue(now_s) and not self._killed:
            silent_s = self.child.silent_for(now_s)
            log.error(
                "%s: silent for %.0f s in state %s; killing pid %d", self.name, silent_s, self.state, self.child.pid
            )
            self.last_error = f"hung: silent for {silent_s:.0f} s in state {self.state}"
            self.kill()
        return None

    def _start(self, now_s: float) -> None:
        self.due_s = None
        self._lives += 1
        # `life` tells infer whether somebody may have watched the scene before it
        setup = replace(self.setup, boot=uuid.uuid4().hex[:12], extra={**self.setup.extra, "life": self._lives})
        try:
            if setup.role == "capture":
                setup = replace(setup, ring=self._make_ring(setup))
            self.child = Child.spawn(setup, now_s, self._environment, self._hidden)
        except OSError as error:
            self._drop_ring()
            self.last_error = f"cannot start: {error}"
            self._wait(now_s, 0.0, self.last_error)
            return
        self.restarts = self._lives - 1
        self.dying = self._killed = self._again = False
        self._kill_s = None
        log.info("%s: started, pid %d", self.name, self.child.pid)

    def _make_ring(self, setup: Setup) -> str:
        name = ring_name(setup.name, setup.boot)
        path = Path(setup.run_dir) / name
        create_ring(path, SLOTS, slot_bytes_for(setup.input_hw))
        self._ring = path
        return name

    def _drop_ring(self) -> None:
        if self._ring is not None:
            remove_ring(self._ring)
            self._ring = None

    def _bury(self, now_s: float) -> Death:
        child = self.child
        assert child is not None
        status = child.close()
        self._drop_ring()
        self._malformed += child.malformed
        self.child = None
        wanted = self._kill_s is not None
        interval_s = child.beat.get("interval_s")
        if isinstance(interval_s, int | float) and 0 < interval_s < 3600:
            # what a camera's life has learned of its pace spares the next life from learning it again
            self.setup = replace(self.setup, extra={**self.setup.extra, "interval_s": interval_s})
        sentence = str(child.beat.get("error") or "") if child.state == "failed" else ""
        death = Death(status, sentence, child.up, wanted, self._killed and wanted)
        if wanted:
            log.info("%s: stopped (%s)", self.name, status_words(status))
            if self._again:
                self.man(now_s)
        elif status == 0 and child.state == "ended":
            self.ended = True
            log.info("%s: came to its end", self.name)
        else:
            words = f"died ({status_words(status)}{': ' + sentence if sentence else ''})"
            if not self._killed:
                self.last_error = words
            self._wait(now_s, now_s - child.born_s, words)
        return death

    def _wait(self, now_s: float, lived_s: float, words: str) -> None:
        wait_s = self._backoff.died(lived_s)
        self.dying = wait_s > 0
        self.due_s = now_s + wait_s
        log.warning("%s: %s; next start %s", self.name, words, f"in {wait_s:.1f} s" if wait_s else "now")

    def stop(self, now_s: float, within_s: float = STOP_S) -> None:
        """Tell the child to stop and do not start another; it is killed when it still lives after ``within_s``."""
        self.due_s = None
        self._again = False
        if self.child is not None and self._kill_s is None:
            self._kill_s = now_s + within_s
            self.child.terminate()

    def replace(self, setup: Setup, now_s: float) -> None:
        """Stop the child and start another from ``setup``; not a death, so nothing waits."""
        self.setup = setup
        self.ended = self.dying = False
        self.last_error = None
        self.stop(now_s)
        if self.child is None:
            self.man(now_s)
        else:
            self._again = True

    def kill(self) -> None:
        """End the child now."""
        if self.child is not None:
            self._killed = True
            self.child.kill()

    def row(self, now_s: float) -> dict[str, Any]:
        """This post in the process table."""
        child = self.child
        return {
            "role": self.setup.role,
            "name": self.name,
            "camera": self.camera,
            "pid": child.pid if child else None,
            "restarts": self.restarts,
            "state": self.state,
            "beat_age_s": round(child.silent_for(now_s), 3) if child else None,
            "beat": child.beat if child else {},
            "last_error": self.last_error,
        }

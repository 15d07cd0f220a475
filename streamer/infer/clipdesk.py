"""Incidents wait here for their clip: asked for when its last second has passed, told as a later ``rev``.

The alert itself never waits. A clip that cannot be had (the capture process was killed, the moment is gone, nobody
answered) is told too: the same later ``rev`` with ``explain.clip`` saying why, and ``evidence.clip`` null. Time is an
argument.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from vedette.streamer.bus.mailbox import Snapshot
from vedette.streamer.config.schema import ClipSection
from vedette.streamer.types import Event

#: How long a clip may take to be made and to arrive, seconds.
PATIENCE_S = 60.0
#: After the last second of a clip, for its pictures to be there, seconds.
SETTLE_S = 0.3
#: Clips that wait, of all cameras; more incidents than that get none.
MOST_WAITING = 256
_KEY = "clip:"

#: (camera, key, mono_ns, (before_s, after_s)): ask for a clip
Cut = Callable[[str, str, int, tuple[float, float]], None]
#: (camera, event id): the next rev of that incident, None when it is no longer known
Again = Callable[[str, str], int | None]


@dataclass(slots=True)
class _Waiting:
    event: Event
    before_s: float
    after_s: float
    due_s: float
    asked: bool = False


class ClipDesk:
    """counters: ``asked``, ``came``, ``gone`` (empty answers), ``missed`` (no answer), ``refused`` (too many wait)."""

    def __init__(self, cut: Cut, again: Again, *, patience_s: float = PATIENCE_S) -> None:
        self.counters: Counter[str] = Counter(asked=0, came=0, gone=0, missed=0, refused=0)
        self._cut, self._again, self._patience_s = cut, again, patience_s
        self._waiting: dict[str, _Waiting] = {}
        self._ready: list[tuple[Event, bytes]] = []

    def __len__(self) -> int:
        """Incidents that wait for their clip."""
        return len(self._waiting)

    def put(self, event: Event, clip: ClipSection | None, now_s: float) -> None:
        """Remember a ``start`` whose camera makes clips; anything else is passed by."""
        if clip is None or event.phase != "start":
            return
        if len(self._waiting) >= MOST_WAITING:
            self.counters["refused"] += 1
            return
        due_s = now_s + clip.after + SETTLE_S
        self._waiting[_KEY + event.id] = _Waiting(event, clip.before, clip.after, due_s)

    def take(self, snapshot: Snapshot) -> bool:
        """Whether this answer is a clip (or the absence of one); then it is kept for `work`."""
        if not snapshot.key.startswith(_KEY):
            return False
        waiting = self._waiting.pop(snapshot.key, None)
        if waiting is not None and waiting.event.camera == snapshot.camera:
            self.counters["gone" if snapshot.jpeg is None else "came"] += 1
            self._tell(waiting, snapshot.jpeg, "none: no picture of that time is kept, or it could not be made")
        return True

    def work(self, now_s: float) -> list[tuple[Event, bytes]]:
        """Ask for what is due; the tellings that are ready, each with its clip (empty: none)."""
        for key, waiting in list(self._waiting.items()):
            if not waiting.asked and now_s >= waiting.due_s:
                waiting.asked, waiting.due_s = True, now_s + self._patience_s
                self.counters["asked"] += 1
                self._cut(waiting.event.camera, key, waiting.event.mono_ns, (waiting.before_s, waiting.after_s))
            elif waiting.asked and now_s >= waiting.due_s:
                del self._waiting[key]
                self.counters["missed"] += 1
                self._tell(waiting, None, f"none: no answer within {self._patience_s:g} s")
        ready, self._ready = self._ready, []
        return ready

    def next_s(self) -> float | None:
        """When the next one is due; None when nobody waits."""
        return min((waiting.due_s for waiting in self._waiting.values()), default=None)

    def forget(self, camera: str) -> None:
        """The camera was removed."""
        self._waiting = {key: waiting for key, waiting in self._waiting.items() if waiting.event.camera != camera}

    def _tell(self, waiting: _Waiting, clip: bytes | None, why: str) -> None:
        rev = self._again(waiting.event.camera, waiting.event.id)
        if rev is None:
            return
        said: object = why if clip is None else {"before_s": waiting.before_s, "after_s": waiting.after_s}
        explain = {**waiting.event.explain, "clip": said}
        self._ready.append(
            (replace(waiting.event, rev=rev, phase="update", explain=explain, latency_ms={}), clip or b"")
        )

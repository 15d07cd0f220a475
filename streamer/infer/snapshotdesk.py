"""Events wait here for their picture, in the order of their camera, and not for long.

A ``start`` asks the capture process for a snapshot of its moment; the event goes to the hub with the JPEG, or without
it when that moment is gone or the answer takes too long (then ``explain.snapshot`` says so). What follows of the same
camera waits behind it, so that a camera's alerts are never out of order. Time is an argument.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vedette.streamer.bus.mailbox import Snapshot
from vedette.streamer.types import Event

#: How long an event waits for its picture, seconds. Raise: fewer alerts without a picture, later alerts in trouble.
PATIENCE_S = 0.3

#: (camera, key, mono_ns, box): ask for a picture
Cut = Callable[[str, str, int, "Sequence[float] | None"], None]
#: (event, jpeg): hand over to the hub
Send = Callable[[Event, bytes], object]


@dataclass(slots=True)
class _Waiting:
    event: Event
    until_s: float
    jpeg: bytes = b""
    done: bool = False


class SnapshotDesk:
    """counters: ``cut`` pictures asked for, ``late`` answers after the deadline, ``gone`` empty answers, ``missed``
    events that left without a picture they had asked for."""

    def __init__(self, cut: Cut, send: Send, *, patience_s: float = PATIENCE_S) -> None:
        self.counters: Counter[str] = Counter(cut=0, late=0, gone=0, missed=0)
        self._cut, self._send, self._patience_s = cut, send, patience_s
        self._queues: dict[str, deque[_Waiting]] = {}
        self._asked: dict[str, _Waiting] = {}

    def __len__(self) -> int:
        """Events that wait."""
        return sum(len(queue) for queue in self._queues.values())

    def put(self, event: Event, now_s: float, *, picture: bool, clip: bytes = b"") -> None:
        """Take an event in. picture: whether its camera keeps evidence; only ``start`` events ask for some. clip: the
        evidence that it brings itself."""
        waiting = _Waiting(event, now_s + self._patience_s, clip, done=not (picture and event.phase == "start"))
        if not waiting.done:
            self._asked[event.id] = waiting
            self.counters["cut"] += 1
            self._cut(event.camera, event.id, event.mono_ns, event.box)
        self._queues.setdefault(event.camera, deque()).append(waiting)

    def take(self, snapshot: Snapshot) -> None:
        """A picture (or its absence) has arrived."""
        waiting = self._asked.pop(snapshot.key, None)
        if waiting is None or waiting.event.camera != snapshot.camera:
            self.counters["late"] += 1
            return
        waiting.done = True
        if snapshot.jpeg is None:
            self.counters["gone"] += 1
            self._without(waiting, "none: that moment is no longer kept")
        else:
            waiting.jpeg = snapshot.jpeg

    def work(self, now_s: float) -> None:
        """Send what is ready or out of patience, each camera's in order."""
        for camera, queue in list(self._queues.items()):
            while queue and (queue[0].done or now_s >= queue[0].until_s):
                waiting = queue.popleft()
                if not waiting.done:
                    self._asked.pop(waiting.event.id, None)
                    self._without(waiting, f"none: no answer within {self._patience_s * 1000:.0f} ms")
                self._send(waiting.event, waiting.jpeg)
            if not queue:
                del self._queues[camera]

    def next_s(self) -> float | None:
        """When the first one runs out of patience; None when nobody waits."""
        return min((queue[0].until_s for queue in self._queues.values()), default=None)

    def _without(self, waiting: _Waiting, why: str) -> None:
        self.counters["missed"] += 1
        waiting.event = replace(waiting.event, explain={**waiting.event.explain, "snapshot": why})

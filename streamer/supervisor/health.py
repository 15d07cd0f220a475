"""Is a camera's picture arriving, and does it move? A state machine per camera; time is an argument.

                   no frame for offline_after, or its process keeps dying
    waiting ------------------------------------------------------------> offline
       |  first frame                  ^                                     |
       v                               | no frame for offline_after          | a frame (then also camera_back,
    streaming <------------------------+-------------------------------------+  unless it had never been seen)
       |  ^
frozen |  | moves again          ended: a file that came to its end is neither offline nor frozen
       v  |
     frozen
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vedette.streamer.rules.base import Check, explained
from vedette.streamer.types import Phase


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of a camera at one moment.

    last_frame_s: monotonic time of its newest picture in this life of its process, None before the first.
    frozen, ended: as its process reports. dying: its process died and waits to be started again (no free restart left).
    error: what its process last complained about.
    """

    last_frame_s: float | None = None
    frozen: bool = False
    ended: bool = False
    dying: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """A change worth an alert. number: counts this camera's incidents; start and end of one share it."""

    kind: str
    phase: Phase
    number: int
    explain: dict[str, Any] = field(default_factory=dict)


class CameraHealth:
    """One camera's state. offline_after_s: how long without a picture is an outage; raising it forgives slow cameras."""

    def __init__(self, offline_after_s: float, now_s: float) -> None:
        self.offline_after_s = offline_after_s
        self._seen_s = now_s  # nothing was seen yet: the wait for the first picture counts from here
        self._ever_seen = False
        self._open: dict[str, int] = {}
        self._count = 0

    @property
    def offline(self) -> bool:
        """Whether an outage is open."""
        return "camera_offline" in self._open

    @property
    def frozen(self) -> bool:
        """Whether the picture stands still."""
        return "camera_frozen" in self._open

    def update(self, sight: Sight, now_s: float) -> list[Incident]:
        """The incidents that this moment begins or ends, in order."""
        if sight.ended:
            return self.close("ended")
        before_s = self._seen_s
        # a moment in the future would silence the alert for ever: the report comes from what decodes strangers' data
        newest_s = before_s if sight.last_frame_s is None else min(sight.last_frame_s, now_s)
        fresh = newest_s > before_s
        self._seen_s = max(newest_s, before_s)
        found: list[Incident] = []
        missing_s = now_s - self._seen_s
        if missing_s >= self.offline_after_s or (sight.dying and not fresh):
            found += self._end("camera_frozen", {"reason": "offline"})
            if not self.offline:
                explain = explained(
                    "no picture comes, or its process keeps dying" if sight.dying else "no picture comes",
                    [Check("time without a picture", missing_s, self.offline_after_s, "s")],
                    no_picture_s=round(missing_s, 1),
                    ever_seen=self._ever_seen,
                )
                found.append(self._start("camera_offline", explain | ({"error": sight.error} if sight.error else {})))
            return found
        if fresh:
            found += self._returned(newest_s - before_s)
        if sight.frozen and not self.offline and not self.frozen:
            found.append(self._start("camera_frozen", explained("pictures come and do not change", [])))
        elif not sight.frozen:
            found += self._end("camera_frozen", {"reason": "moves"})
        return found

    def _returned(self, outage_s: float) -> list[Incident]:
        was_seen, self._ever_seen = self._ever_seen, True
        if not self.offline:
            return []
        explain = {"outage_s": round(outage_s, 1)}
        found = self._end("camera_offline", explain)
        if was_seen:
            found.append(self._start("camera_back", explained("pictures come again", [], **explain)))
            found += self._end("camera_back", explain)
        return found

    def close(self, reason: str) -> list[Incident]:
        """End what is open: the camera ended, was removed, or the daemon stops."""
        return [incident for kind in tuple(self._open) for incident in self._end(kind, {"reason": reason})]

    def _start(self, kind: str, explain: dict[str, Any]) -> Incident:
        self._count += 1
        self._open[kind] = self._count
        return Incident(kind, "start", self._count, explain)

    def _end(self, kind: str, explain: dict[str, Any]) -> list[Incident]:
        number = self._open.pop(kind, None)
        return [] if number is None else [Incident(kind, "end", number, explain)]

"""Somebody stays in a zone for too long.

The clock of a visit runs from the first picture inside, through short occlusions and a change of track
number, until the object has left. It raises once a visit, when the time is up (or, where the schedule
or a cool-down held it back, as soon as those allow while the object is still there).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from vedette.streamer.geometry import Point
from vedette.streamer.rules.base import Check, RuleConfig, explained
from vedette.streamer.rules.cooldown import Cooldown
from vedette.streamer.rules.presence import Presence, Visit
from vedette.streamer.rules.view import Places, Signal, View, rounded
from vedette.streamer.types import Phase


class LoiterConfig(RuleConfig):
    """zone: which zone of the camera. seconds: how long is too long."""

    kind: Literal["loiter"] = "loiter"
    zone: str
    seconds: Annotated[float, Field(gt=0, le=86400)]

    def place(self) -> dict[Literal["zone", "line"], str]:
        return {"zone": self.zone}

    def rule(self, places: Places) -> LoiterRule:
        return LoiterRule(self, places.zones[self.zone])


class LoiterRule:
    """`LoiterConfig` at work on one camera."""

    def __init__(self, config: LoiterConfig, polygon: Sequence[Point]) -> None:
        self._config = config
        self._presence = Presence(polygon)
        self._cooldown = Cooldown(config.cooldown)

    def step(self, view: View) -> list[Signal]:
        changes = self._presence.step(view)
        signals = [self._signal("update", visit, view.time_s) for visit in changes.renamed if visit.raised]
        for visit, reason in changes.left:
            if visit.raised:
                self._cooldown.touch(visit.tracks[0], view.time_s)
                signals.append(self._signal("end", visit, view.time_s, reason))
        for visit in self._presence.visits:
            if self._too_long(visit, view):
                visit.raised = True
                self._cooldown.touch(visit.tracks[0], view.time_s)
                signals.append(self._signal("start", visit, view.time_s))
        return signals

    def drop(self, time_s: float, reason: str) -> list[Signal]:
        return [self._signal("end", visit, time_s, reason) for visit in self._presence.drop() if visit.raised]

    def _too_long(self, visit: Visit, view: View) -> bool:
        return (
            not visit.raised
            and not visit.earlier  # reported before a reconnect or an occlusion, and never left since
            and visit.inside_s == view.time_s  # seen inside now: nobody is accused while out of sight
            and view.time_s - visit.entered_s >= self._config.seconds
            and view.awake
            and self._cooldown.ready(visit.tracks[0], view.time_s)
        )

    def _signal(self, phase: Phase, visit: Visit, time_s: float, reason: str | None = None) -> Signal:
        dwell_s = rounded((visit.inside_s if phase == "end" else time_s) - visit.entered_s)
        explain = explained(
            f"inside zone {self._config.zone} for at least {self._config.seconds:g} s",
            [Check("time inside", dwell_s, self._config.seconds, "s")],
            dwell_s=dwell_s,
            threshold_s=self._config.seconds,
        )
        if visit.rearmed:
            explain["rearmed"] = True  # it may have been there for longer than this rule has watched
        if phase == "end":
            explain |= {"duration_s": explain["dwell_s"], "reason": reason}
        score = visit.peak if phase == "end" else visit.score
        return Signal(
            phase, visit.serial, tuple(visit.tracks), visit.label, score, visit.box, visit.entered_s,
            self._config.zone, explain,
        )  # fmt: skip

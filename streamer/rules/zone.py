"""Somebody enters or leaves a zone.

An object is where it stands: at the bottom centre of its box. It enters once however its box trembles on
the edge (`vedette.streamer.rules.presence`), also when it is first seen inside; what was inside before a
restart is silent. ``enter`` lasts until the object has left or is lost; ``leave`` starts and ends at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from vedette.streamer.geometry import Point
from vedette.streamer.rules.base import Check, RuleConfig, explained
from vedette.streamer.rules.cooldown import Cooldown
from vedette.streamer.rules.presence import SETTLE_PICTURES, Presence, Visit
from vedette.streamer.rules.view import Places, Signal, View, rounded
from vedette.streamer.types import Phase


class ZoneConfig(RuleConfig):
    """zone: which zone of the camera. on: what raises the alert."""

    kind: Literal["zone"] = "zone"
    zone: str
    on: Literal["enter", "leave"] = "enter"

    def place(self) -> dict[Literal["zone", "line"], str]:
        return {"zone": self.zone}

    def rule(self, places: Places) -> ZoneRule:
        return ZoneRule(self, places.zones[self.zone])


class ZoneRule:
    """`ZoneConfig` at work on one camera."""

    def __init__(self, config: ZoneConfig, polygon: Sequence[Point]) -> None:
        self._config = config
        self._presence = Presence(polygon)
        self._cooldown = Cooldown(config.cooldown)

    def step(self, view: View) -> list[Signal]:
        changes = self._presence.step(view)
        if self._config.on == "leave":
            return [
                signal
                for visit, reason in changes.left
                if reason != "lost" and self._may_start(visit, view)
                for signal in self._left(visit, reason, view.time_s)
            ]
        signals = []
        for visit in changes.entered:
            if not (visit.rearmed or visit.returned) and self._may_start(visit, view):
                visit.raised = True
                signals.append(self._signal("start", visit, {}))
        signals += [self._signal("update", visit, {"renamed": True}) for visit in changes.renamed if visit.raised]
        for visit, reason in changes.left:
            if visit.raised:
                self._cooldown.touch(visit.tracks[0], view.time_s)
                signals.append(self._signal("end", visit, {"reason": reason}))
        return signals

    def drop(self, time_s: float, reason: str) -> list[Signal]:
        gone = self._presence.drop()
        raised = [visit for visit in gone if visit.raised]
        for visit in raised:
            self._cooldown.touch(visit.tracks[0], time_s)
        return [self._signal("end", visit, {"reason": reason}) for visit in raised]

    def _may_start(self, visit: Visit, view: View) -> bool:
        """Awake and not cooling down; remembers the start."""
        if not (view.awake and self._cooldown.ready(visit.tracks[0], view.time_s)):
            return False
        self._cooldown.touch(visit.tracks[0], view.time_s)
        return True

    def _left(self, visit: Visit, reason: str, time_s: float) -> list[Signal]:
        explain = {"how": reason, "inside_s": rounded(visit.inside_s - visit.entered_s)}
        start = self._signal("start", visit, explain, time_s)
        return [start, self._signal("end", visit, {**explain, "duration_s": 0.0, "reason": "momentary"}, time_s)]

    def _signal(self, phase: Phase, visit: Visit, explain: dict[str, object], since_s: float | None = None) -> Signal:
        if phase == "end":
            explain = {"duration_s": rounded(visit.inside_s - visit.entered_s), **explain}
        elif phase == "start":
            explain = {**explain, "pictures": SETTLE_PICTURES, "stands_at": [rounded(v) for v in visit.anchor]}
        left, zone = self._config.on == "leave", self._config.zone
        condition = f"outside zone {zone} after being inside" if left else f"inside zone {zone}"
        explain = explained(
            condition, [Check("pictures that show it inside", SETTLE_PICTURES, SETTLE_PICTURES)], **explain
        )
        score = visit.peak if phase == "end" else visit.score
        since_s = visit.entered_s if since_s is None else since_s
        return Signal(
            phase, visit.serial, tuple(visit.tracks), visit.label, score, visit.box, since_s, self._config.zone, explain
        )

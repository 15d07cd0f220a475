"""Somebody falls and stays down: learned evidence of a person's track.

The temporal engine gives a probability from how the box of a person changes (evidence ``fall``, see the model card
``vedette-events.md``): upright, then within a second low and wide. In the first half second of a track it is unknown. Somebody goes down
when the probability is at least ``threshold`` and the box has lost `DROP` of the height that it had in the last `BEFORE_S` (who walks out
of the picture, or behind something, has not), and it starts when they have been down for ``seconds``; a person who lies is often not found any more, so a track that is lost right
after it fell counts as down, for `LOST_S` at most. It ends when the probability has been lower for `END_S` (got up), or when the person
has not been seen for `LOST_S`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from vedette.streamer.geometry import Point, points_in_polygon
from vedette.streamer.rules.base import Check, RuleConfig, explained
from vedette.streamer.rules.cooldown import Cooldown
from vedette.streamer.rules.view import Box, Places, Signal, View, box_of, rounded
from vedette.streamer.types import Phase

#: Low for this long ends an incident, seconds.
END_S = 2.0
#: Somebody who was down and is not seen counts as down for this long, seconds.
LOST_S = 10.0
#: Share of the height of the last `BEFORE_S` that somebody who falls loses.
DROP, BEFORE_S = 0.35, 4.0
#: People lower than this when upright are too few pixels to be judged, picture heights.
LEAST_HEIGHT = 0.1
#: Once it has started, low begins at this share of the threshold.
EASE = 0.5


class FallConfig(RuleConfig):
    """threshold: probability; raise: fewer false alarms, more falls missed; 0 leaves the height alone to decide. seconds: how long somebody
    must stay down; raise: who bends or stumbles is not told, later alerts. zone: where; the whole picture when absent."""

    not_for: ClassVar[str] = (
        "the only safeguard of anybody: it misses falls that are hidden, short-lived, towards the camera or from a bed, and takes "
        "some who sit down fast or crouch for fallen; never in place of a call button or a carer"
    )

    kind: Literal["fall"] = "fall"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.7
    seconds: Annotated[float, Field(ge=0, le=60)] = 1.0
    zone: str | None = None

    def place(self) -> dict[Literal["zone", "line"], str]:
        return {} if self.zone is None else {"zone": self.zone}

    def learned(self) -> tuple[str, ...]:
        return ("fall",)

    def rule(self, places: Places) -> FallRule:
        return FallRule(self, None if self.zone is None else tuple(places.zones[self.zone]))


@dataclass(slots=True)
class _Person:
    """since_s, down_s: since when down, and last seen so; None while upright. seen_s: last seen at all, known."""

    seen_s: float
    since_s: float | None = None
    down_s: float = 0.0
    serial: int = 0  # of the open incident, 0 when there is none
    last: float = 0.0
    peak: float = 0.0
    label: str = ""
    heights: deque[tuple[float, float]] = field(default_factory=deque)
    drop: float = 0.0  # share of the height that was lost when the person went down
    box: Box = (0.0, 0.0, 0.0, 0.0)

    def lose(self, time_s: float, height: float) -> float:
        """Take in a height; the share of the tallest of the last `BEFORE_S` that is lost, 0 for who was never tall enough."""
        self.heights.append((time_s, height))
        while time_s - self.heights[0][0] > BEFORE_S:
            self.heights.popleft()
        tallest = max(h for _, h in self.heights)
        return 1 - height / tallest if tallest >= LEAST_HEIGHT else 0.0


class FallRule:
    """`FallConfig` at work on one camera."""

    def __init__(self, config: FallConfig, polygon: tuple[Point, ...] | None) -> None:
        self._config, self._polygon = config, polygon
        self._cooldown = Cooldown(config.cooldown)
        self._people: dict[int, _Person] = {}
        self._serial = 0

    def step(self, view: View) -> list[Signal]:
        probability = view.evidence("fall")
        judged = ~np.isnan(probability)
        if self._polygon is not None:
            judged &= points_in_polygon(view.anchor, self._polygon)
        for i in np.flatnonzero(view.seen).tolist():
            person = self._people.setdefault(int(view.tracks.id[i]), _Person(view.time_s))
            drop = person.lose(view.time_s, float(view.tracks.xyxy[i, 3] - view.tracks.xyxy[i, 1]))
            if judged[i]:
                self._look(person, view, i, float(probability[i]), drop)
        signals: list[Signal] = []
        for number, person in list(self._people.items()):
            signals += self._judge(number, person, view)
            if not person.serial and view.time_s - person.seen_s > LOST_S:
                del self._people[number]
        return signals

    def drop(self, time_s: float, reason: str) -> list[Signal]:
        del time_s
        open_ones = [(number, person) for number, person in self._people.items() if person.serial]
        self._people = {}
        return [self._signal("end", number, person, person.down_s, reason) for number, person in open_ones]

    def _look(self, person: _Person, view: View, i: int, probability: float, drop: float) -> None:
        """Take in one judged sight of a person."""
        person.seen_s = view.time_s
        if person.since_s is None and drop < DROP:
            return
        if probability < self._config.threshold * (EASE if person.serial else 1.0):
            if not person.serial:
                person.since_s = None
            return
        if person.since_s is None:
            person.since_s, person.peak, person.drop = view.time_s, 0.0, drop
        person.down_s, person.last, person.peak = view.time_s, probability, max(person.peak, probability)
        person.label, person.box = view.labels[int(view.tracks.label[i])], box_of(view.tracks, i)

    def _judge(self, number: int, person: _Person, view: View) -> list[Signal]:
        """What the passing of time means for a person, seen or not."""
        now_s, since_s = view.time_s, person.since_s
        if since_s is None:
            return []
        lost = now_s - person.seen_s >= LOST_S
        if person.serial:
            if not lost and now_s - person.down_s < max(END_S, now_s - person.seen_s + 1e-6):
                return []
            signal = self._signal("end", number, person, person.down_s, "not seen any more" if lost else "got up")
            self._cooldown.touch(number, person.down_s)
            person.serial, person.since_s = 0, None
            return [signal]
        held = now_s - since_s >= self._config.seconds - 1e-6
        if lost or not (held and view.awake and self._cooldown.ready(number, now_s)):
            return []
        self._cooldown.touch(number, now_s)
        self._serial += 1
        person.serial = self._serial
        return [self._signal("start", number, person, now_s)]

    def _signal(self, phase: Phase, number: int, person: _Person, time_s: float, reason: str | None = None) -> Signal:
        config, since_s = self._config, person.since_s
        assert since_s is not None
        checks = [
            Check("probability of a fall", person.last, config.threshold),
            Check("height lost", person.drop, DROP),
            Check("down for", rounded(time_s - since_s), config.seconds, "s"),
        ]
        trace = explained(
            f"fell, {config.threshold:g} or more, and stays down for {config.seconds:g} s",
            checks,
            unseen_s=rounded(max(0.0, time_s - person.seen_s)),
        )
        if phase == "end":
            trace |= {"duration_s": rounded(person.down_s - since_s), "reason": reason}
        return Signal(
            phase, person.serial, (number,), person.label, person.peak if phase == "end" else person.last, person.box,
            since_s, config.zone, trace,
        )  # fmt: skip

"""Somebody falls and stays down: learned evidence of a person's track.

The temporal engine gives a probability from how the box of a person changes (evidence ``fall``, see the model card
``vedette-events.md``): upright, then within a second low and wide. In the first half second of a track it is unknown. Somebody
goes down when the probability is at least ``threshold``, or when an upright box is a lying one within about a second; and when
the box has lost `DROP` of the height that it had in the last `BEFORE_S` (who walks out of the picture, or behind something, has
not). It starts when they have been down for ``seconds``; a person who lies is often not found any more, so a track that is lost
right after it fell counts as down, for `LOST_S` at most. It ends when neither has been so for `END_S` (got up), or when the
person has not been seen for `LOST_S`. ``explain.attention_s`` says without which past half seconds the model would be less sure,
``explain.attention_map`` where the person was in them; both are worked out only when an alert starts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from vedette.streamer.geometry import Point, points_in_polygon
from vedette.streamer.rules.attention import over_boxes, over_parts, over_time
from vedette.streamer.rules.base import Check, RuleConfig, explained
from vedette.streamer.rules.casebook import Case, Casebook
from vedette.streamer.rules.view import Places, Signal, View, box_of, rounded

#: Low for this long ends an incident, seconds.
END_S = 2.0
#: Somebody who was down and is not seen counts as down for this long, seconds.
LOST_S = 10.0
#: Share of the height of the last `BEFORE_S` that somebody who falls loses.
DROP, BEFORE_S = 0.35, 4.0
#: The foot of who falls rises by no more than this share of the tallest height.
RISE = 0.35
#: Somebody whose box was this slender (width / height) and within so many seconds is this wide, and has lost so much of their
#: height, lies: whatever the learned evidence says.
UPRIGHT, LYING, LAID_WITHIN_S, LAID_DROP = 0.75, 1.3, 1.2, 0.45
#: People lower than this when upright are too few pixels to be judged, picture heights.
LEAST_HEIGHT = 0.1
#: Once it has started, low begins at this share of the threshold, and not lying at this share of the shape.
EASE, EASE_SHAPE = 0.5, 0.75


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
class _Person(Case):
    """seen_s: seen last, with a known probability. boxes: of the last `BEFORE_S`. drop: share lost when the person went down.
    why: attention when the alert started, for ``explain``."""

    seen_s: float = 0.0
    boxes: deque[tuple[float, tuple[float, ...]]] = field(default_factory=deque)
    drop: float = 0.0
    upright_s: float = -1e9
    shape: float = 0.0
    laid: bool = False
    why: dict[str, Any] = field(default_factory=dict)

    def lie(self, time_s: float, shape: float, drop: float) -> bool:
        """Take in a shape (width / height); whether somebody who stood or sat a moment ago lies now, or still does."""
        self.shape = shape
        if shape <= UPRIGHT:
            self.upright_s, self.laid = time_s, False
        fell = shape >= LYING and drop >= LAID_DROP and time_s - self.upright_s <= LAID_WITHIN_S
        self.laid = fell or (self.laid and shape >= LYING * EASE_SHAPE)
        return self.laid

    def lose(self, time_s: float, box: tuple[float, ...]) -> float:
        """Take in a box; the share of the tallest height of the last `BEFORE_S` that is lost, 0 for who was never tall enough and
        for a box whose foot has risen: nobody falls upwards, the track has gone over to somebody farther away."""
        self.boxes.append((time_s, box))
        while time_s - self.boxes[0][0] > BEFORE_S:
            self.boxes.popleft()
        _, top, _, bottom = max((known for _, known in self.boxes), key=lambda known: known[3] - known[1])
        tallest = bottom - top
        if tallest < LEAST_HEIGHT or bottom - box[3] > RISE * tallest:
            return 0.0
        return 1 - (box[3] - box[1]) / tallest

    def attention(self, shares: Sequence[tuple[float, float]], later_s: float) -> dict[str, Any]:
        """Which past half seconds the model goes by, and where the person was in them. shares: (seconds before the box that was judged
        last, loss). later_s: how long ago that was."""
        newest_s = self.boxes[-1][0]
        times = np.array([time_s for time_s, _ in self.boxes])
        known = [(ago_s, share) for ago_s, share in shares if newest_s - ago_s >= times[0]]
        boxes = [self.boxes[int(np.argmin(np.abs(times - newest_s + ago_s)))][1] for ago_s, _ in known]
        parts = over_boxes(boxes, [share for _, share in known])
        return {"attention_s": over_time(shares, later_s), "attention_map": over_parts(parts)} if shares else {}


class FallRule:
    """`FallConfig` at work on one camera."""

    def __init__(self, config: FallConfig, polygon: tuple[Point, ...] | None) -> None:
        self._config, self._polygon = config, polygon
        self._book = Casebook(_Person, self._trace, config.cooldown, config.zone)

    def step(self, view: View) -> list[Signal]:
        probability = view.evidence("fall")
        judged = ~np.isnan(probability)
        if self._polygon is not None:
            judged &= points_in_polygon(view.anchor, self._polygon)
        for i in np.flatnonzero(view.seen).tolist():
            number = int(view.tracks.id[i])
            if number not in self._book:
                self._book.case(number).seen_s = view.time_s
            person = self._book.case(number)
            drop = person.lose(view.time_s, tuple(view.tracks.xyxy[i].tolist()))
            if judged[i]:
                self._look(person, view, i, float(probability[i]), drop)
        signals: list[Signal] = []
        for key, person in self._book.items():
            signals += self._judge(key, person, view)
            if not person.serial and view.time_s - person.seen_s > LOST_S:
                self._book.forget(key)
        return signals

    def drop(self, time_s: float, reason: str) -> list[Signal]:
        del time_s
        return self._book.drop(reason)

    def _look(self, person: _Person, view: View, i: int, probability: float, drop: float) -> None:
        """Take in one judged sight of a person."""
        person.seen_s = view.time_s
        x1, y1, x2, y2 = view.tracks.xyxy[i].tolist()
        lies = person.lie(view.time_s, (x2 - x1) * view.aspect / max(y2 - y1, 1e-6), drop)
        if person.since_s is None:
            person.drop = drop
            if drop < DROP:
                return
        if probability < self._config.threshold * (EASE if person.serial else 1.0) and not lies:
            if not person.serial:
                person.since_s = None
            return
        person.hold(view.time_s, probability)
        person.tracks, person.box = (int(view.tracks.id[i]),), box_of(view.tracks, i)
        person.label = view.labels[int(view.tracks.label[i])]

    def _judge(self, key: Hashable, person: _Person, view: View) -> list[Signal]:
        """What the passing of time means for a person, seen or not."""
        now_s, since_s = view.time_s, person.since_s
        if since_s is None:
            return []
        lost = now_s - person.seen_s >= LOST_S
        if person.serial:
            if not lost and now_s - person.last_s < max(END_S, now_s - person.seen_s + 1e-6):
                return []
            return self._book.end(key, "not seen any more" if lost else "got up")
        if now_s - since_s < self._config.seconds - 1e-6 or lost or not self._book.ready(key, view):
            return []
        if view.why is not None:
            person.why = person.attention(view.why.past_of(person.tracks[0]), now_s - person.seen_s)
        return self._book.start(key, view)

    def _trace(self, person: _Person, time_s: float) -> dict[str, Any]:
        config, since_s = self._config, person.since_s
        assert since_s is not None
        checks = [
            Check("probability of a fall", person.score, config.threshold),
            Check("or shape of who was upright just before (width / height)", person.shape, LYING),
            Check("height lost", person.drop, DROP),
            Check("down for", rounded(time_s - since_s), config.seconds, "s"),
        ]
        return explained(
            f"fell, {config.threshold:g} or more or from upright to lying, and stays down for {config.seconds:g} s",
            checks,
            unseen_s=rounded(max(0.0, time_s - person.seen_s)),
            **person.why,
        )

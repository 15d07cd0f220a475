"""Something was put down and its owner has left.

Candidates are bags that the detector knows, and whatever else stands still where nothing was (static foreground,
`vedette.streamer.capture.staticscene`). A candidate needs an owner: the nearest person within ``distance`` of it when it appeared (or
in the seconds before: a bag is often seen only once its owner has stepped aside). What was there from the start, what
appears where nobody was (light, a hole that something left behind) and what is too large to be put down has none, and is
never told. The clock runs while the owner is farther than ``distance`` or gone; passers-by do not stop it. An owner who is
lost beside the object is whoever stands there next, so that a change of track number abandons nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from vedette.streamer.geometry import Point
from vedette.streamer.rules.base import Check, ClassName, RuleConfig, explained
from vedette.streamer.rules.cooldown import Cooldown
from vedette.streamer.rules.settled import Settled, Thing, leaving
from vedette.streamer.rules.view import Places, Signal, View, rounded
from vedette.streamer.types import Phase

#: Unseen, and not hidden by anybody, for this long the thing has been taken away, seconds.
GONE_S = 3.0
#: A track younger than this has just appeared, seconds.
APPEARED_S = 3.0


class AbandonedConfig(RuleConfig):
    """seconds: how long the owner must be away; raise: fewer alarms by people who come back, later ones.

    distance: how far away is away, in heights of the owner; raise: owners who stand nearby count as there. unknown:
    whether things that are no known bag count. largest: no taller than this, in heights of the owner. zone: where the
    thing must stand; the whole picture when absent.
    """

    not_for: ClassVar[str] = (
        "the safety of people: small, dark or half hidden things are missed, and nothing is known of what is inside; crowds "
        "that hide the floor; things thrown or left by vehicles (they have no owner here)"
    )

    kind: Literal["abandoned"] = "abandoned"
    classes: Annotated[list[ClassName], Field(min_length=1)] | None = ["person", "bag", "vehicle", "animal"]  # noqa: RUF012
    seconds: Annotated[float, Field(gt=0, le=86400)] = 20.0
    distance: Annotated[float, Field(gt=0, le=50)] = 1.5
    unknown: bool = True
    largest: Annotated[float, Field(gt=0, le=10)] = 0.7
    zone: str | None = None

    def place(self) -> dict[Literal["zone", "line"], str]:
        return {} if self.zone is None else {"zone": self.zone}

    def rule(self, places: Places) -> AbandonedRule:
        return AbandonedRule(self, None if self.zone is None else tuple(places.zones[self.zone]))


@dataclass(slots=True)
class _Case:
    """A thing with an owner. alone_s: since when the owner is away, None while there. away: how far, owner heights.
    beside: whether the owner was there when last seen."""

    thing: Thing
    owner: int
    owner_height: float
    near_s: float
    alone_s: float | None = None
    away: float | None = None
    beside: bool = True
    serial: int = 0
    peak: float = 0.0


class AbandonedRule:
    """`AbandonedConfig` at work on one camera."""

    def __init__(self, config: AbandonedConfig, polygon: tuple[Point, ...] | None) -> None:
        self._config = config
        self._settled = Settled(polygon, unknown=config.unknown, reach=config.distance, largest=config.largest)
        self._cooldown = Cooldown(config.cooldown)
        self._cases: dict[int, _Case] = {}
        self._serial = 0

    def step(self, view: View) -> list[Signal]:
        signals: list[Signal] = []
        self._settled.step(view)
        for thing in self._settled.things:
            if thing.owner is not None and thing.number not in self._cases:
                near_s, beside = self._settled.last_near(thing, view.aspect)
                self._cases[thing.number] = _Case(thing, thing.owner, thing.owner_height, near_s, beside=beside)
        for number, case in list(self._cases.items()):
            gone = view.time_s - case.thing.seen_s >= GONE_S
            if gone or case.thing.number not in self._settled:
                if case.serial:
                    self._cooldown.touch(number, view.time_s)
                    signals.append(self._signal("end", case, case.thing.seen_s, "taken away"))
                del self._cases[number]
                self._settled.forget(number)
                continue
            self._watch(case, view)
            signals += self._judge(number, case, view)
        return signals

    def drop(self, time_s: float, reason: str) -> list[Signal]:
        signals = [self._signal("end", case, time_s, reason) for case in self._cases.values() if case.serial]
        self._cases = {}
        self._settled.drop()
        return signals

    def _watch(self, case: _Case, view: View) -> None:
        """Where the owner is now."""
        tracks = view.tracks
        people = [i for i in np.flatnonzero(view.seen).tolist() if view.labels[int(tracks.label[i])] == "person"]
        away = {int(tracks.id[i]): case.thing.distance(view, i) / case.owner_height for i in people}
        if case.owner not in away and case.beside:
            # lost beside the thing: who appears there, or stands there in that moment, is the owner under a new number
            new = {int(tracks.id[i]) for i in people if float(tracks.age_s[i]) <= APPEARED_S}
            near = [
                (far, number)
                for number, far in away.items()
                if far <= self._config.distance and (number in new or view.time_s - case.near_s < 1.0)
            ]
            case.owner = min(near)[1] if near else case.owner
        case.away = away.get(case.owner)
        if case.away is not None:
            row = int(np.flatnonzero(tracks.id == case.owner)[0])
            case.beside = case.away <= self._config.distance and not leaving(view, row)
        if case.away is not None and case.away <= self._config.distance:
            case.near_s, case.alone_s = view.time_s, None
        elif case.alone_s is None:
            case.alone_s = case.near_s

    def _judge(self, number: int, case: _Case, view: View) -> list[Signal]:
        case.peak = max(case.peak, case.thing.score)
        if case.serial:
            if case.alone_s is not None:
                return []
            self._cooldown.touch(number, view.time_s)
            signals = [self._signal("end", case, view.time_s, "the owner is back")]
            case.serial = 0
            return signals
        alone_s = 0.0 if case.alone_s is None else view.time_s - case.alone_s
        # a person who hides the place says nothing of it, and what has shrunk to a scrap meanwhile is not what was put down
        is_there = view.time_s - case.thing.shown_s <= 1.0 and case.thing.fits(case.owner_height, self._config.largest)
        due = alone_s >= self._config.seconds and is_there
        if not (due and view.awake and self._cooldown.ready(number, view.time_s)):
            return []
        self._cooldown.touch(number, view.time_s)
        self._serial += 1
        case.serial = self._serial
        return [self._signal("start", case, view.time_s)]

    def _signal(self, phase: Phase, case: _Case, time_s: float, reason: str | None = None) -> Signal:
        config, thing = self._config, case.thing
        since_s = case.alone_s if case.alone_s is not None else case.near_s
        trace = explained(
            f"put down and alone for {config.seconds:g} s",
            [
                Check("time without its owner", max(0.0, time_s - since_s), config.seconds, "s"),
                Check("distance of the owner (no value: out of sight)", case.away, config.distance, "heights"),
                Check(
                    "height of the thing", thing.height / case.owner_height, config.largest, "heights", at_least=False
                ),
            ],
            seen_as=thing.seen_as,
            put_down_s=rounded(time_s - thing.since_s),
            owner=case.owner,
        )
        if phase == "end":
            trace |= {"duration_s": rounded(max(0.0, time_s - since_s)), "reason": reason}
        tracks = (*thing.tracks, case.owner)
        score = case.peak if phase == "end" else thing.score
        return Signal(phase, case.serial, tracks, thing.label, score, thing.box, since_s, config.zone, trace)

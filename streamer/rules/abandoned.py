"""Something was put down and its owner has left.

Candidates are bags that the detector knows, and whatever else stands still where nothing was (static foreground,
`vedette.streamer.capture.staticscene`). A candidate needs an owner: the nearest person within ``distance`` of it when it appeared (or
in the seconds before: a bag is often seen only once its owner has stepped aside). What was there from the start, what
appears where nobody was (light, a hole that something left behind) and what is too large to be put down has none, and is
never told. The clock runs while the owner is farther than ``distance`` or gone; passers-by do not stop it. An owner who is
lost beside the object is whoever stands there next, so that a change of track number abandons nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from vedette.streamer.geometry import Point
from vedette.streamer.rules.base import Check, ClassName, RuleConfig, explained
from vedette.streamer.rules.casebook import Case, Casebook
from vedette.streamer.rules.settled import Settled, Thing, leaving
from vedette.streamer.rules.view import Places, Signal, View, rounded

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
class _Left(Case):
    """A thing with an owner; ``since_s``: since when the owner is away. near_s: when the owner was last there. away: how far, owner
    heights. beside: whether the owner was there when last seen."""

    thing: Thing | None = None
    owner: int = 0
    owner_height: float = 1.0
    near_s: float = 0.0
    away: float | None = None
    beside: bool = True


class AbandonedRule:
    """`AbandonedConfig` at work on one camera."""

    def __init__(self, config: AbandonedConfig, polygon: tuple[Point, ...] | None) -> None:
        self._config = config
        self._settled = Settled(polygon, unknown=config.unknown, reach=config.distance, largest=config.largest)
        self._book = Casebook(_Left, self._trace, config.cooldown, config.zone)

    def step(self, view: View) -> list[Signal]:
        self._settled.step(view)
        for thing in self._settled.things:
            if thing.owner is not None and thing.number not in self._book:
                case = self._book.case(thing.number)
                case.thing, case.owner, case.owner_height = thing, thing.owner, thing.owner_height
                case.near_s, case.beside = self._settled.last_near(thing, view.aspect)
        return [signal for key, case in self._book.items() for signal in self._watch(key, case, view)]

    def drop(self, time_s: float, reason: str) -> list[Signal]:
        del time_s
        self._settled.drop()
        return self._book.drop(reason)

    def _watch(self, key: Hashable, case: _Left, view: View) -> list[Signal]:
        """What one more picture says of a thing and its owner."""
        thing = case.thing
        assert thing is not None
        if view.time_s - thing.seen_s >= GONE_S or thing.number not in self._settled:
            signals = self._book.end(key, "taken away")
            self._book.forget(key)
            self._settled.forget(thing.number)
            return signals
        if self._is_near(case, thing, view):
            case.near_s = view.time_s
            return self._book.end(key, "the owner is back")
        case.hold(thing.seen_s, thing.score, since_s=case.near_s)
        case.tracks, case.label, case.box = (*thing.tracks, case.owner), thing.label, thing.box
        # a person who hides the place says nothing of it, and what has shrunk to a scrap meanwhile is not what was put down
        is_there = view.time_s - thing.shown_s <= 1.0 and thing.fits(case.owner_height, self._config.largest)
        due = is_there and view.time_s - case.near_s >= self._config.seconds
        return self._book.start(key, view) if due else []

    def _is_near(self, case: _Left, thing: Thing, view: View) -> bool:
        """Whether the owner, or who is one under a new number, is beside the thing now."""
        tracks = view.tracks
        people = [i for i in np.flatnonzero(view.seen).tolist() if view.labels[int(tracks.label[i])] == "person"]
        away = {int(tracks.id[i]): thing.distance(view, i) / case.owner_height for i in people}
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
        if case.away is None:
            return False
        is_near = case.away <= self._config.distance
        case.beside = is_near and not leaving(view, int(np.flatnonzero(tracks.id == case.owner)[0]))
        return is_near

    def _trace(self, case: _Left, time_s: float) -> dict[str, Any]:
        config, thing, since_s = self._config, case.thing, case.since_s
        assert thing is not None
        assert since_s is not None
        checks = [
            Check("time without its owner", max(0.0, time_s - since_s), config.seconds, "s"),
            Check("distance of the owner (no value: out of sight)", case.away, config.distance, "heights"),
            Check("height of the thing", thing.height / case.owner_height, config.largest, "heights", at_least=False),
        ]
        return explained(
            f"put down and alone for {config.seconds:g} s", checks,
            seen_as=thing.seen_as, put_down_s=rounded(time_s - thing.since_s), owner=case.owner,
        )  # fmt: skip

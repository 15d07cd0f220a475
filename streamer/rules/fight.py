"""People fight: learned evidence of the whole picture, for long enough.

The temporal engine gives a probability from how people move (evidence ``fight``, see the model card ``vedette-events.md``); in the
first half second of a camera, and after a silence, it is unknown and nothing is concluded. It starts when the probability has been at
least ``threshold`` for ``seconds`` (dips shorter than `DIP_S` are forgiven), goes on while it is not much lower, and ends when it has
been lower, or unknown, for `END_S`. ``explain.attention_s`` says which past half seconds made the probability (exact: the model is
linear in them), ``explain.attention_map`` what the alert's own picture would lose where nothing moved; both are worked out only
when an alert is told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from vedette.streamer.rules.attention import over_parts, over_time
from vedette.streamer.rules.base import Check, RuleConfig, explained
from vedette.streamer.rules.casebook import Case, Casebook
from vedette.streamer.rules.view import Box, Places, Signal, View, box_of, rounded

#: A probability that is too low for less than this does not start the clock anew, seconds.
DIP_S = 0.3
#: Low or unknown for this long ends the incident, seconds.
END_S = 2.0
#: Once it has started, low begins at this share of the threshold.
EASE = 0.75
#: At most one update of the peak in this time, seconds, and only when it rose by `RISE`.
UPDATE_S, RISE = 1.0, 0.05
#: Share of a box that another must cover for its person to be named as taking part.
TOUCH = 0.05


class FightConfig(RuleConfig):
    """threshold: probability; raise: fewer false alarms, more fights missed; 0 reports every clip's best. seconds: for how long; raise: a
    sudden movement is not told, later alerts."""

    not_for: ClassVar[str] = (
        "judging people or calling the police without a person who looks: play, dance, sport, hugs and crowds that jostle look "
        "like fights to it, and a fight among few pixels, in the dark or behind others looks like nothing"
    )

    kind: Literal["fight"] = "fight"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.7
    seconds: Annotated[float, Field(ge=0, le=60)] = 0.3

    def learned(self) -> tuple[str, ...]:
        return ("fight",)

    def rule(self, places: Places) -> FightRule:
        del places
        return FightRule(self)


@dataclass(slots=True)
class _Fight(Case):
    """told, told_s: the peak that was told last, and when. why: attention as it was then, for ``explain``."""

    told: float = 0.0
    told_s: float = 0.0
    why: dict[str, Any] = field(default_factory=dict)


class FightRule:
    """`FightConfig` at work on one camera."""

    def __init__(self, config: FightConfig) -> None:
        self._config = config
        self._book = Casebook(_Fight, self._trace, config.cooldown)

    def step(self, view: View) -> list[Signal]:
        probability, now_s, case = view.scene.get("fight"), view.time_s, self._book.case(None)
        if probability is not None and probability >= self._config.threshold * (EASE if case.serial else 1.0):
            return self._high(case, probability, view)
        quiet_s = now_s - case.last_s
        if case.serial and quiet_s >= END_S:
            return self._book.end(None, "calm" if probability is not None else "unknown")
        if not case.serial and quiet_s >= DIP_S:
            case.since_s = None
        return []

    def drop(self, time_s: float, reason: str) -> list[Signal]:
        del time_s
        return self._book.drop(reason)

    def _high(self, case: _Fight, probability: float, view: View) -> list[Signal]:
        """One more picture that looks like a fight."""
        now_s = view.time_s
        case.hold(now_s, probability)
        case.tracks, case.box = involved(view)
        case.label = "person" if case.tracks else None
        assert case.since_s is not None
        if case.serial:
            if case.peak < case.told + RISE or now_s - case.told_s < UPDATE_S:
                return []
            self._look_back(case, view)
            return [self._book.tell("update", None, now_s)]
        if now_s - case.since_s < self._config.seconds - 1e-6 or not self._book.ready(None, view):
            return []
        self._look_back(case, view)
        return self._book.start(None, view)

    def _look_back(self, case: _Fight, view: View) -> None:
        case.told, case.told_s, case.why = case.peak, view.time_s, attention(view)

    def _trace(self, case: _Fight, time_s: float) -> dict[str, Any]:
        config = self._config
        assert case.since_s is not None
        checks = [
            Check("probability of a fight", case.score, config.threshold),
            Check("for", rounded(time_s - case.since_s), config.seconds, "s"),
        ]
        condition = f"looks like a fight, {config.threshold:g} or more, for {config.seconds:g} s"
        return explained(condition, checks, **case.why)


def attention(view: View) -> dict[str, Any]:
    """Which past half seconds speak for a fight, and which parts of this picture; what the model cannot say is absent."""
    if view.why is None:
        return {}
    seconds, parts = over_time(view.why.past()), view.why.places()
    found: dict[str, Any] = {"attention_s": seconds} if seconds else {}
    return found if parts is None else found | {"attention_map": over_parts(parts)}


def involved(view: View) -> tuple[tuple[int, ...], Box | None]:
    """Who touches another person in this picture, and the box around them; nobody when nobody does."""
    tracks = view.tracks
    people = np.flatnonzero(view.seen & np.array([view.labels[k] == "person" for k in tracks.label.tolist()], np.bool_))
    boxes = tracks.xyxy[people]
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(2)
    np.fill_diagonal(both, 0)
    area = np.clip(boxes[:, 2:] - boxes[:, :2], 1e-6, None).prod(1)
    touching = people[(both.max(1, initial=0) > TOUCH * area)] if len(people) else people
    if not len(touching):
        return (), None
    each = [box_of(tracks, i) for i in touching.tolist()]
    box = min(b[0] for b in each), min(b[1] for b in each), max(b[2] for b in each), max(b[3] for b in each)
    return tuple(sorted(tracks.id[touching].tolist())), box

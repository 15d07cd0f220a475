"""People fight: learned evidence of the whole picture, for long enough.

The temporal engine gives a probability from how people move (evidence ``fight``, see the model card ``vedette-events.md``); in the
first half second of a camera, and after a silence, it is unknown and nothing is concluded. It starts when the probability has been at
least ``threshold`` for ``seconds`` (dips shorter than `DIP_S` are forgiven), goes on while it is not much lower, and ends when it has
been lower, or unknown, for `END_S`. ``explain.attention_s`` says which past half seconds made the probability; it is worked out
only when an alert is told.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from vedette.streamer.rules.base import Check, RuleConfig, explained
from vedette.streamer.rules.cooldown import Cooldown
from vedette.streamer.rules.view import Box, Places, Signal, View, box_of, rounded
from vedette.streamer.types import Phase

#: A probability that is too low for less than this does not start the clock anew, seconds.
DIP_S = 0.3
#: Low or unknown for this long ends the incident, seconds.
END_S = 2.0
#: Once it has started, low begins at this share of the threshold.
EASE = 0.75
#: At most one update of the peak in this time, seconds, and only when it rose by `RISE`.
UPDATE_S, RISE = 1.0, 0.05
#: Attention over time is told in steps of this, seconds.
ATTENTION_S = 0.5
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


class FightRule:
    """`FightConfig` at work on one camera."""

    def __init__(self, config: FightConfig) -> None:
        self._config = config
        self._cooldown = Cooldown(config.cooldown)
        self._serial = 0
        self._open = False
        self._since_s: float | None = None
        self._high_s = 0.0
        self._peak = self._told = 0.0
        self._told_s = 0.0
        self._last = 0.0
        self._seconds: list[list[float]] = []
        self._who: tuple[tuple[int, ...], Box | None] = ((), None)

    def step(self, view: View) -> list[Signal]:
        probability, now_s = view.scene.get("fight"), view.time_s
        if probability is not None and probability >= self._config.threshold * (EASE if self._open else 1.0):
            return self._high(probability, view)
        quiet_s = now_s - self._high_s
        if not self._open:
            if quiet_s >= DIP_S:
                self._since_s = None
            return []
        if quiet_s < END_S:
            return []
        return [self._end(self._high_s, "calm" if probability is not None else "unknown")]

    def drop(self, time_s: float, reason: str) -> list[Signal]:
        del time_s
        signals = [self._end(self._high_s, reason)] if self._open else []
        self._since_s = None
        return signals

    def _high(self, probability: float, view: View) -> list[Signal]:
        """One more picture that looks like a fight."""
        config, now_s = self._config, view.time_s
        if self._since_s is None:
            self._since_s, self._peak = now_s, 0.0
        self._high_s, self._last = now_s, probability
        self._peak, self._who = max(self._peak, probability), involved(view)
        if self._open:
            if self._peak < self._told + RISE or now_s - self._told_s < UPDATE_S:
                return []
            return [self._tell("update", view)]
        held = now_s - self._since_s >= config.seconds - 1e-6
        if not (held and view.awake and self._cooldown.ready(None, now_s)):
            return []
        self._cooldown.touch(None, now_s)
        self._serial += 1
        self._open = True
        return [self._tell("start", view)]

    def _tell(self, phase: Phase, view: View) -> Signal:
        self._told, self._told_s = self._peak, view.time_s
        self._seconds = attention(view)
        return self._signal(phase, view.time_s)

    def _end(self, time_s: float, reason: str) -> Signal:
        signal = self._signal("end", time_s, reason)
        self._cooldown.touch(None, time_s)
        self._open, self._since_s = False, None
        return signal

    def _signal(self, phase: Phase, time_s: float, reason: str | None = None) -> Signal:
        config, since_s = self._config, self._since_s
        assert since_s is not None
        checks = [
            Check("probability of a fight", self._last, config.threshold),
            Check("for", rounded(time_s - since_s), config.seconds, "s"),
        ]
        trace = explained(f"looks like a fight, {config.threshold:g} or more, for {config.seconds:g} s", checks)
        if phase == "end":
            trace |= {"duration_s": rounded(time_s - since_s), "reason": reason}
        if self._seconds:
            trace["attention_s"] = self._seconds
        tracks, box = self._who
        return Signal(
            phase, self._serial, tracks, "person" if tracks else None, self._peak if phase == "end" else self._last, box,
            since_s, None, trace,
        )  # fmt: skip


def attention(view: View) -> list[list[float]]:
    """Which past half seconds speak for a fight, and how much: [seconds ago, share of the model's logit], oldest first."""
    bins: dict[int, float] = {}
    for ago_s, share in view.why() if view.why is not None else ():
        bins[int(ago_s / ATTENTION_S)] = bins.get(int(ago_s / ATTENTION_S), 0.0) + share
    return [[rounded(k * ATTENTION_S), rounded(bins[k])] for k in sorted(bins, reverse=True)]


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

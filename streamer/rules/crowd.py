"""Too many objects at a place, for too long.

Counts the visitors of a zone (or of the whole picture): confirmed, inside, and seen within the last second,
so that somebody hidden for a moment still counts. It starts with a picture that shows them all, when the count
has not fallen below ``count`` for ``seconds`` (dips shorter than `DIP_S` are forgiven), is updated when the count
reaches a new peak, and ends when the count has been below for `END_S`.
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

#: Somebody unseen for longer than this does not count, seconds.
FRESH_S = 1.0
#: A count that is too low for less than this does not start the clock anew, seconds.
DIP_S = 0.5
#: A count that is too low for this long ends the incident, seconds.
END_S = 2.0
#: At most one update of the peak in this time, seconds.
UPDATE_S = 1.0


class CrowdConfig(RuleConfig):
    """count: how many are too many. seconds: for how long. zone: where; the whole picture when absent."""

    kind: Literal["crowd"] = "crowd"
    count: Annotated[int, Field(ge=1, le=10000)]
    seconds: Annotated[float, Field(ge=0, le=86400)] = 0.0
    zone: str | None = None

    def place(self) -> dict[Literal["zone", "line"], str]:
        return {} if self.zone is None else {"zone": self.zone}

    def rule(self, places: Places) -> CrowdRule:
        return CrowdRule(self, None if self.zone is None else places.zones[self.zone])


class CrowdRule:
    """`CrowdConfig` at work on one camera."""

    def __init__(self, config: CrowdConfig, polygon: Sequence[Point] | None) -> None:
        self._config = config
        self._presence = Presence(polygon)
        self._cooldown = Cooldown(config.cooldown)
        self._serial = 0
        self._open = False
        self._silent = False  # the crowd was reported before a reconnect and has not gone since
        self._since_s: float | None = None
        self._enough_s = 0.0
        self._updated_s = 0.0
        self._told = 0
        self._peak = 0
        self._peak_score = 0.0
        self._last: list[Visit] = []

    def step(self, view: View) -> list[Signal]:
        self._presence.step(view)
        here = [v for v in self._presence.visits if v.inside and view.time_s - v.seen_s <= FRESH_S]
        if len(here) >= self._config.count:
            return self._enough(here, view)
        return self._too_few(view.time_s)

    def drop(self, time_s: float, reason: str) -> list[Signal]:
        self._presence.drop()
        signals = [self._signal("end", time_s, reason)] if self._open else []
        self._silent = self._open or self._silent
        self._open, self._since_s, self._enough_s, self._last = False, None, time_s, []
        return signals

    def _enough(self, here: list[Visit], view: View) -> list[Signal]:
        if self._since_s is None:
            self._since_s, self._peak, self._peak_score = view.time_s, 0, 0.0
        self._enough_s = view.time_s
        self._peak = max(self._peak, len(here))
        self._peak_score = max(self._peak_score, _score(here))
        self._last = here
        if self._open:
            if self._peak > self._told and view.time_s - self._updated_s >= UPDATE_S:
                self._told, self._updated_s = self._peak, view.time_s
                return [self._signal("update", view.time_s)]
            return []
        seen_now = sum(v.seen_s == view.time_s for v in here) >= self._config.count
        long_enough = view.time_s - self._since_s >= self._config.seconds
        due = seen_now and long_enough and view.awake and self._cooldown.ready(None, view.time_s)
        if self._silent or not due:
            return []
        self._serial += 1
        self._open, self._told, self._updated_s = True, self._peak, view.time_s
        self._cooldown.touch(None, view.time_s)
        return [self._signal("start", view.time_s)]

    def _too_few(self, time_s: float) -> list[Signal]:
        below_s = time_s - self._enough_s
        if not self._open and below_s >= DIP_S:
            self._since_s = None
        if below_s < END_S:
            return []
        self._silent = False
        if not self._open:
            return []
        signals = [self._signal("end", time_s, "dispersed")]
        self._open, self._since_s = False, None
        self._cooldown.touch(None, time_s)
        return signals

    def _signal(self, phase: Phase, time_s: float, reason: str | None = None) -> Signal:
        config, here, since_s = self._config, self._last, self._since_s
        assert since_s is not None
        where = f"in zone {config.zone}" if config.zone else "in the picture"
        explain = explained(
            f"at least {config.count} {where} for {config.seconds:g} s",
            [Check("objects", len(here), config.count), Check("for", time_s - since_s, config.seconds, "s")],
            count=len(here),
            threshold=config.count,
            threshold_s=config.seconds,
            peak_count=self._peak,
        )
        if phase == "end":
            explain |= {"duration_s": rounded(self._enough_s - since_s), "reason": reason}
        labels = {v.label for v in here}
        return Signal(
            phase,
            self._serial,
            tuple(sorted(v.tracks[-1] for v in here)),
            labels.pop() if len(labels) == 1 else None,
            self._peak_score if phase == "end" else _score(here),
            (
                min(v.box[0] for v in here),
                min(v.box[1] for v in here),
                max(v.box[2] for v in here),
                max(v.box[3] for v in here),
            ),
            since_s,
            config.zone,
            explain,
        )


def _score(here: list[Visit]) -> float:
    """How sure the count is: the mean score of those who are counted."""
    return sum(v.score for v in here) / len(here)

"""Somebody runs.

Speed is measured in the person's own height a second, so that it means the same near and far: walking is about 0.8, a
jog begins near 1.5, running is 2 and more. It is the way of the box over the last ``seconds``, beginning to end,
so that a trembling box has no speed; boxes cut off by the picture's border have no height and are not measured. Where
the temporal engine knows how to tell running (evidence ``run``), its probability decides instead of the speed.
``explain.path`` is the way that was measured: [seconds ago, x, y] of the middle of the box, oldest first.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from vedette.streamer.geometry import Point, points_in_polygon
from vedette.streamer.rules.base import Check, ClassName, RuleConfig, explained
from vedette.streamer.rules.casebook import Case, Casebook
from vedette.streamer.rules.view import Places, Signal, View, box_of, rounded

#: A runner who has been slow, or unseen, for this long runs no more, seconds.
END_S = 1.5
#: Slow begins at this share of the speed that is fast.
EASE = 0.75
#: Probability at or above which learned evidence says that somebody runs.
EVIDENCE = 0.7
#: Positions within the time that is looked at, at least.
LEAST_POSITIONS = 4
#: A height that differs from the usual one of the person by this factor belongs to a box that is cut off or joined.
HEIGHT_FACTOR = 1.35
#: A box nearer than this to the picture's border is cut off by it, picture sizes.
BORDER = 0.01
#: Points of the path that an alert tells, about.
WAY = 10
#: A change of place between two pictures faster than this is a wrong box, heights a second.
FASTEST = 8.0


class RunConfig(RuleConfig):
    """speed: heights a second. seconds: for how long; raise: short sprints and wrong boxes are not told, later alerts.
    zone: where; the whole picture when absent."""

    not_for: ClassVar[str] = (
        "judging people: it sees speed, not intent; running towards or away from the camera looks slow, and a cyclist "
        "whom the detector calls a person looks fast"
    )

    kind: Literal["run"] = "run"
    classes: Annotated[list[ClassName], Field(min_length=1)] | None = ["person"]  # noqa: RUF012
    speed: Annotated[float, Field(gt=0, le=20)] = 1.6
    seconds: Annotated[float, Field(ge=0.3, le=60)] = 1.0
    zone: str | None = None

    def place(self) -> dict[Literal["zone", "line"], str]:
        return {} if self.zone is None else {"zone": self.zone}

    def rule(self, places: Places) -> RunRule:
        return RunRule(self, None if self.zone is None else tuple(places.zones[self.zone]))


@dataclass(slots=True)
class _Person(Case):
    """path: (time, x in picture heights, y, height) of the last seconds. height: usual. told: speed and probability when last fast.
    aspect: width / height of the picture."""

    path: deque[tuple[float, float, float, float]] = field(default_factory=deque)
    height: float = 0.0
    told: tuple[float, float | None] = (0.0, None)
    aspect: float = 1.0

    def way(self, time_s: float) -> list[list[float]]:
        """The path as [seconds ago, x, y], normalised, some `WAY` points of it."""
        points = list(self.path)[:: max(1, len(self.path) // WAY)]
        return [[rounded(time_s - t), rounded(x / self.aspect), rounded(y)] for t, x, y, _ in points]


class RunRule:
    """`RunConfig` at work on one camera."""

    def __init__(self, config: RunConfig, polygon: tuple[Point, ...] | None) -> None:
        self._config, self._polygon = config, polygon
        self._book = Casebook(_Person, self._trace, config.cooldown, config.zone)

    def step(self, view: View) -> list[Signal]:
        signals: list[Signal] = []
        inside = np.ones(len(view.tracks), np.bool_)
        if self._polygon is not None:
            inside = points_in_polygon(view.anchor, self._polygon)
        learned = view.evidence("run")
        for i in np.flatnonzero(view.seen & inside).tolist():
            number = int(view.tracks.id[i])
            speed = self._speed(self._book.case(number), view, i)
            probability = None if np.isnan(learned[i]) else float(learned[i])
            signals += self._judge(number, view, i, speed, probability)
        for key, person in self._book.items():
            if view.time_s - person.last_s >= END_S:
                signals += self._book.end(key, "slow or gone")
            if not person.serial and (not person.path or view.time_s - person.path[-1][0] > END_S):
                self._book.forget(key)
        return signals

    def drop(self, time_s: float, reason: str) -> list[Signal]:
        del time_s
        return self._book.drop(reason)

    def _speed(self, person: _Person, view: View, i: int) -> float | None:
        """Heights a second over the last ``seconds``; None while that is not known."""
        x1, y1, x2, y2 = (float(v) for v in view.tracks.xyxy[i])
        height = y2 - y1
        cut = x1 <= BORDER or y1 <= BORDER or x2 >= 1 - BORDER or y2 >= 1 - BORDER or height <= 0
        person.height = person.height or height
        odd = max(height, person.height) > HEIGHT_FACTOR * max(1e-6, min(height, person.height))
        person.height += 0.1 * (height - person.height)
        place = ((x1 + x2) / 2 * view.aspect, (y1 + y2) / 2)
        if person.path:
            time_s, x, y, _ = person.path[-1]
            step = float(np.hypot(place[0] - x, place[1] - y)) / max(height, 1e-6)
            odd = odd or step > FASTEST * max(view.time_s - time_s, 0.02)
        if cut or odd:
            person.path.clear()
            return None
        person.path.append((view.time_s, *place, height))
        person.aspect = view.aspect
        while len(person.path) > 2 and view.time_s - person.path[1][0] >= self._config.seconds - 1e-6:
            person.path.popleft()
        took_s = view.time_s - person.path[0][0]
        if took_s < self._config.seconds - 1e-6 or len(person.path) < LEAST_POSITIONS:
            return None
        path = np.array(person.path)
        # the slower half decides: one jump of a box is no sprint
        middle = int(np.argmin(np.abs(path[:, 0] - (path[0, 0] + path[-1, 0]) / 2)))
        tall = float(np.median(path[:, 3]))
        halves = [_pace(path[: middle + 1]), _pace(path[middle:])]
        return min([_pace(path), *(half / 0.8 for half in halves)]) / tall

    def _judge(
        self, number: int, view: View, i: int, speed: float | None, probability: float | None
    ) -> list[Signal]:  # fmt: skip
        """Take one sight of a person in; ``start`` when it completes a run."""
        person, limit, now_s = self._book.case(number), self._config.speed, view.time_s
        ease = EASE if person.serial else 1.0
        if probability is not None:
            fast, score = probability >= EVIDENCE * ease, probability
        elif speed is not None:
            fast, score = speed >= limit * ease, min(1.0, 0.5 * speed / limit)
        else:
            return []
        if not fast:
            return []
        person.hold(now_s, score, since_s=now_s if speed is None else person.path[0][0])
        person.tracks, person.box = (number,), box_of(view.tracks, i)
        person.label, person.told = view.labels[int(view.tracks.label[i])], (speed or 0.0, probability)
        assert person.since_s is not None
        held = probability is None or now_s - person.since_s >= self._config.seconds
        return self._book.start(number, view) if held else []

    def _trace(self, person: _Person, time_s: float) -> dict[str, Any]:
        config, (speed, probability) = self._config, person.told
        assert person.since_s is not None
        checks = [
            Check("speed", speed, config.speed, "heights/s"),
            Check("for", time_s - person.since_s, config.seconds, "s"),
        ]
        if probability is not None:
            checks[0] = Check("probability of running", probability, EVIDENCE)
        condition = f"faster than {config.speed:g} of the own height a second for {config.seconds:g} s"
        return explained(condition, checks, path=person.way(time_s))


def _pace(path: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """From the first to the last position, picture heights a second."""
    took_s = path[-1, 0] - path[0, 0]
    return float(np.hypot(*(path[-1, 1:3] - path[0, 1:3])) / took_s) if took_s > 0 else 0.0

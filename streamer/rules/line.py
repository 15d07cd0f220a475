"""Somebody crosses a line.

Stand on the line's first point and look at its second: ``in`` is from your left hand to your right hand,
``out`` from right to left. On the screen: a line drawn from left to right is crossed ``in`` by walking
down the picture (towards the camera), a line drawn from top to bottom by walking from the picture's
right half into its left half. Exchange the two points to exchange the directions.

An object is on a side once two pictures running show its foot point clear of the line by `CLEAR_HEIGHTS`
of its own height; it has crossed when it is clear on the other side in the same way and its path met the
line between the two end points. A box that trembles on the line, or jumps over it for one picture, never
counts, in either direction; neither does an unconfirmed track, nor a position that was only predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np

from vedette.streamer.geometry import Point
from vedette.streamer.rules.base import Check, RuleConfig, explained
from vedette.streamer.rules.cooldown import Cooldown
from vedette.streamer.rules.view import Places, Signal, View, box_of, rounded

#: Clear of the line means this far away, in heights of the box. Raise: steadier, later to count.
CLEAR_HEIGHTS = 0.08
#: The same for tiny boxes, in picture heights.
CLEAR_LEAST = 0.005
#: Pictures running that must show an object clear on a side.
SETTLE_PICTURES = 2
#: A path is remembered for this many pictures at most; somebody who stands on the line needs no more.
PATH_MOST = 512
#: A track unseen for this long is forgotten, seconds.
FORGET_S = 60.0


class LineConfig(RuleConfig):
    """line: which line of the camera. direction: which crossings count."""

    kind: Literal["line"] = "line"
    line: str
    direction: Literal["in", "out", "both"] = "both"

    def place(self) -> dict[Literal["zone", "line"], str]:
        return {"line": self.line}

    def rule(self, places: Places) -> LineRule:
        return LineRule(self, places.lines[self.line])


@dataclass(slots=True)
class _Walker:
    """What is remembered of a track. side: -1 left, 1 right, 0 not settled yet. path: foot points (x scaled by
    the aspect) since it was last clear on its side."""

    side: int = 0
    toward: int = 0
    pictures: int = 0
    last_s: float = 0.0
    clear_s: float = 0.0
    peak: float = 0.0
    path: list[tuple[float, float]] = field(default_factory=list)


class LineRule:
    """`LineConfig` at work on one camera."""

    def __init__(self, config: LineConfig, points: Sequence[Point]) -> None:
        self._config = config
        self._a, self._b = points
        self._cooldown = Cooldown(config.cooldown)
        self._walkers: dict[int, _Walker] = {}
        self._serial = 0

    def step(self, view: View) -> list[Signal]:
        signals: list[Signal] = []
        away = self._clearance(view)
        for i in np.flatnonzero(view.seen & view.tracks.confirmed).tolist():
            number = int(view.tracks.id[i])
            walker = self._walkers.setdefault(number, _Walker())
            foot = (float(view.anchor[i, 0]) * view.aspect, float(view.anchor[i, 1]))
            crossed = self._walk(walker, foot, float(away[i]), view.time_s)
            walker.peak = max(walker.peak, float(view.tracks.score[i]))
            if crossed is not None:
                signals += self._crossing(view, i, number, crossed, walker, abs(float(away[i])) * CLEAR_HEIGHTS)
        if len(self._walkers) > 64:
            self._walkers = {n: w for n, w in self._walkers.items() if view.time_s - w.last_s <= FORGET_S}
        return signals

    def drop(self, time_s: float, reason: str) -> list[Signal]:
        """Nothing of a line is ever left open: crossings start and end in one picture."""
        del time_s, reason
        self._walkers.clear()
        return []

    def _clearance(self, view: View) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """[N] signed distance from the line in units of what is clear of it: right of it positive."""
        (ax, ay), (bx, by) = self._a, self._b
        dx, dy = (bx - ax) * view.aspect, by - ay
        x, y = view.anchor[:, 0].astype(np.float64), view.anchor[:, 1].astype(np.float64)
        away = (dx * (y - ay) - dy * (x - ax) * view.aspect) / np.hypot(dx, dy)
        height = (view.tracks.xyxy[:, 3] - view.tracks.xyxy[:, 1]).astype(np.float64)
        clearance: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = away / np.maximum(
            height * CLEAR_HEIGHTS, CLEAR_LEAST
        )
        return clearance

    def _walk(self, walker: _Walker, foot: tuple[float, float], away: float, time_s: float) -> int | None:
        """Take one picture in; the side just reached (-1, 1) when this picture completes a change of sides."""
        clear = 0 if abs(away) < 1.0 else (1 if away > 0 else -1)
        walker.last_s = time_s
        walker.pictures = walker.pictures + 1 if clear and clear == walker.toward else int(clear != 0)
        walker.toward = clear
        if clear and clear == walker.side:
            walker.path, walker.clear_s = [foot], time_s
            return None
        if len(walker.path) < PATH_MOST:
            walker.path.append(foot)
        else:
            walker.path[-1] = foot
        if walker.pictures < SETTLE_PICTURES:
            return None
        crossed = clear if walker.side else None
        walker.side = clear
        return crossed

    def _crossing(
        self, view: View, i: int, number: int, side: int, walker: _Walker, clear_heights: float
    ) -> list[Signal]:
        """Start and end of the crossing to ``side``, or nothing when it does not count."""
        path, since_s = walker.path, walker.clear_s
        walker.path, walker.clear_s = [path[-1]], view.time_s
        at = self._met(path, view.aspect)
        direction = "in" if side > 0 else "out"
        key = (number, direction)
        if at is None or self._config.direction not in (direction, "both"):
            return []
        if not (view.awake and self._cooldown.ready(key, view.time_s)):
            return []
        self._cooldown.touch(key, view.time_s)
        self._serial += 1
        checks = [
            Check("distance from the line", clear_heights, CLEAR_HEIGHTS, "heights"),
            Check("pictures on this side", walker.pictures, SETTLE_PICTURES),
        ]
        explain = explained(
            f"crossed line {self._config.line} {direction}",
            checks,
            direction=direction,
            crossed_at=at,
            **{"from": "left" if side > 0 else "right", "to": "right" if side > 0 else "left"},
        )
        label = view.labels[int(view.tracks.label[i])]
        box, score = box_of(view.tracks, i), float(view.tracks.score[i])
        start = Signal("start", self._serial, (number,), label, score, box, since_s, None, explain)
        explain = {**explain, "duration_s": 0.0, "reason": "momentary"}
        return [start, Signal("end", self._serial, (number,), label, walker.peak, box, since_s, None, explain)]

    def _met(self, path: list[tuple[float, float]], aspect: float) -> list[float] | None:
        """Where the path last went through the line between its end points (normalised), or None."""
        a = (self._a[0] * aspect, self._a[1])
        b = (self._b[0] * aspect, self._b[1])
        dx, dy = b[0] - a[0], b[1] - a[1]

        def across(p: tuple[float, float]) -> float:
            return dx * (p[1] - a[1]) - dy * (p[0] - a[0])

        changes = [(p, q) for p, q in pairwise(path) if (across(p) > 0) != (across(q) > 0)]
        if not changes:
            return None
        p, q = changes[-1]
        part = across(p) / (across(p) - across(q))
        x, y = p[0] + part * (q[0] - p[0]), p[1] + part * (q[1] - p[1])
        along = ((x - a[0]) * dx + (y - a[1]) * dy) / (dx * dx + dy * dy)
        return [rounded(x / aspect), rounded(y)] if 0.0 <= along <= 1.0 else None

"""A stage for rule tests: people are put at foot points, picture after picture, and the rule's signals come back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from vedette.streamer.config.choices import one_of
from vedette.streamer.rules import KINDS
from vedette.streamer.rules.view import Places, Signal, View
from vedette.streamer.types import Tracks

LABELS = ("person", "bicycle", "car")
HEIGHT = 0.2
GATE = [(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8)]
#: from left to right across the middle: ``in`` is down the picture
DOOR = [(0.2, 0.5), (0.8, 0.5)]
INSIDE, OUTSIDE = (0.5, 0.5), (0.5, 0.95)


def tracks_at(
    people: Mapping[int, tuple[float, float]],
    *,
    age_s: float = 100.0,
    unseen: frozenset[int] = frozenset(),
    unconfirmed: frozenset[int] = frozenset(),
    score: float = 0.8,
    label: int = 0,
) -> Tracks:
    """People of HEIGHT with their feet at the given points."""
    n = len(people)
    feet = np.array(list(people.values()), np.float32).reshape(n, 2)
    half = np.float32(HEIGHT / 8)
    xyxy = np.stack([feet[:, 0] - half, feet[:, 1] - HEIGHT, feet[:, 0] + half, feet[:, 1]], axis=1)
    ids = np.array(list(people), np.int64)
    seen = np.array([i not in unseen for i in people], bool)
    return Tracks(
        id=ids,
        xyxy=xyxy.astype(np.float32),
        velocity_per_s=np.zeros((n, 2), np.float32),
        score=np.full(n, score, np.float32),
        label=np.full(n, label, np.int32),
        age_s=np.full(n, age_s, np.float32),
        since_seen_s=np.where(seen, 0, 0.1).astype(np.float32),
        confirmed=np.array([i not in unconfirmed for i in people], bool),
        detection=np.where(seen, np.arange(n), -1).astype(np.int32),
    )


class Stage:
    """One rule on one camera at ``fps`` pictures a second; ``now`` is the time of the last picture."""

    def __init__(self, rule: dict[str, Any], *, fps: float = 10, rearm: bool = False, start_s: float = 0.0) -> None:
        self.config = TypeAdapter(one_of(KINDS)).validate_python(rule)
        self.rule = self.config.rule(Places({"gate": GATE}, {"door": DOOR}))
        self.step_s, self.rearm, self.start_s = 1 / fps, rearm, start_s
        self.now = start_s - self.step_s

    def show(
        self, people: Mapping[int, tuple[float, float]], pictures: int = 1, *, awake: bool = True, **how: Any
    ) -> list[Signal]:
        """The signals of ``pictures`` equal pictures."""
        signals = []
        for _ in range(pictures):
            self.now += self.step_s
            tracks = tracks_at(people, **how)
            view = View(tracks, LABELS, self.now, self.start_s, self.rearm, awake, aspect=16 / 9)
            signals += self.rule.step(view)
        return signals

    def skip(self, seconds: float) -> None:
        """No picture for that long."""
        self.now += seconds


class SaidReasons:
    """Reasons of which a test knows what they say, and whether anybody asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def past(self) -> list[tuple[float, float]]:
        self.asked.append("past")
        return [(0.9, 0.5), (0.6, 0.25), (0.1, 1.0), (0.0, 1.0)]

    def past_of(self, number: int) -> list[tuple[float, float]]:
        self.asked.append(f"past of {number}")
        return [(1.8, 2.0), (1.7, 1.0), (0.1, -0.5), (0.0, 0.0)]

    def places(self) -> np.ndarray:
        self.asked.append("places")
        return np.array([[0.0, 0.5], [-0.25, 0.0]], np.float32)


def phases(signals: list[Signal]) -> list[str]:
    """Just what happened."""
    return [signal.phase for signal in signals]

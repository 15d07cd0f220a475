"""From tracks to evidence: which track sits in which slot, what its token says, and how surprising the scene is.

The daemon hands over what the tracker and the detector say of a frame and gets, per track, the probability of each evidence
class, and per camera a novelty score. A model that was not trained answers nothing: NaN evidence, no novelty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import F32, LABELS
from vedette.engines.temporal import TemporalAnswer, TemporalEngine, TemporalFrame
from vedette.engines.temporal_spec import EMBEDDING_DIM, TOKEN_DIM

Array = NDArray[Any]

#: Seconds of a camera's life before its novelty means anything.
NOVELTY_WARM_UP_S = 30.0


@dataclass(frozen=True, slots=True)
class TrackFrame:
    """One camera's frame. slot: the camera's place in the engine; reset: a new epoch; time_s: its own clock.

    id i64 [N], xyxy f32 [N,4] normalised, velocity_per_s f32 [N,2], score f32 [N], age_s f32 [N], label i32 [N].
    seen bool [N]: matched to a detection in this frame (a coasting track writes nothing). embedding f32 [N,64] of
    the matched detection, any value where not seen. scene f32 [S,D] or None.
    """

    slot: int
    time_s: float
    id: NDArray[np.int64]
    xyxy: F32
    velocity_per_s: F32
    score: F32
    age_s: F32
    label: NDArray[np.int32]
    seen: NDArray[np.bool_]
    embedding: F32
    scene: F32 | None = None
    reset: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """evidence f32 [N,A], NaN where the engine does not know; novelty in standard deviations above the camera's usual, or None."""

    evidence: F32
    novelty: float | None
    refused: tuple[str, ...] = ()


def track_tokens(frame: TrackFrame) -> F32:
    """[N,TOKEN_DIM]: appearance, box (cx, cy, w, h), velocity, score, ln(1 + age), label one-hot."""
    x1, y1, x2, y2 = frame.xyxy.T
    box = np.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), 1)
    kind = np.eye(len(LABELS), dtype=np.float32)[frame.label]
    columns = (frame.embedding, box, frame.velocity_per_s, frame.score[:, None], np.log1p(frame.age_s)[:, None], kind)
    tokens = np.concatenate(columns, 1).astype(np.float32)
    if tokens.shape[1] != TOKEN_DIM:
        raise ValueError(f"TrackFrame.embedding: needs [N,{EMBEDDING_DIM}], got {list(frame.embedding.shape)}")
    return tokens


class TrackSlots:
    """Which of one camera's slots a track id holds. A track keeps its slot for life; the oldest tracks are served first."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._held: dict[int, int] = {}

    def assign(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Slot of each id, -1 when all are taken, and which slots [slots] have a new holder. Ids that are gone free theirs."""
        present = set(ids.tolist())
        self._held = {i: s for i, s in self._held.items() if i in present}
        free = sorted(set(range(self._slots)) - set(self._held.values()), reverse=True)
        born = np.zeros(self._slots, np.bool_)
        for i in ids.tolist():
            if i not in self._held and free:
                self._held[i] = free.pop()
                born[self._held[i]] = True
        return np.array([self._held.get(i, -1) for i in ids.tolist()], np.intp), born


class Novelty:
    """How far the scene is from what the engine expected, against this camera's usual; mean and spread fade with ``half_life_s``.

    Raising ``half_life_s`` makes a slow change (dusk) novel for longer.
    """

    def __init__(self, half_life_s: float = 600.0) -> None:
        self._half_life_s = half_life_s
        self._expected: F32 | None = None
        self._mean = self._square = self._weight = 0.0
        self._first_s = self._last_s = float("nan")

    def update(self, time_s: float, scene: F32 | None, forecast: F32 | None) -> float | None:
        """Standard deviations above the usual, or None in the first 30 s; ``forecast`` is kept for the next frame."""
        score = None
        if scene is not None and self._expected is not None:
            error = float(np.square(scene.mean(0) - self._expected).mean())
            score = self._score(time_s, error)
        if forecast is not None:
            self._expected = forecast
        return score

    def _score(self, time_s: float, error: float) -> float | None:
        if not self._weight:
            self._first_s = time_s
        fade = 2.0 ** (-(time_s - self._last_s) / self._half_life_s) if self._weight else 0.0
        spread = max(self._square - self._mean**2, 1e-12) ** 0.5
        known = self._weight > 0 and time_s - self._first_s >= NOVELTY_WARM_UP_S
        score = (error - self._mean) / spread if known else None
        self._weight = self._weight * fade + 1.0
        share = 1.0 / self._weight
        self._mean += share * (error - self._mean)
        self._square += share * (error * error - self._square)
        self._last_s = time_s
        return score


class TrackEvidence:
    """A `TemporalEngine` in the words of the tracker. ``untrained`` lets a random model speak, for tests and benchmarks."""

    def __init__(self, engine: TemporalEngine, *, untrained: bool = False) -> None:
        self.engine, self.names = engine, engine.config.evidence
        self._speaks = engine.spec.trained or untrained
        self._slots: dict[int, TrackSlots] = {}
        self._novelty: dict[int, Novelty] = {}

    def step(self, frames: Sequence[TrackFrame]) -> list[Judgement]:
        """One judgement a frame, in order."""
        prepared = [self._prepare(frame) for frame in frames]
        answers = self.engine.step([temporal for temporal, _ in prepared])
        return [
            self._judge(frame, where, answer)
            for frame, (_, where), answer in zip(frames, prepared, answers, strict=True)
        ]

    def _prepare(self, frame: TrackFrame) -> tuple[TemporalFrame, NDArray[np.intp]]:
        config = self.engine.config
        if frame.reset or frame.slot not in self._slots:
            self._slots[frame.slot], self._novelty[frame.slot] = TrackSlots(config.tracks), Novelty()
        where, born = self._slots[frame.slot].assign(frame.id)
        tokens, present = np.zeros((config.tracks, TOKEN_DIM), np.float32), np.zeros(config.tracks, np.bool_)
        placed = where >= 0
        tokens[where[placed]] = track_tokens(frame)[placed]
        present[where[placed]] = frame.seen[placed]
        context, valid = self._context(frame.scene)
        temporal = TemporalFrame(
            frame.slot,
            frame.time_s,
            tokens,
            present,
            born=born,
            context=context,
            context_valid=valid,
            reset=frame.reset,
        )
        return temporal, where

    def _context(self, scene: F32 | None) -> tuple[F32 | None, NDArray[np.bool_] | None]:
        """Scene tokens first; places beyond them (audio) are there but silent."""
        config = self.engine.config
        if scene is None or not config.context:
            return None, None
        if scene.shape[0] > config.context or scene.shape[1] != config.context_dim:
            raise ValueError(
                f"TrackFrame.scene: needs at most {config.context} tokens of {config.context_dim}, got {list(scene.shape)}; "
                "export the temporal engine for this detector"
            )
        context = np.zeros((config.context, config.context_dim), np.float32)
        context[: len(scene)] = scene
        return context, np.arange(config.context) < len(scene)

    def _judge(self, frame: TrackFrame, where: NDArray[np.intp], answer: TemporalAnswer) -> Judgement:
        evidence = np.full((len(frame.id), len(self.names)), np.nan, np.float32)
        novelty = None
        if self._speaks and not answer.skipped:
            if answer.evidence is not None:
                known = (where >= 0) & frame.seen
                evidence[known] = answer.evidence[where[known]]
            novelty = self._novelty[frame.slot].update(frame.time_s, frame.scene, answer.forecast)
        return Judgement(evidence, novelty, answer.refused)

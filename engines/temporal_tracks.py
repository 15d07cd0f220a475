"""From tracks to evidence: which track sits in which slot, what its token says, and how surprising the scene is.

The daemon hands over what the tracker and the detector say of a frame and gets, per track and per camera, the probability of
each evidence class, and per camera a novelty score. A model that was not trained answers nothing: NaN, no novelty.

**The contract of trained heads** (who trains them needs nothing else):

* *Input*, one step a picture and camera: `TrackFrame`. Latents read the picture's scene tokens, f32 [49,128] of the shipped
  detector (``Perception.scene``: 7 x 7 cells, row by row) as context; tracks are `track_tokens`, f32 [N,80]: the detection's
  appearance (64), cx cy w h, velocity, score, ln(1 + age), label one-hot. Only confirmed tracks enter, the oldest 16 of a
  camera; a coasting track is not written. Time is the camera's own clock in seconds. Offline the same is a
  ``models.rift.Clip`` [C,t,...]; train on it with ``RIFT.forward`` and the law makes the daemon answer the same.
* *Output*: ``RiftConfig.evidence`` names the columns a track has (``fall``, ``run``), ``RiftConfig.scene_evidence`` those of
  a camera (``fight``). The heads are linear and give logits; a calibration a + b * logit is folded into the head's weight and
  bias before export. A probability with less than `HISTORY_S` seconds of history is NaN, which is "unknown".
* *Files*: ``engines/weights/vedette-events.onnx`` + ``.json`` (sidecar) + ``.npz`` (parameters, for ``engine verify``), written
  by ``temporal_weights.export_file(out, weights_npz, config, "kvu", "int8" | "fp32")``, which marks them trained, and
  ``vedette-events.md``, the model card. ``temporal_load`` finds them by the name ``vedette-events``.
* *A rule* says which names it reads by ``RuleConfig.learned()`` and reads them from ``View.evidence(name)`` (f32 [N], NaN unknown)
  and ``View.scene.get(name)`` (None unknown; ``novelty`` is there too).
* *Another model* (a GRU, a regression) is anything with `Evidence`'s three members; ``temporal_load`` picks it by the sidecar's
  ``schema``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import F32, LABELS
from vedette.engines.temporal import TemporalAnswer, TemporalEngine, TemporalFrame
from vedette.engines.temporal_spec import EMBEDDING_DIM, TOKEN_DIM

Array = NDArray[Any]

#: Seconds that a track, or a camera's scene, must have been watched before its evidence means anything.
HISTORY_S = 0.5
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
    """evidence f32 [N,A] and scene f32 [B], NaN where the engine does not know; novelty in standard deviations above the
    camera's usual, or None. refused: a sentence a fault of the input."""

    evidence: F32
    scene: F32
    novelty: float | None
    refused: tuple[str, ...] = ()


class Evidence(Protocol):
    """Anything that judges frames. names, scene_names: the columns of ``Judgement.evidence`` and ``Judgement.scene``."""

    names: tuple[str, ...]
    scene_names: tuple[str, ...]

    def step(self, frames: Sequence[TrackFrame]) -> list[Judgement]:
        """One judgement a frame, in order."""
        ...


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
        self._since_s: dict[int, float] = {}

    def known_s(self, ids: NDArray[np.int64], time_s: float) -> NDArray[np.float64]:
        """Seconds since each id was first written, 0 for one that never was; call ``write`` with who is."""
        return np.array([time_s - self._since_s.get(i, time_s) for i in ids.tolist()], np.float64)

    def write(self, ids: NDArray[np.int64], time_s: float) -> None:
        """These ids have a token in the frame at ``time_s``."""
        for i in ids.tolist():
            if i in self._held:
                self._since_s.setdefault(i, time_s)

    def assign(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Slot of each id, -1 when all are taken, and which slots [slots] have a new holder. Ids that are gone free theirs."""
        present = set(ids.tolist())
        self._held = {i: s for i, s in self._held.items() if i in present}
        self._since_s = {i: s for i, s in self._since_s.items() if i in present}
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
        self.engine, self.names, self.scene_names = engine, engine.config.evidence, engine.config.scene_evidence
        self._speaks = engine.spec.trained or untrained
        self._scene_since_s: dict[int, float] = {}
        self._slots: dict[int, TrackSlots] = {}
        self._novelty: dict[int, Novelty] = {}

    def step(self, frames: Sequence[TrackFrame]) -> list[Judgement]:
        """One judgement a frame, in order."""
        if self.engine.settle():
            self._slots.clear()
            self._novelty.clear()
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
            self._scene_since_s.pop(frame.slot, None)
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
        """Scene tokens first; places beyond them (audio) are there but silent; tokens beyond the model's places are not read."""
        config = self.engine.config
        if scene is None or not config.context:
            return None, None
        scene = scene[: config.context]
        if scene.shape[1] != config.context_dim:
            raise ValueError(
                f"TrackFrame.scene: needs tokens of {config.context_dim}, got {list(scene.shape)}; "
                "export the temporal engine for this detector"
            )
        context = np.zeros((config.context, config.context_dim), np.float32)
        context[: len(scene)] = scene
        return context, np.arange(config.context) < len(scene)

    def _judge(self, frame: TrackFrame, where: NDArray[np.intp], answer: TemporalAnswer) -> Judgement:
        evidence = np.full((len(frame.id), len(self.names)), np.nan, np.float32)
        scene = np.full(len(self.scene_names), np.nan, np.float32)
        novelty = None
        if self._speaks and not answer.skipped:
            slots, enough_s = self._slots[frame.slot], HISTORY_S - 1e-6
            slots.write(frame.id[frame.seen], frame.time_s)
            if answer.evidence is not None:
                known = (where >= 0) & frame.seen & (slots.known_s(frame.id, frame.time_s) >= enough_s)
                evidence[known] = answer.evidence[where[known]]
            if answer.scene is not None and frame.scene is not None:
                since_s = self._scene_since_s.setdefault(frame.slot, frame.time_s)
                scene[:] = answer.scene if frame.time_s - since_s >= enough_s else np.nan
            novelty = self._novelty[frame.slot].update(frame.time_s, frame.scene, answer.forecast)
        return Judgement(evidence, scene, novelty, answer.refused)

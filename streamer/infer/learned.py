"""Learned evidence beside the rules: slots of the temporal engine follow cameras, epochs and tracks.

Pure as the pipeline is: no clock, no I/O. The engine has a slot a camera; a new epoch or a newcomer clears it, and a camera that
is forgotten frees it. Only confirmed tracks enter, the oldest first. What is not known is NaN or absent, never 0.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vedette.engines.api import Detections
from vedette.engines.temporal_tracks import Evidence, Judgement, TrackFrame
from vedette.streamer.infer.motion import MotionField
from vedette.streamer.rules.attention import PARTS
from vedette.streamer.types import F32, Tracks

log = logging.getLogger("vedette.learned")

#: The name under which scene novelty stands among a scene's evidence.
NOVELTY = "novelty"
#: Sentences about refused input that are logged, a camera and epoch.
TOLD_AN_EPOCH = 3


@dataclass(frozen=True, slots=True)
class Sight:
    """One picture for the engine. time_s: the camera's clock; fresh: nothing before it counts. detections: what
    ``tracks.detection`` numbers. scene: f32 [S,D] tokens of the picture, None where the detector gives none. field: what
    its motion token was made of."""

    camera: str
    time_s: float
    fresh: bool
    tracks: Tracks
    detections: Detections
    scene: F32 | None
    field: MotionField | None = None


@dataclass(frozen=True, slots=True)
class Reasons:
    """Implements `vedette.streamer.rules.view.Reasons` for one picture: what the engine can say about its answer, worked out
    only when it is asked. engine: one with `explain`, `explain_track` and `weigh` (`vedette.engines.events`)."""

    engine: Any
    slot: int
    field: MotionField | None

    def past(self) -> Sequence[tuple[float, float]]:
        found: Sequence[tuple[float, float]] = self.engine.explain(self.slot)
        return found

    def past_of(self, number: int) -> Sequence[tuple[float, float]]:
        found: Sequence[tuple[float, float]] = self.engine.explain_track(self.slot, number)
        return found

    def places(self) -> F32 | None:
        if self.field is None:
            return None
        parts = list(self.field.numbers_without())
        added = self.engine.weigh(self.slot, np.stack([self.field.numbers(), *(numbers for *_, numbers in parts)]))
        if added is None:
            return None
        loss = np.zeros(PARTS, np.float32)
        for (row, column, _), left in zip(parts, added[1:].tolist(), strict=True):
            loss[row, column] = added[0] - left
        return loss


@dataclass(frozen=True, slots=True)
class Learned:
    """tracks: the same with ``evidence``. scene: probability by name, and ``novelty``; what is unknown is absent. why: see `View`."""

    tracks: Tracks
    scene: Mapping[str, float]
    why: Reasons | None = None


class EvidenceStage:
    """The temporal engine of all cameras. ``open_for(n)`` opens it with n slots; when cameras outgrow it, it is opened anew with
    twice as many and every camera starts from an empty memory. everywhere: step also cameras none of whose rules ask.
    """

    def __init__(self, open_for: Callable[[int], Evidence], cameras: int, *, everywhere: bool = False) -> None:
        self._open_for, self._capacity, self.everywhere = open_for, max(1, cameras), everywhere
        self._engine = open_for(self._capacity)
        self.names, self.scene_names = self._engine.names, self._engine.scene_names
        self._slots: dict[str, int] = {}
        self._empty: set[str] = set()
        self._told: dict[str, int] = {}
        self.refused = 0

    def forget(self, camera: str) -> None:
        """The camera is gone; its slot is free."""
        self._slots.pop(camera, None)
        self._told.pop(camera, None)

    def step(self, sights: Sequence[Sight]) -> list[Learned]:
        """One answer a picture, in order; at most one picture a camera."""
        for sight in sights:
            self._place(sight.camera)
        judgements = self._engine.step([self._frame(sight) for sight in sights])
        return [self._learned(sight, found) for sight, found in zip(sights, judgements, strict=True)]

    def _place(self, camera: str) -> None:
        """A slot for the camera."""
        if camera in self._slots:
            return
        if len(self._slots) == self._capacity:
            self._capacity *= 2
            log.info("temporal engine: opened anew for %d cameras; learned evidence starts over", self._capacity)
            self._engine = self._open_for(self._capacity)
            self._empty |= set(self._slots)
        self._slots[camera] = min(set(range(self._capacity)) - set(self._slots.values()))
        self._empty.add(camera)

    def _frame(self, sight: Sight) -> TrackFrame:
        tracks = _oldest_first(sight.tracks)
        seen = tracks.detection >= 0
        found = sight.detections.embedding
        width = 0 if found is None else found.shape[1]
        embedding = np.zeros((len(tracks), width), np.float32)
        if found is not None:
            embedding[seen] = found[tracks.detection[seen]]
        fresh = sight.fresh or sight.camera in self._empty
        self._empty.discard(sight.camera)
        if fresh:
            self._told.pop(sight.camera, None)
        return TrackFrame(
            slot=self._slots[sight.camera], time_s=sight.time_s, id=tracks.id, xyxy=tracks.xyxy,
            velocity_per_s=tracks.velocity_per_s, score=tracks.score, age_s=tracks.age_s, label=tracks.label,
            seen=seen, embedding=embedding, scene=sight.scene, reset=fresh,
        )  # fmt: skip

    def _learned(self, sight: Sight, found: Judgement) -> Learned:
        self._tell(sight.camera, found.refused)
        evidence = np.full((len(sight.tracks), len(self.names)), np.nan, np.float32)
        row = {int(number): i for i, number in enumerate(sight.tracks.id)}
        for number, values in zip(_oldest_first(sight.tracks).id.tolist(), found.evidence, strict=True):
            evidence[row[number]] = values
        scene = {
            name: float(p) for name, p in zip(self.scene_names, found.scene, strict=True) if not np.isnan(p)
        }  # fmt: skip
        if found.novelty is not None:
            scene[NOVELTY] = found.novelty
        able = hasattr(self._engine, "weigh")  # not every model can say why
        why = Reasons(self._engine, self._slots[sight.camera], sight.field) if able else None
        return Learned(replace(sight.tracks, evidence=evidence), scene, why)

    def _tell(self, camera: str, refused: Sequence[str]) -> None:
        """Log the first few faults of an epoch; count all."""
        self.refused += len(refused)
        for sentence in refused:
            told = self._told.get(camera, 0)
            self._told[camera] = told + 1
            if told < TOLD_AN_EPOCH:
                log.warning("%s: temporal engine: %s", camera, sentence)


def _oldest_first(tracks: Tracks) -> Tracks:
    """Confirmed tracks by rising id: who came first is served first."""
    confirmed = tracks[tracks.confirmed]
    return confirmed[np.argsort(confirmed.id, kind="stable")]

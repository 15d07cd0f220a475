"""What an engine is, in numpy only: the one thing ``streamer`` may know about models.

An engine turns a `Batch` (at most one picture a camera) into a `Perception`. It owns whatever
memory it needs between calls, one slot a camera; ``Batch.reset`` tells it which slots start anew.
Coordinates that leave an engine are normalised to the full picture: 0 is its left or top edge, 1 its
right or bottom edge, whatever letterbox the pixels went through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

#: Labels of the shipped detector, in the order of ``Detections.label``.
LABELS = ("person", "bicycle", "car", "motorcycle", "bus", "truck", "animal", "bag")

#: Names a user may write under ``classes``: every label, and groups of labels.
CLASS_GROUPS: dict[str, tuple[str, ...]] = {
    "vehicle": ("bicycle", "car", "motorcycle", "bus", "truck"),
}


def group_of(label: str) -> str:
    """The group a label belongs to (``car`` -> ``vehicle``), or the label itself."""
    for group, members in CLASS_GROUPS.items():
        if label in members:
            return group
    return label


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How a full picture was scaled and centred on an engine's canvas; the border is filled with 0.

    ``canvas_px = source_px * scale + pad``, the same scale on both axes.
    """

    source_w: int
    source_h: int
    canvas_w: int
    canvas_h: int
    scale: float
    pad_x: int
    pad_y: int

    @classmethod
    def fit(cls, source_hw: tuple[int, int], canvas_hw: tuple[int, int]) -> Letterbox:
        """The largest centred copy of a ``source_hw`` picture that a ``canvas_hw`` canvas holds."""
        (h, w), (ch, cw) = source_hw, canvas_hw
        if min(h, w, ch, cw) < 1:
            raise ValueError(f"letterbox: sizes must be positive, got {source_hw} on {canvas_hw}")
        scale = min(ch / h, cw / w)
        inner_w, inner_h = min(cw, round(w * scale)), min(ch, round(h * scale))
        return cls(w, h, cw, ch, scale, (cw - inner_w) // 2, (ch - inner_h) // 2)

    @property
    def inner_hw(self) -> tuple[int, int]:
        """Height and width in canvas pixels that the picture really covers."""
        return (
            min(self.canvas_h, round(self.source_h * self.scale)),
            min(self.canvas_w, round(self.source_w * self.scale)),
        )

    def to_source(self, xyxy: F32) -> F32:
        """Boxes [N,4] normalised to the canvas -> normalised to the full picture, clipped to 0..1."""
        inner_h, inner_w = self.inner_hw
        size = np.array([self.canvas_w, self.canvas_h] * 2, np.float32)
        pad = np.array([self.pad_x, self.pad_y] * 2, np.float32)
        inner = np.array([inner_w, inner_h] * 2, np.float32)
        placed: F32 = np.clip((xyxy * size - pad) / inner, 0.0, 1.0).astype(np.float32)
        return placed


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures for one engine call, at most one a camera.

    pixels: u8 [B,H,W,3] BGR, letterboxed. slots: i32 [B], the camera's place in the engine's memory.
    reset: bool [B], true where the slot starts a new epoch. time_s: f64 [B], seconds on the camera's
    own clock; only differences within one slot and epoch mean anything.
    """

    pixels: NDArray[np.uint8]
    letterboxes: tuple[Letterbox, ...]
    slots: NDArray[np.int32]
    reset: NDArray[np.bool_]
    time_s: NDArray[np.float64]

    def __post_init__(self) -> None:
        b = self.pixels.shape[0] if self.pixels.ndim == 4 else -1
        if b < 0 or self.pixels.shape[3] != 3 or self.pixels.dtype != np.uint8:
            raise ValueError(f"Batch.pixels: needs u8 [B,H,W,3], got {self.pixels.dtype} {list(self.pixels.shape)}")
        for name, n in (
            ("letterboxes", len(self.letterboxes)),
            ("slots", len(self.slots)),
            ("reset", len(self.reset)),
            ("time_s", len(self.time_s)),
        ):
            if n != b:
                raise ValueError(f"Batch.{name}: needs one entry a picture ({b}), got {n}")

    def __len__(self) -> int:
        return int(self.pixels.shape[0])


@dataclass(frozen=True, slots=True)
class Detections:
    """What one picture shows: parallel arrays of N objects.

    xyxy: f32 [N,4] normalised, x1 < x2 and y1 < y2. score: f32 [N] in 0..1. label: i32 [N], an index
    into the engine's labels. embedding: f32 [N,D] L2-normalised appearance, or None.
    """

    xyxy: F32
    score: F32
    label: NDArray[np.int32]
    embedding: F32 | None = None

    def __post_init__(self) -> None:
        n = len(self.xyxy)
        if self.xyxy.shape != (n, 4):
            raise ValueError(f"Detections.xyxy: needs [N,4], got {list(self.xyxy.shape)}")
        if self.score.shape != (n,) or self.label.shape != (n,):
            raise ValueError(
                f"Detections: score and label need [{n}], got {list(self.score.shape)} and {list(self.label.shape)}"
            )
        if self.embedding is not None and (self.embedding.ndim != 2 or len(self.embedding) != n):
            raise ValueError(f"Detections.embedding: needs [{n},D], got {list(self.embedding.shape)}")

    def __len__(self) -> int:
        return len(self.xyxy)

    def __getitem__(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> Detections:
        """The same type with the rows that ``keep`` (mask or indices) selects."""
        embedding = None if self.embedding is None else self.embedding[keep]
        return Detections(self.xyxy[keep], self.score[keep], self.label[keep], embedding)

    @classmethod
    def empty(cls, embedding_dim: int | None = None) -> Detections:
        """No objects; with ``embedding_dim`` an embedding array [0,D] as well."""
        embedding = None if embedding_dim is None else np.zeros((0, embedding_dim), np.float32)
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32), embedding)


@dataclass(frozen=True, slots=True)
class Perception:
    """One engine call's answer: Detections a picture, and scene tokens f32 [B,S,D] (or None)."""

    detections: tuple[Detections, ...]
    scene: F32 | None = None


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What a caller must know of an engine before it sends pixels."""

    name: str
    input_hw: tuple[int, int]
    labels: tuple[str, ...]
    embedding_dim: int | None
    backend: str
    precision: str
    #: why this backend was taken, one sentence for the log and ``vedette doctor``
    reason: str = ""
    #: SHA-256 of the model file
    sha256: str = ""
    notes: Sequence[str] = field(default=())


class Engine(Protocol):
    """A detector with memory. ``infer`` may reuse its buffers: keep nothing it returns by reference to pixels."""

    @property
    def spec(self) -> EngineSpec: ...

    def infer(self, batch: Batch) -> Perception:
        """Detections after NMS, best first, for every picture of the batch. Raises EngineFault on bad input."""
        ...

    def close(self) -> None: ...


class EngineFault(RuntimeError):
    """An engine could not be loaded or refused its input; the message names what was found and the fix."""

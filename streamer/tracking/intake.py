"""From what a detector says to what a tracker may trust: cleaning, counting and packing detections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import Detections
from vedette.streamer.tracking.config import TrackerConfig
from vedette.streamer.tracking.rows import F64, I64, spread


@dataclass(slots=True)
class Sightings:
    """The usable detections of one call, all cameras one after the other.

    box: [4,M] centre x, centre y, width, height in picture heights. high: [M] trusted (``score_high``), None
    when all are. view: [M] which camera of the call, None when there is only one. row: [M] row in that
    camera's Detections, None when they are all of them. embedding: [M,D] or None.
    """

    box: F64
    score: F64
    label: I64
    group: I64
    high: NDArray[np.bool_] | None
    view: I64 | None
    row: I64 | None
    embedding: F64 | None

    def __len__(self) -> int:
        return len(self.score)


@cache
def as_score(threshold: float) -> float:
    """The threshold as a detector's 32-bit score would hold it, so that equal numbers compare equal."""
    return float(np.float32(threshold))


def gather(
    detections: Sequence[Detections],
    aspect: list[float],
    groups: I64,
    config: TrackerConfig,
    rejected: Counter[str],
) -> Sightings:
    """The detections that can be tracked; the others are dropped and counted in ``rejected`` by reason.

    Reasons: ``not_finite``, ``inverted`` (x2 < x1 or y2 < y1), ``zero_area``, ``outside`` (nothing of it in
    the picture), ``score`` (not in 0..1), ``label`` (unknown), ``crowded`` (beyond ``max_detections``).
    Detections below ``score_low`` are valid, and ignored. aspect: [views] width / height. groups: [labels].
    """
    raw, score, label, view, row = _pack(detections)
    xyxy = raw.T.astype(np.float64, order="C")
    near, far = xyxy[:2], xyxy[2:]
    size = far - near
    # above 0 when the box has a size and lies at least partly in the picture; NaN is not above 0
    inside = np.minimum(np.minimum(size, far), 1.0 - near)
    good = np.minimum(*inside) > 0
    good &= np.maximum(*size) < _FAR
    good &= score >= as_score(config.score_low)
    good &= score <= 1
    good &= label.view(np.uint64) < len(groups)
    if np.count_nonzero(good) < len(score):
        count_rejected(xyxy, score, label, len(groups), rejected)
    if len(score) > config.max_detections:
        lane = np.zeros(len(score), np.int64) if view is None else view
        good &= _best(lane, np.where(good, score, -1.0), config.max_detections, good, rejected)
    embedding = _embeddings(detections, good)
    if np.count_nonzero(good) < len(score):
        kept = good.nonzero()[0]
        xyxy, score, label = xyxy.take(kept, 1), score[kept], label[kept]
        view, row = None if view is None else view[kept], kept if row is None else row[kept]
    box = np.empty_like(xyxy)
    centre = np.add(xyxy[:2], xyxy[2:], out=box[:2])
    centre *= 0.5
    np.subtract(xyxy[2:], xyxy[:2], out=box[2:])
    box[::2] *= spread(aspect, view)
    high = score >= as_score(config.score_high)
    trusted = None if np.count_nonzero(high) == len(high) else high
    return Sightings(box, score, label, groups.take(label), trusted, view, row, embedding)


def _pack(detections: Sequence[Detections]) -> tuple[NDArray[np.float32], F64, I64, I64 | None, I64 | None]:
    """Boxes [M,4], scores, labels, cameras and rows of all detections; the last two None for a single camera."""
    if len(detections) == 1:
        only = detections[0]
        return only.xyxy, only.score.astype(np.float64), only.label.astype(np.int64), None, None
    sizes = [len(d) for d in detections]
    score = np.concatenate([d.score for d in detections]).astype(np.float64)
    label = np.concatenate([d.label for d in detections]).astype(np.int64)
    view = np.repeat(np.arange(len(sizes)), sizes)
    row = np.arange(len(score)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.concatenate([d.xyxy for d in detections]), score, label, view, row


#: A coordinate beyond this many picture sizes is not a measurement.
_FAR = 1e3


def count_rejected(xyxy: F64, score: F64, label: I64, labels: int, rejected: Counter[str]) -> None:
    """Add to ``rejected`` the first reason against every unusable detection."""
    left = np.ones(len(score), np.bool_)
    x1, y1, x2, y2 = xyxy
    for reason, bad in (
        ("not_finite", ~(np.isfinite(xyxy).all(0) & np.isfinite(score))),
        ("inverted", (x2 < x1) | (y2 < y1)),
        ("zero_area", (x2 == x1) | (y2 == y1)),
        ("outside", (x2 <= 0) | (y2 <= 0) | (x1 >= 1) | (y1 >= 1) | (np.abs(xyxy).max(0, initial=0.0) >= _FAR)),
        ("score", (score < 0) | (score > 1)),
        ("label", (label < 0) | (label >= labels)),
    ):
        bad &= left
        left &= ~bad
        if n := int(bad.sum()):
            rejected[reason] += n


def _best(view: I64, score: F64, most: int, good: NDArray[np.bool_], rejected: Counter[str]) -> NDArray[np.bool_]:
    """The ``most`` best scored detections of every view; what is beyond is counted."""
    order = np.lexsort((-score, view))
    first = np.searchsorted(view[order], view[order])
    keep = np.zeros(len(score), np.bool_)
    keep[order] = np.arange(len(order)) - first < most
    if n := int((good & ~keep).sum()):
        rejected["crowded"] += n
    return keep


def _embeddings(detections: Sequence[Detections], good: NDArray[np.bool_]) -> F64 | None:
    """Embeddings of the kept detections, unit length, zeros where a camera has none; None when nobody has any."""
    widths = {d.embedding.shape[1] for d in detections if d.embedding is not None and len(d)}
    if not widths:
        return None
    if len(widths) > 1:
        raise ValueError(f"Tracker: embeddings of one call need one width, got {sorted(widths)}")
    width = widths.pop()
    parts = [np.zeros((len(d), width)) if d.embedding is None or not len(d) else d.embedding for d in detections]
    return unit(np.nan_to_num(np.concatenate(parts).astype(np.float64)[good], posinf=0.0, neginf=0.0))


def unit(e: F64) -> F64:
    """The rows of ``e`` [N,D] scaled to length 1; rows of zeros stay zero."""
    scaled: F64 = e / np.maximum(np.linalg.norm(e, axis=1, keepdims=True), 1e-9)
    return scaled

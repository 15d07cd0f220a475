"""What learned evidence looked at, as an alert tells it: over the past half seconds, and over the parts of the picture.

``explain.attention_s`` is a list of [seconds ago, share], oldest first; ``explain.attention_map`` a list of rows of shares, the
picture cut into equal parts. Both in logits: above 0 speaks for the alert, below 0 against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from vedette.streamer.rules.view import rounded
from vedette.streamer.types import F32

#: Attention over time is told in steps of this, seconds.
STEP_S = 0.5
#: Rows and columns of a map.
PARTS = (8, 13)


def over_time(shares: Iterable[tuple[float, float]], later_s: float = 0.0) -> list[list[float]]:
    """Shares by half seconds. later_s: how long ago the newest one is."""
    bins: dict[int, float] = {}
    for ago_s, share in shares:
        step = int((ago_s + later_s) / STEP_S)
        bins[step] = bins.get(step, 0.0) + share
    return [[rounded(step * STEP_S), rounded(bins[step])] for step in sorted(bins, reverse=True)]


def over_parts(parts: F32) -> list[list[float]]:
    """Rows of shares, four digits: one picture of many adds little."""
    return [[round(value, 4) + 0.0 for value in row] for row in parts.astype(float).tolist()]  # never -0.0


def over_boxes(boxes: Sequence[Sequence[float]], shares: Sequence[float]) -> F32:
    """f32 `PARTS`: every share laid out evenly over its box (x1, y1, x2, y2 normalised)."""
    total = np.zeros(PARTS, np.float32)
    edges = [np.arange(count + 1) / count for count in PARTS]
    for (x1, y1, x2, y2), share in zip(boxes, shares, strict=True):
        down, across = (
            np.clip(np.minimum(edge[1:], high) - np.maximum(edge[:-1], low), 0, None)
            for edge, low, high in ((edges[0], y1, y2), (edges[1], x1, x2))
        )
        area = np.outer(down, across)
        total += (share * area / max(float(area.sum()), 1e-9)).astype(np.float32)
    return total

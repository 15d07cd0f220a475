"""Scenes for tracker tests: boxes on known paths, so that the right identity is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vedette.engines.api import Detections


def boxes(*rows: Sequence[float], score: float | Sequence[float] = 0.9, label: int | Sequence[int] = 0) -> Detections:
    """Detections from (x1, y1, x2, y2) rows."""
    n = len(rows)
    return Detections(
        np.array(rows, np.float32).reshape(n, 4),
        np.broadcast_to(np.asarray(score, np.float32), (n,)).copy(),
        np.broadcast_to(np.asarray(label, np.int32), (n,)).copy(),
    )


def looking(detections: Detections, looks: np.ndarray) -> Detections:
    """The same detections with embeddings [N,D] of unit length."""
    unit = looks / np.linalg.norm(looks, axis=1, keepdims=True)
    return Detections(detections.xyxy, detections.score, detections.label, unit.astype(np.float32))


def walker(
    t: float, *, x0: float = 0.1, y0: float = 0.3, vx: float = 0.1, w: float = 0.06, h: float = 0.3
) -> list[float]:
    """A box that walks to the right at ``vx`` picture widths a second."""
    return [x0 + vx * t, y0, x0 + vx * t + w, y0 + h]

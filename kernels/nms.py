"""Greedy non-maximum suppression, vectorised in numpy: the CPU path, and the reference of the CUDA kernel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


def iou_matrix(a: F32, b: F32) -> F32:
    """Intersection over union [N,M] of boxes a [N,4] and b [M,4], xyxy; 0 where a box is empty."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    w = np.minimum(a[:, None, 2], b[None, :, 2]) - np.maximum(a[:, None, 0], b[None, :, 0])
    h = np.minimum(a[:, None, 3], b[None, :, 3]) - np.maximum(a[:, None, 1], b[None, :, 1])
    inter = np.maximum(w, 0) * np.maximum(h, 0)
    union = _area(a)[:, None] + _area(b)[None, :] - inter
    out: F32 = np.zeros_like(inter)
    np.divide(inter, union, out=out, where=union > 0)
    return out


def _area(boxes: F32) -> F32:
    side = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return np.asarray(side[:, 0] * side[:, 1], np.float32)


def nms(
    boxes: F32, scores: F32, groups: NDArray[np.integer] | None = None, iou: float = 0.5, limit: int | None = None
) -> NDArray[np.intp]:
    """Indices of the boxes that survive, best score first; equal scores keep their order.

    boxes: [N,4] xyxy, any unit. scores: [N]. groups: [N] or None for one group; boxes suppress each other
    only within a group, so a car and a truck of the same group cannot both stand on one vehicle, while a
    person on a bicycle survives. iou: a box goes when it overlaps a better one by more than this; raise it
    to keep people who hide each other, and get more doubles. limit: keep at most so many.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    if len(order) == 0:
        return order
    b = np.asarray(boxes, np.float32)[order]
    clash = iou_matrix(b, b) > iou
    if groups is not None:
        g = np.asarray(groups)[order]
        clash &= g[:, None] == g[None, :]
    alive = np.ones(len(order), np.bool_)
    keep: list[int] = []
    for i in range(len(order)):
        if alive[i]:
            keep.append(i)
            if len(keep) == limit:
                break
            alive &= ~clash[i]
    return order[np.array(keep, np.intp)]

"""Letterbox and normalise in numpy: what ``letterbox.cu`` is held against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def letterbox_normalise(
    bgr: NDArray[np.uint8],
    canvas_hw: tuple[int, int],
    inner_hw: tuple[int, int],
    pad_yx: tuple[int, int],
    mean: Array,
    scale: Array,
) -> Array:
    """u8 [H,W,3] BGR -> f64 [3,h,w] RGB: bilinear (pixel centres, clamped edges) inside the inner box, 0 outside, then (x - mean) * scale."""
    height, width = bgr.shape[:2]
    (y0, y1, wy), (x0, x1, wx) = _taps(height, inner_hw[0]), _taps(width, inner_hw[1])
    rgb = bgr[..., ::-1].astype(np.float64)
    top = rgb[y0][:, x0] * (1 - wx)[None, :, None] + rgb[y0][:, x1] * wx[None, :, None]
    bottom = rgb[y1][:, x0] * (1 - wx)[None, :, None] + rgb[y1][:, x1] * wx[None, :, None]
    canvas = np.zeros((*canvas_hw, 3))
    (py, px), (ih, iw) = pad_yx, inner_hw
    canvas[py : py + ih, px : px + iw] = top * (1 - wy)[:, None, None] + bottom * wy[:, None, None]
    out: Array = ((canvas - mean) * scale).transpose(2, 0, 1)
    return out


def _taps(source: int, target: int) -> tuple[Array, Array, Array]:
    """The two source positions of each target position, and the weight of the second."""
    at = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = at.astype(np.int64)
    return low, np.minimum(low + 1, source - 1), at - low

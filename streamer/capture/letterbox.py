"""One resize from the full picture to the engine's canvas, drawn where it will be read."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import Letterbox

U8 = NDArray[np.uint8]

#: Below this scale every source pixel must count (area average); above it linear is as good and faster.
AREA_BELOW = 0.6
#: An area average of whole pixels (2x2) is nine times as fast as one of fractions: halve first, then go on from there.
HALF = 0.5


def draw_letterbox(picture: U8, canvas: U8) -> Letterbox:
    """Draw ``picture`` u8 [H,W,3] centred and as large as it fits onto ``canvas`` u8 [h,w,3]; the border becomes 0."""
    box = Letterbox.fit((picture.shape[0], picture.shape[1]), (canvas.shape[0], canvas.shape[1]))
    (height, width), top, left = box.inner_hw, box.pad_y, box.pad_x
    canvas[:top] = 0
    canvas[top + height :] = 0
    canvas[top : top + height, :left] = 0
    canvas[top : top + height, left + width :] = 0
    inner = canvas[top : top + height, left : left + width]
    if (height, width) == picture.shape[:2]:
        np.copyto(inner, picture)
    else:
        scale = box.scale
        while scale <= HALF:
            picture = _halved(picture)
            scale *= 2
        how = cv2.INTER_AREA if scale < AREA_BELOW else cv2.INTER_LINEAR
        drawn = cv2.resize(picture, (width, height), dst=inner, interpolation=how)
        if drawn is not inner and not np.shares_memory(drawn, inner):
            np.copyto(inner, drawn)
    return box


def _halved(picture: U8) -> U8:
    """Every 2x2 pixels become one; an odd last row or column goes into none."""
    height, width = picture.shape[0] & ~1, picture.shape[1] & ~1
    return np.asarray(
        cv2.resize(picture[:height, :width], (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.uint8
    )

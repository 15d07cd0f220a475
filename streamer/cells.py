"""Whether anything moved between two pictures of the engine's size: small cells, in which the sensor's noise averages out."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

#: Side of the cells that pictures are compared by, pixels of the engine's input: averaging takes the sensor's noise away.
CELL_PX = 4
#: A cell has moved when one of its colours changed by more than this, of 255 levels.
MOVED_LEVELS = 10
#: So many colours of cells may move by noise alone.
MOVED_MOST = 3


def shrink(pixels: U8) -> U8:
    """The cells of a picture u8 [H,W,3], u8 [H/4,W/4,3]."""
    height, width = pixels.shape[:2]
    size = (max(1, width // CELL_PX), max(1, height // CELL_PX))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def moved(cells: U8, before: U8) -> int:
    """How many colours of cells changed by more than `MOVED_LEVELS`."""
    _, changed = cv2.threshold(cv2.absdiff(cells, before), MOVED_LEVELS, 255, cv2.THRESH_BINARY)
    return cv2.countNonZero(changed.reshape(-1))

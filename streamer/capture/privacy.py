"""Privacy: polygons that are black before a pixel leaves the process, in frames and in evidence alike."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from vedette.streamer.geometry import Point

U8 = NDArray[np.uint8]


class PrivacyMask:
    """Blackens normalised polygons, edges included and two pixels beyond: never a pixel less than was drawn."""

    def __init__(self, polygons: Sequence[Sequence[Point]]) -> None:
        self._polygons = [np.asarray(polygon, np.float64) for polygon in polygons]
        self._size = (0, 0)
        self._pixels: list[NDArray[np.int32]] = []

    def apply(self, picture: U8) -> None:
        """Blacken u8 [H,W,3] in place."""
        if not self._polygons:
            return
        height, width = picture.shape[:2]
        if (height, width) != self._size:
            self._size = (height, width)
            scale = np.array([width, height])
            self._pixels = [np.rint(polygon * scale - 0.5).astype(np.int32) for polygon in self._polygons]
        for points in self._pixels:  # one by one: together, overlapping polygons would cancel out
            cv2.fillPoly(picture, [points], (0, 0, 0))
            cv2.polylines(picture, [points], True, (0, 0, 0), thickness=5)

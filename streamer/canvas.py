"""A picture made ready for an engine: privacy burned in, letterboxed. The one resize of daemon and files alike."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import Letterbox
from vedette.streamer.geometry import Point

U8 = NDArray[np.uint8]


def black_out(pixels: U8, polygons: Sequence[Sequence[Point]]) -> None:
    """Blacken normalised polygons in place, borders included; a picture of any size."""
    if not polygons:
        return
    size = np.array([pixels.shape[1], pixels.shape[0]], np.float64)
    # floor and ceil cannot both be had from one point: the polygon is filled and its outline drawn two pixels wide
    shapes = [np.round(np.asarray(polygon, np.float64) * size).astype(np.int32) for polygon in polygons]
    cv2.fillPoly(pixels, shapes, (0, 0, 0))
    cv2.polylines(pixels, shapes, isClosed=True, color=(0, 0, 0), thickness=2)


def letterboxed(pixels: U8, canvas_hw: tuple[int, int], out: U8 | None = None) -> tuple[U8, Letterbox]:
    """u8 [H,W,3] scaled and centred on a black canvas of ``canvas_hw``, and how it lies there.

    out: u8 [canvas_h, canvas_w, 3] to write into (a ring slot), else a new array.
    """
    box = Letterbox.fit((pixels.shape[0], pixels.shape[1]), canvas_hw)
    canvas = np.empty((*canvas_hw, 3), np.uint8) if out is None else out
    h, w = box.inner_hw
    inner = canvas[box.pad_y : box.pad_y + h, box.pad_x : box.pad_x + w]
    canvas[: box.pad_y], canvas[box.pad_y + h :] = 0, 0
    canvas[:, : box.pad_x], canvas[:, box.pad_x + w :] = 0, 0
    if pixels.shape[:2] == (h, w):
        inner[:] = pixels
    else:
        how = cv2.INTER_AREA if box.scale < 1 else cv2.INTER_LINEAR  # area does not alias when it shrinks
        inner[:] = cv2.resize(pixels, (w, h), interpolation=how)
    return canvas, box

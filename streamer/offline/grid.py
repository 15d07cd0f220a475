"""A grid in normalised coordinates over a picture, so that people can read off zones and lines."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

#: Smaller pictures are enlarged first: labels must stay readable.
LEAST_SIDE = 960


def draw_grid(picture: U8) -> U8:
    """A copy of u8 [H,W,3] with a line every 0.1 and labels along the top and left edges: x to the right, y down."""
    height, width = picture.shape[:2]
    scale = max(1.0, LEAST_SIDE / max(height, width))
    canvas: U8 = cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_LINEAR)
    height, width = canvas.shape[:2]
    size = max(0.4, max(height, width) / 2400)
    for tenth in range(11):
        value = tenth / 10
        x, y = min(width - 1, round(value * width)), min(height - 1, round(value * height))
        strong = tenth % 5 == 0
        _line(canvas, (x, 0), (x, height), strong=strong)
        _line(canvas, (0, y), (width, y), strong=strong)
    for tenth in range(11):
        value = tenth / 10
        _label(canvas, f"{value:.1f}", round(value * width), 0, size)
        if tenth:
            _label(canvas, f"{value:.1f}", 0, round(value * height), size)
    return canvas


def _line(canvas: U8, start: tuple[int, int], end: tuple[int, int], *, strong: bool) -> None:
    """A bright line on a dark one: visible on any picture."""
    cv2.line(canvas, start, end, (0, 0, 0), 3 if strong else 2)
    cv2.line(canvas, start, end, (0, 255, 255) if strong else (200, 200, 200), 1)


def _label(canvas: U8, text: str, x: int, y: int, size: float) -> None:
    """A label beside its line, kept inside the picture, on a dark box."""
    (width, height), under = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    x = min(max(2, x + 3), canvas.shape[1] - width - 4)
    y = min(max(height + 4, y + height + 5), canvas.shape[0] - under - 2)
    cv2.rectangle(canvas, (x - 2, y - height - 2), (x + width + 2, y + under), (0, 0, 0), -1)
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)

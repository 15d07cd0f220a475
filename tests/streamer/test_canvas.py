"""Pictures on the engine's canvas: nothing is stretched, nothing private is left."""

from __future__ import annotations

import numpy as np
import pytest

from vedette.streamer.canvas import black_out, letterboxed


@pytest.mark.parametrize("hw", [(576, 768), (1080, 1920), (100, 40), (256, 416), (1, 1), (37, 301)])
def test_a_picture_lies_where_its_letterbox_says(hw: tuple[int, int]) -> None:
    """A white picture of any shape fills exactly the inner rectangle, and the border is black."""
    canvas, box = letterboxed(np.full((*hw, 3), 255, np.uint8), (256, 416), np.full((256, 416, 3), 7, np.uint8))
    h, w = box.inner_hw
    inner = canvas[box.pad_y : box.pad_y + h, box.pad_x : box.pad_x + w]
    assert inner.min() == 255
    assert int(canvas.astype(int).sum()) == 255 * 3 * h * w


def test_every_pixel_of_a_privacy_polygon_is_black() -> None:
    """Nothing inside the polygon, its edge included, keeps its colour; far outside everything does."""
    picture = np.full((120, 160, 3), 200, np.uint8)
    black_out(picture, [[(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)]])
    assert picture[30:91, 40:121].max() == 0
    assert picture[:28].min() == 200
    assert picture[:, :38].min() == 200

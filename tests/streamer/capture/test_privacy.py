"""Privacy polygons: black means black, all of it, whatever the size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.streamer.capture.privacy import PrivacyMask
from vedette.streamer.geometry import points_in_polygon

CORNER = [(0.0, 0.0), (0.25, 0.0), (0.25, 0.5), (0.0, 0.5)]


@pytest.mark.parametrize(("height", "width"), [(48, 48), (361, 641), (1080, 1920)])
def test_inside_is_black_and_outside_is_untouched(height: int, width: int) -> None:
    """Every pixel of the polygon is 0; a few pixels beyond its edge nothing has changed."""
    picture = np.full((height, width, 3), 200, np.uint8)
    PrivacyMask([CORNER]).apply(picture)
    assert not picture[: height // 2, : width // 4].any()
    assert (picture[height // 2 + 5 :] == 200).all()
    assert (picture[:, width // 4 + 5 :] == 200).all()


def test_overlapping_polygons_do_not_cancel_out() -> None:
    """The overlap of two polygons is black too."""
    picture = np.full((100, 100, 3), 200, np.uint8)
    PrivacyMask([CORNER, CORNER, [(0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)]]).apply(picture)
    assert not picture[10:90, 10:90].any()
    assert not picture[:50, :25].any()


def test_the_mask_follows_a_change_of_size() -> None:
    """A camera that switches its resolution stays masked."""
    mask = PrivacyMask([CORNER])
    for side in (100, 400, 100):
        picture = np.full((side, side, 3), 200, np.uint8)
        mask.apply(picture)
        assert not picture[: side // 2, : side // 4].any()


def test_no_polygons_leave_the_picture_alone() -> None:
    """Nothing to hide, nothing changed."""
    picture = np.full((10, 10, 3), 200, np.uint8)
    PrivacyMask([]).apply(picture)
    assert (picture == 200).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=3), st.integers(20, 300))
def test_no_pixel_centre_inside_stays_visible(triangle: list[tuple[float, float]], side: int) -> None:
    """Whatever triangle is drawn, every pixel whose centre lies inside is black."""
    picture = np.full((side, side, 3), 200, np.uint8)
    PrivacyMask([triangle]).apply(picture)
    centres = (np.indices((side, side)).transpose(1, 2, 0)[..., ::-1].reshape(-1, 2) + 0.5) / side
    inside = points_in_polygon(centres.astype(np.float32), triangle).reshape(side, side)
    assert not picture[inside].any()

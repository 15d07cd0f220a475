"""Geometry: polygons are judged rightly and points are placed on the right side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.streamer.geometry import (
    line_problem,
    points_in_polygon,
    polygon_area,
    polygon_problem,
    segments_meet,
    side_of,
)

SQUARE = [(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8)]
unit = st.floats(0, 1)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([(0.0, 0.0), (1.0, 1.0)], "at least 3 points"),
        ([(0.0, 0.0), (1.2, 0.0), (0.0, 1.0)], "0..1"),
        ([(0.0, 0.0), (0.0, float("nan")), (0.0, 1.0)], "0..1"),
        ([(0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)], "cross"),
        ([(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)], "area"),
        ([(0.1, 0.1), (0.1, 0.1), (0.5, 0.5), (0.1, 0.5)], "twice"),
        ([(0.0, 0.0), (1.0, 0.0), (0.5, 0.0), (0.5, 1.0)], "cross"),
    ],
)
def test_bad_polygons_are_named(points: list[tuple[float, float]], words: str) -> None:
    """Every way a polygon can be wrong has its own sentence."""
    assert words in (polygon_problem(points) or "")


@pytest.mark.parametrize("points", [SQUARE, SQUARE[::-1], [(0, 0), (1, 0), (1, 1), (0.5, 0.2), (0, 1)]])
def test_simple_polygons_pass(points: list[tuple[float, float]]) -> None:
    """Convex and concave simple polygons are accepted in both windings."""
    assert polygon_problem(points) is None


def test_lines_need_two_points_inside() -> None:
    """A line of one point, of equal points or outside the picture is refused."""
    assert "exactly 2" in (line_problem([(0.1, 0.1)]) or "")
    assert "different" in (line_problem([(0.1, 0.1), (0.1, 0.1)]) or "")
    assert "0..1" in (line_problem([(0.1, 0.1), (0.1, 1.1)]) or "")
    assert line_problem([(0.1, 0.1), (0.2, 0.1)]) is None


@given(st.lists(st.tuples(unit, unit), min_size=1, max_size=40))
def test_points_in_a_box_are_those_between_its_edges(points: list[tuple[float, float]]) -> None:
    """For an axis-aligned square the even-odd rule equals two comparisons (edges aside)."""
    p = np.array(points, np.float32)
    clear = np.all(np.abs(p[:, None] - np.array([[0.2, 0.2], [0.8, 0.8]])) > 1e-6, axis=(1, 2))
    expected = np.all((p > 0.2) & (p < 0.8), axis=1)
    assert np.array_equal(points_in_polygon(p, SQUARE)[clear], expected[clear])


def test_concave_polygon_has_a_notch() -> None:
    """A point in the notch of a concave polygon is outside."""
    notch = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.2), (0.0, 1.0)]
    inside = points_in_polygon(np.array([[0.5, 0.1], [0.5, 0.6], [0.1, 0.5]], np.float32), notch)
    assert inside.tolist() == [True, False, True]


def test_side_is_a_signed_distance() -> None:
    """Below a line drawn left to right (y down) is its right side, and the number is the distance."""
    side = side_of(np.array([[0.5, 0.7], [0.5, 0.4]], np.float32), (0.2, 0.5), (0.8, 0.5))
    assert side == pytest.approx([0.2, -0.1], abs=1e-6)


@given(st.tuples(unit, unit), st.tuples(unit, unit), st.tuples(unit, unit), st.tuples(unit, unit))
def test_meeting_is_symmetric(
    a: tuple[float, float], b: tuple[float, float], c: tuple[float, float], d: tuple[float, float]
) -> None:
    """Segments meet whichever is named first."""
    assert segments_meet(a, b, c, d) == segments_meet(c, d, a, b)


def test_area_tells_the_winding() -> None:
    """The shoelace area changes sign with the winding."""
    assert polygon_area(SQUARE) == pytest.approx(0.36)
    assert polygon_area(SQUARE[::-1]) == pytest.approx(-0.36)

"""Points, polygons and segments in normalised picture coordinates (0..1, y down). Pure functions.

Source of the tests: O'Rourke, Computational Geometry in C, 2nd ed., sections 1.5 (segment intersection)
and 7.4 (point in polygon).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]


def polygon_problem(points: Sequence[Point]) -> str | None:
    """Why these points are not a simple polygon inside the picture, or None when they are."""
    if len(points) < 3:
        return f"needs at least 3 points, got {len(points)}"
    outside = [p for p in points if not (0.0 <= p[0] <= 1.0 and 0.0 <= p[1] <= 1.0)]
    if outside:
        return f"coordinates are normalised and need 0..1, got {list(outside[0])}"
    n = len(points)
    for i in range(n):
        if points[i] == points[(i + 1) % n]:
            return f"needs different neighbouring points, got {list(points[i])} twice"
    for i in range(n):
        for j in range(i + 1, n):
            if j in ((i + 1) % n, (i - 1) % n) or (j + 1) % n == i:
                continue
            if segments_meet(points[i], points[(i + 1) % n], points[j], points[(j + 1) % n]):
                return f"edges must not cross: edge {i} meets edge {j}"
    if abs(polygon_area(points)) < 1e-6:
        return "needs an area, got points on one line"
    return None


def line_problem(points: Sequence[Point]) -> str | None:
    """Why these points are not a crossing line (two different points inside the picture), or None."""
    if len(points) != 2:
        return f"needs exactly 2 points, got {len(points)}"
    outside = [p for p in points if not (0.0 <= p[0] <= 1.0 and 0.0 <= p[1] <= 1.0)]
    if outside:
        return f"coordinates are normalised and need 0..1, got {list(outside[0])}"
    if points[0] == points[1]:
        return f"needs two different points, got {list(points[0])} twice"
    return None


def polygon_area(points: Sequence[Point]) -> float:
    """Signed area (shoelace formula), in picture areas; the sign tells the winding."""
    p = np.asarray(points, float)
    x, y = p[:, 0], p[:, 1]
    return float(0.5 * (np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))


def side_of(points: NDArray[np.float32], a: Point, b: Point) -> NDArray[np.float64]:
    """Signed distance [N] of points [N,2] from the line through a and b; positive on the right when walking a -> b
    on a screen (y down)."""
    p = np.asarray(points, np.float64).reshape(-1, 2)
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = float(np.hypot(dx, dy))
    return (dx * (p[:, 1] - a[1]) - dy * (p[:, 0] - a[0])) / length


def points_in_polygon(points: NDArray[np.float32], polygon: Sequence[Point]) -> NDArray[np.bool_]:
    """Bool [N]: which points [N,2] lie inside, by the even-odd rule; all points against all edges at once."""
    p = np.asarray(points, np.float64).reshape(-1, 1, 2)
    a = np.asarray(polygon, np.float64)[None]
    b = np.roll(a, -1, axis=1)
    straddles = (a[..., 1] > p[..., 1]) != (b[..., 1] > p[..., 1])
    rise = np.where(b[..., 1] == a[..., 1], 1.0, b[..., 1] - a[..., 1])
    x_at = a[..., 0] + (p[..., 1] - a[..., 1]) * (b[..., 0] - a[..., 0]) / rise
    crossings: NDArray[np.int64] = np.sum(straddles & (p[..., 0] < x_at), axis=1)
    inside: NDArray[np.bool_] = crossings % 2 == 1
    return inside


def _turn(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _between(a: Point, b: Point, c: Point) -> bool:
    return min(a[0], b[0]) <= c[0] <= max(a[0], b[0]) and min(a[1], b[1]) <= c[1] <= max(a[1], b[1])


def segments_meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether segments a-b and c-d share a point, end points included."""
    t1, t2, t3, t4 = _turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b)
    if ((t1 > 0) != (t2 > 0)) and ((t3 > 0) != (t4 > 0)) and 0.0 not in (t1, t2, t3, t4):
        return True
    return (
        (t1 == 0 and _between(a, b, c))
        or (t2 == 0 and _between(a, b, d))
        or (t3 == 0 and _between(c, d, a))
        or (t4 == 0 and _between(c, d, b))
    )

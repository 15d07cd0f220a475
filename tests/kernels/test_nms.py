"""NMS against a loop that nobody can get wrong, on the shapes that break vectorised code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.kernels.nms import iou_matrix, nms


def naive_iou(a, b) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    area = lambda r: max(r[2] - r[0], 0.0) * max(r[3] - r[1], 0.0)  # noqa: E731
    return w * h / (area(a) + area(b) - w * h)


def naive_nms(boxes, scores, groups, iou) -> list[int]:
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    keep: list[int] = []
    for i in order:
        if all(groups[i] != groups[k] or naive_iou(boxes[i], boxes[k]) <= iou for k in keep):
            keep.append(i)
    return keep


def scene(n: int, seed: int, spread: float):
    r = np.random.default_rng(seed)
    xy = r.uniform(0, spread, (n, 2))
    # whole eighths: every product and sum is exact in fp32, so ties and thresholds mean the same to both sides
    boxes = np.round(np.concatenate([xy, xy + r.uniform(0, 2, (n, 2))], 1) * 8) / 8
    return boxes.astype(np.float32), (r.integers(0, 20, n) / 32).astype(np.float32), r.integers(0, 3, n)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 31, 128, 300])
@pytest.mark.parametrize("spread", [0.0, 1.0, 9.0])
@pytest.mark.parametrize("iou", [0.0, 0.3, 0.55, 1.0])
def test_nms_equals_the_naive_loop(n: int, spread: float, iou: float) -> None:
    """The vectorised version keeps the same boxes in the same order as a plain double loop."""
    boxes, scores, groups = scene(n, n + 1, spread)
    assert nms(boxes, scores, groups, iou).tolist() == naive_nms(boxes, scores, groups, iou)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 10_000), st.floats(0, 1))
def test_nms_keeps_no_pair_that_overlaps_too_much(n: int, seed: int, iou: float) -> None:
    """Whatever the boxes, two survivors of a group overlap by at most the threshold, and scores descend."""
    boxes, scores, groups = scene(n, seed, 3.0)
    keep = nms(boxes, scores, groups, iou)
    clash = (iou_matrix(boxes[keep], boxes[keep]) > iou) & (groups[keep][:, None] == groups[keep][None])
    np.fill_diagonal(clash, False)
    assert not clash.any()
    assert (np.diff(scores[keep]) <= 0).all()


def test_a_car_and_a_truck_on_one_vehicle_give_one_box() -> None:
    """Suppression works by group, so two labels of one group cannot both stand on the same object."""
    boxes = np.array([[0, 0, 4, 2], [0, 0, 4, 2.125], [0, 0, 4, 2]], np.float32)
    assert nms(boxes, np.array([0.5, 0.6, 0.4], np.float32), np.array([2, 2, 0])).tolist() == [1, 2]


def test_empty_and_inverted_boxes_overlap_nothing() -> None:
    """A box without area has IoU 0 with everything, itself included, and never divides by zero."""
    boxes = np.array([[1, 1, 1, 1], [3, 3, 2, 2], [0, 0, 4, 4]], np.float32)
    assert np.array_equal(iou_matrix(boxes, boxes)[:2], np.zeros((2, 3)))
    assert len(nms(boxes, np.array([0.1, 0.2, 0.3], np.float32))) == 3


def test_limit_keeps_the_best() -> None:
    """`limit` ends the search at the best so many survivors."""
    boxes, scores, groups = scene(50, 3, 9.0)
    assert nms(boxes, scores, groups, 0.5, limit=5).tolist() == naive_nms(boxes, scores, groups, 0.5)[:5]

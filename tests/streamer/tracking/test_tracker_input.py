"""Bad input to the tracker has a defined outcome: dropped and counted, or refused whole, and never a crash."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.streamer.tracking.track_scenes import boxes, walker
from vedette.engines.api import Detections
from vedette.streamer.tracking.tracker import Tracker, TrackerConfig

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("row", "score", "label", "reason"),
    [
        ([NAN, 0, 1, 1], 0.9, 0, "not_finite"),
        ([0, 0, INF, 1], 0.9, 0, "not_finite"),
        ([0.1, 0.1, 0.2, 0.2], NAN, 0, "not_finite"),
        ([0.5, 0.1, 0.2, 0.2], 0.9, 0, "inverted"),
        ([0.1, 0.1, 0.1, 0.2], 0.9, 0, "zero_area"),
        ([1.2, 0.1, 1.4, 0.2], 0.9, 0, "outside"),
        ([-0.4, 0.1, -0.2, 0.2], 0.9, 0, "outside"),
        ([-1e9, 0.1, 1e9, 0.2], 0.9, 0, "outside"),
        ([0.1, 0.1, 0.2, 0.2], 1.5, 0, "score"),
        ([0.1, 0.1, 0.2, 0.2], -0.1, 0, "score"),
        ([0.1, 0.1, 0.2, 0.2], 0.9, 99, "label"),
        ([0.1, 0.1, 0.2, 0.2], 0.9, -1, "label"),
    ],
)
def test_an_unusable_detection_is_dropped_and_counted(row: list[float], score: float, label: int, reason: str) -> None:
    """Each kind of bad detection is counted once under its reason; its good neighbour is tracked."""
    tracker = Tracker()
    both = boxes(row, walker(0), score=[score, 0.9], label=[label, 0])
    answer = tracker.update(["dock"], [0.0], [both])[0]
    assert dict(tracker.rejected) == {reason: 1}
    assert answer.detection.tolist() == [1]


def test_a_box_that_leans_out_of_the_picture_is_tracked() -> None:
    """Half outside is inside: people enter at the edge."""
    tracker = Tracker()
    assert len(tracker.update(["dock"], [0.0], [boxes([-0.05, 0.1, 0.05, 0.6])])[0]) == 1
    assert not tracker.rejected


def test_time_that_stands_still_moves_nothing() -> None:
    """A second frame with the same time is taken in as zero seconds: same ids, no age."""
    tracker = Tracker()
    for _ in range(5):
        answer = tracker.update(["dock"], [7.0], [boxes(walker(0))])[0]
    assert answer.id.tolist() == [1]
    assert answer.age_s.tolist() == [0.0]
    assert not answer.confirmed.any()
    assert not tracker.rejected


def test_time_that_jumps_back_counts_as_no_time_and_goes_on_from_there() -> None:
    """A clock set back is counted; ages do not shrink, and the steps after it are right again."""
    tracker = Tracker()
    ages = [float(tracker.update(["dock"], [t], [boxes(walker(0))])[0].age_s[0]) for t in (10.0, 10.1, 3.0, 3.1)]
    assert ages == pytest.approx([0.0, 0.1, 0.1, 0.2], abs=1e-6)
    assert dict(tracker.rejected) == {"time_back": 1}


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_time_that_is_no_number_counts_as_no_time(bad: float) -> None:
    """NaN and infinite times are counted and change nothing about the clock."""
    tracker = Tracker()
    ages = [float(tracker.update(["dock"], [t], [boxes(walker(0))])[0].age_s[0]) for t in (1.0, bad, 1.1)]
    assert ages == pytest.approx([0.0, 0.0, 0.1], abs=1e-6)
    assert dict(tracker.rejected) == {"time_bad": 1}


def test_a_leap_forward_ends_the_tracks() -> None:
    """After an hour without frames nobody is believed to be still there."""
    tracker = Tracker()
    for t in (0.0, 0.1, 0.2, 3600.0):
        answer = tracker.update(["dock"], [t], [boxes(walker(0)) if t < 1 else Detections.empty()])[0]
    assert len(answer) == 0


def test_five_thousand_detections_are_cut_to_the_best() -> None:
    """A crowd beyond max_detections keeps its best scores and counts the rest; the next frame is ordinary."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.9, (5000, 2))
    score = rng.uniform(0.2, 1.0, 5000)
    crowd = Detections(
        np.concatenate([corner, corner + np.array([0.02, 0.05])], axis=1).astype(np.float32),
        score.astype(np.float32),
        np.zeros(5000, np.int32),
    )
    tracker = Tracker()
    for k in range(3):
        answer = tracker.update(["dock"], [k / 10], [crowd])[0]
    most = tracker.config.max_detections
    assert 0 < len(answer) <= most
    assert tracker.rejected["crowded"] == 3 * (5000 - most)
    assert score[answer.detection].min() >= np.sort(score)[-most] - 1e-6


def test_identical_boxes_do_not_explode() -> None:
    """A thousand copies of one box, every frame, are survived."""
    tracker = Tracker(TrackerConfig(max_detections=300))
    copies = boxes(*[walker(0)] * 1000)
    for k in range(3):
        answer = tracker.update(["dock"], [k / 10], [copies])[0]
    assert len(np.unique(answer.id)) == len(answer)


def test_calls_that_make_no_sense_are_refused_and_leave_the_tracker_alone() -> None:
    """Wrong lengths, a camera twice, an aspect of nothing and two embedding widths raise ValueError."""
    tracker = Tracker()
    tracker.update(["dock"], [0.0], [boxes(walker(0))])
    one = boxes(walker(0))
    wide, narrow = (Detections(one.xyxy, one.score, one.label, np.ones((1, d), np.float32)) for d in (8, 4))
    for args in (
        (["dock"], [], [one]),
        (["dock", "dock"], [0.1, 0.1], [one, one]),
        (["dock"], [0.1], [one], [0.0]),
        (["dock"], [0.1], [one], [NAN]),
        (["dock"], [0.1], [one], [1.0, 1.0]),
        (["dock", "yard"], [0.1, 0.1], [wide, narrow]),
    ):
        with pytest.raises(ValueError, match="Tracker"):
            tracker.update(*args)
    assert tracker.update(["dock"], [0.1], [one])[0].id.tolist() == [1]
    assert tracker.update([], [], []) == []


@pytest.mark.parametrize("bad", [{"lost_s": NAN}, {"score_low": -1.0}, {"score_new": 2.0}, {"measure_std": 0.0}])
def test_a_config_out_of_bounds_is_refused(bad: dict[str, float]) -> None:
    """Every constant is checked at construction, and the message names it."""
    with pytest.raises(ValueError, match=f"TrackerConfig.*{next(iter(bad))}"):
        TrackerConfig(**bad)


number = st.one_of(
    st.floats(-0.5, 1.5), st.floats(allow_nan=True, allow_infinity=True, width=32), st.sampled_from([0.0, 1.0, 0.5])
)
detection = st.tuples(number, number, number, number, number, st.integers(-2, 9))
frame = st.tuples(st.floats(-1.0, 2.0) | st.just(NAN), st.lists(detection, max_size=8))


@settings(max_examples=60, deadline=None)
@given(st.lists(frame, max_size=12), st.lists(frame, max_size=12))
def test_whatever_comes_the_answer_is_sound(left: list, right: list) -> None:
    """Any mix of boxes, scores, labels and clock steps gives finite boxes, unique ids and honest rows."""
    tracker = Tracker()
    seen: dict[str, set[int]] = {"left": set(), "right": set()}
    for a, b in zip(left, right, strict=False):
        pictures, times = [], []
        for step, rows in (a, b):
            table = np.array(rows, np.float64).reshape(len(rows), 6)
            with np.errstate(over="ignore"):
                pictures.append(
                    Detections(
                        table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int32)
                    )
                )
            times.append(step)
        for camera, answer, picture in zip(seen, tracker.update(list(seen), times, pictures), pictures, strict=True):
            assert np.isfinite(answer.xyxy).all()
            assert (answer.xyxy[:, 2:] > answer.xyxy[:, :2]).all()
            assert np.isfinite(answer.velocity_per_s).all()
            assert len(set(answer.id.tolist())) == len(answer)
            assert (answer.age_s >= 0).all()
            assert (answer.since_seen_s >= 0).all()
            matched = answer.detection[answer.detection >= 0]
            assert len(set(matched.tolist())) == len(matched)
            assert (matched < len(picture)).all()
            assert (answer.since_seen_s[answer.detection >= 0] == 0).all()
            born = set(answer.id[answer.age_s == 0].tolist()) if len(answer) else set()
            assert all(i > max(seen[camera], default=0) for i in born - seen[camera])
            seen[camera] |= set(answer.id.tolist())


def test_a_score_on_the_threshold_passes_it() -> None:
    """0.7 is 0.7, also where the detector says so in 32 bits."""
    tracker = Tracker(TrackerConfig(score_new=0.7))
    assert len(tracker.update(["dock"], [0.0], [boxes(walker(0), score=0.7)])[0]) == 1

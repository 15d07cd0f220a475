"""The tracker keeps identities: through time, misses, crossings, class flips, cameras and absences."""

from __future__ import annotations

import numpy as np
import pytest

from tests.streamer.tracking.track_scenes import boxes, looking, walker
from vedette.engines.api import LABELS, Detections
from vedette.streamer.tracking.tracker import Tracker, TrackerConfig
from vedette.streamer.types import Tracks

CAR, TRUCK = LABELS.index("car"), LABELS.index("truck")


def follow(tracker: Tracker, frames: list[tuple[float, Detections]], camera: str = "dock") -> list[Tracks]:
    """Feed (time, detections) to one camera."""
    return [tracker.update([camera], [t], [d])[0] for t, d in frames]


def confirmed_ids(answers: list[Tracks]) -> set[int]:
    """Every id that was ever confirmed."""
    return {int(i) for a in answers for i in a.id[a.confirmed]}


@pytest.mark.parametrize("rate_hz", [2, 5, 10, 30, 60])
def test_a_walker_keeps_one_id_at_every_frame_rate(rate_hz: int) -> None:
    """A person walking a third of a body height a second has one id from 2 to 60 frames a second."""
    tracker = Tracker()
    answers = follow(tracker, [(k / rate_hz, boxes(walker(k / rate_hz, vx=0.05))) for k in range(6 * rate_hz)])
    assert confirmed_ids(answers) == {1}
    assert answers[-1].confirmed.all()


def test_the_first_sighting_is_tentative_and_the_second_confirms() -> None:
    """An object seen once is unconfirmed; the flag turns after confirm_hits sightings over confirm_s."""
    one, two = follow(Tracker(), [(0.0, boxes(walker(0))), (0.1, boxes(walker(0.1)))])
    assert not one.confirmed.any()
    assert two.confirmed.all()
    assert one.id.tolist() == two.id.tolist()


def test_confirming_takes_time_and_not_only_frames() -> None:
    """Two sightings 1/100 s apart are not yet confirmed when confirm_s asks for more."""
    tracker = Tracker(TrackerConfig(confirm_hits=2, confirm_s=0.1))
    answers = follow(tracker, [(t, boxes(walker(t))) for t in (0.0, 0.01, 0.05, 0.11)])
    assert [bool(a.confirmed.all()) for a in answers] == [False, False, False, True]


def test_a_weak_detection_starts_nothing_but_continues_a_track() -> None:
    """A score below score_new begins no track; a weak score in the right place keeps one alive."""
    assert len(follow(Tracker(), [(0.0, boxes(walker(0), score=0.3))])[0]) == 0
    frames = [(k / 10, boxes(walker(k / 10), score=0.9 if k < 5 else 0.3)) for k in range(10)]
    last = follow(Tracker(), frames)[-1]
    assert last.id.tolist() == [1]
    assert last.detection.tolist() == [0]


def test_an_unseen_track_coasts_along_its_course_and_then_ends() -> None:
    """While unseen a track moves on, says since when, and is gone after lost_s."""
    tracker = Tracker()
    follow(tracker, [(k / 10, boxes(walker(k / 10))) for k in range(20)])
    before = tracker.update(["dock"], [2.0], [Detections.empty()])[0]
    after = tracker.update(["dock"], [2.4], [Detections.empty()])[0]
    assert before.detection.tolist() == [-1]
    assert after.since_seen_s[0] == pytest.approx(0.5, abs=1e-3)
    assert after.xyxy[0, 0] > before.xyxy[0, 0]
    gone = tracker.update(["dock"], [1.9 + tracker.config.lost_s + 0.2], [Detections.empty()])[0]
    assert len(gone) == 0


def test_an_object_comes_out_of_a_short_occlusion_with_its_id() -> None:
    """Half a second behind a pillar does not change who somebody is."""
    frames = [(k / 10, boxes(walker(k / 10)) if not 15 <= k < 20 else Detections.empty()) for k in range(35)]
    assert confirmed_ids(follow(Tracker(), frames)) == {1}


def test_people_who_cross_keep_their_ids() -> None:
    """Two walkers of different height who pass through each other are not swapped."""
    tracker = Tracker()
    ids: dict[int, list[int]] = {}
    for k in range(90):
        t = k / 15
        right, left = walker(t, x0=0.1, vx=0.1), walker(t, x0=0.7, vx=-0.1, h=0.36)
        answer = tracker.update(["dock"], [t], [boxes(right, left, score=[0.95, 0.7])])[0]
        for row in range(len(answer)):
            ids.setdefault(int(answer.detection[row]), []).append(int(answer.id[row]))
    assert set(ids[0]) == {1}
    assert set(ids[1]) == {2}


def test_velocity_is_in_picture_widths_and_heights_a_second() -> None:
    """A box moving 0.1 widths a second says so, whatever the picture's aspect and frame rate."""
    for rate_hz, aspect in ((10, 16 / 9), (25, 4 / 3), (10, 0.5)):
        tracker = Tracker()
        for k in range(4 * rate_hz):
            t = k / rate_hz
            answer = tracker.update(["dock"], [t], [boxes(walker(t, vx=0.1))], [aspect])[0]
        assert answer.velocity_per_s[0] == pytest.approx([0.1, 0.0], abs=0.01)
        assert answer.xyxy[0] == pytest.approx(walker(t, vx=0.1), abs=0.01)


def test_irregular_and_dropped_frames_are_ordinary() -> None:
    """Random steps from 1/60 s to 1/2 s give the same identity and the same speed."""
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.choice([1 / 60, 1 / 30, 1 / 10, 1 / 2], 80))
    answers = follow(Tracker(), [(float(t), boxes(walker(float(t), vx=0.02))) for t in times])
    assert confirmed_ids(answers) == {1}
    assert answers[-1].velocity_per_s[0, 0] == pytest.approx(0.02, abs=0.005)


def test_a_class_flip_within_a_group_keeps_the_id_and_the_majority_names_it() -> None:
    """A car called truck for two frames stays the same car; a person is never the same thing as a car."""
    labels = [CAR, CAR, CAR, TRUCK, TRUCK, CAR, CAR, CAR]
    answers = follow(Tracker(), [(k / 10, boxes(walker(k / 10), label=n)) for k, n in enumerate(labels)])
    assert confirmed_ids(answers) == {1}
    assert {int(a.label[0]) for a in answers} == {CAR}
    answers = follow(Tracker(), [(k / 10, boxes(walker(k / 10), label=0 if k < 4 else CAR)) for k in range(8)])
    assert confirmed_ids(answers) == {1, 2}


def test_cameras_in_one_call_do_not_know_each_other() -> None:
    """Tracking cameras together gives exactly what tracking each alone gives, ids included."""
    rng = np.random.default_rng(0)
    script = []
    for k in range(40):
        pictures = []
        for c in range(5):
            rows = [walker(k / 10, x0=0.05 + 0.2 * i, y0=0.1 * c, vx=0.02) for i in range(c)]
            pictures.append(boxes(*[r for r in rows if rng.random() > 0.1]) if rows else Detections.empty())
        script.append((k / 10, pictures))
    names = ["a", "b", "c", "d", "e"]
    together, alone = Tracker(), [Tracker() for _ in names]
    for t, pictures in script:
        order = rng.permutation(5)[: rng.integers(3, 6)]
        joint = together.update([names[i] for i in order], [t] * len(order), [pictures[i] for i in order])
        for answer, i in zip(joint, order, strict=True):
            single = alone[i].update([names[i]], [t], [pictures[i]])[0]
            assert answer.id.tolist() == single.id.tolist()
            assert np.array_equal(answer.xyxy, single.xyxy)
            assert np.array_equal(answer.confirmed, single.confirmed)
            assert np.array_equal(answer.detection, single.detection)


def test_reset_forgets_tracks_and_never_reuses_ids() -> None:
    """After a reset the same object is a new track with a new id, and its clock may start again."""
    tracker = Tracker()
    follow(tracker, [(100 + k / 10, boxes(walker(0))) for k in range(5)])
    tracker.update(["other"], [0.0], [boxes(walker(0))])
    tracker.reset("dock")
    assert len(tracker) == 1
    answers = follow(tracker, [(k / 10, boxes(walker(0))) for k in range(5)])
    assert confirmed_ids(answers) == {2}
    assert not tracker.rejected


def test_a_forgotten_camera_that_returns_goes_on_counting() -> None:
    """forget() drops a camera's tracks; its ids are not used again when it is added once more."""
    tracker = Tracker()
    follow(tracker, [(k / 10, boxes(walker(0))) for k in range(3)])
    tracker.forget("dock")
    tracker.forget("never seen")
    follow(tracker, [(k / 10, boxes(walker(0))) for k in range(3)], camera="yard")
    assert confirmed_ids(follow(tracker, [(k / 10, boxes(walker(0))) for k in range(3)])) == {2}


def absence(tracker: Tracker, look_before: np.ndarray, look_after: np.ndarray, gap_s: float) -> set[int]:
    """Ids confirmed when somebody leaves on the left and somebody enters on the right ``gap_s`` later."""
    frames = [(k / 10, looking(boxes(walker(0)), look_before)) for k in range(10)]
    frames += [(1 + k / 10, Detections.empty(8)) for k in range(round(gap_s * 10))]
    frames += [(1 + gap_s + k / 10, looking(boxes(walker(0, x0=0.8)), look_after)) for k in range(10)]
    return confirmed_ids(follow(tracker, frames))


def test_a_person_who_left_returns_under_the_old_id_by_appearance() -> None:
    """The same look elsewhere, seconds later, is the same id; nobody ever saw another one confirmed."""
    look = np.eye(8)[:1]
    assert absence(Tracker(), look, look, gap_s=6.0) == {1}
    assert absence(Tracker(), look, look, gap_s=0.5) == {1}


@pytest.mark.parametrize("gap_s", [0.5, 6.0])
def test_a_return_keeps_the_older_id_and_says_so_once(gap_s: float) -> None:
    """The picture that confirms the newcomer says how long it was away, no other does, and its age is the old one's."""
    look, tracker = np.eye(8)[:1], Tracker()
    frames = [(k / 10, looking(boxes(walker(0)), look)) for k in range(10)]
    again = [(0.9 + gap_s + k / 10, looking(boxes(walker(0, x0=0.8)), look)) for k in range(5)]
    first, second = follow(tracker, frames), follow(tracker, again)
    said = [float(s) for a in [*first, *second] if a.returned_s is not None for s in a.returned_s if s > 0]
    assert said == [pytest.approx(gap_s, abs=1e-3)]
    last = second[-1]
    assert last.id[last.detection >= 0].tolist() == [1]
    assert last.age_s.max() == pytest.approx(0.9 + gap_s + 0.4, abs=1e-3)


def test_a_stranger_does_not_inherit() -> None:
    """Another look, or the same look after remember_s, is another id."""
    look, other = np.eye(8)[:1], np.eye(8)[1:2]
    assert absence(Tracker(), look, other, gap_s=6.0) == {1, 2}
    assert absence(Tracker(TrackerConfig(remember_s=3.0)), look, look, gap_s=6.0) == {1, 2}


def test_two_look_alikes_are_not_guessed_between() -> None:
    """When two remembered tracks look the same, a newcomer that looks like both gets its own id."""
    look = np.eye(8)[:1]
    tracker = Tracker()
    twins = looking(boxes(walker(0), walker(0, x0=0.5)), np.repeat(look, 2, axis=0))
    answers = follow(tracker, [(k / 10, twins) for k in range(5)])
    answers += follow(tracker, [(5 + k / 10, looking(boxes(walker(0, x0=0.8)), look)) for k in range(5)])
    assert confirmed_ids(answers) == {1, 2, 3}


def test_appearance_holds_identities_apart_where_boxes_cannot() -> None:
    """Two people on the same spot, seen in either order, keep their ids by their looks."""
    looks = np.eye(8)[:2]
    tracker = Tracker()
    near = [walker(0), walker(0, x0=0.115)]
    owners: list[dict[int, int]] = []
    for k in range(20):
        swap = k >= 10
        rows, e = (near[::-1], looks) if swap else (near, looks)
        answer = tracker.update(["dock"], [k / 10], [looking(boxes(*rows), e)])[0]
        owners.append({int(d): int(i) for d, i in zip(answer.detection, answer.id, strict=True) if d >= 0})
    assert owners[9] == owners[-1] == {0: 1, 1: 2}


def test_a_camera_without_embeddings_may_sit_beside_one_with() -> None:
    """Embeddings are used where they are: a call may mix cameras with and without."""
    tracker = Tracker()
    for k in range(5):
        d = looking(boxes(walker(k / 10)), np.eye(8)[:1])
        with_look, without = tracker.update(["a", "b"], [k / 10] * 2, [d, boxes(walker(k / 10))])
    assert with_look.id.tolist() == without.id.tolist() == [1]


def test_the_same_input_gives_the_same_output() -> None:
    """Two trackers fed alike answer alike, bit for bit."""
    rng = np.random.default_rng(5)
    frames = []
    for k in range(30):
        corner = rng.uniform(0, 0.5, (20, 2))
        frames.append((k / 10, boxes(*np.concatenate([corner, corner + np.array([0.1, 0.2])], axis=1))))
    for a, b in zip(follow(Tracker(), frames), follow(Tracker(), frames), strict=True):
        assert a.id.tolist() == b.id.tolist()
        assert a.xyxy.tobytes() == b.xyxy.tobytes()


def test_a_small_picture_and_a_crowd_are_searched_to_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dense pass for few boxes and the sweep for many find the same matches: the answers are equal, bit for bit."""
    rng = np.random.default_rng(9)
    corner = rng.uniform(0, 0.8, (40, 2))
    frames = []
    for k in range(25):
        corner += rng.normal(0, 0.01, corner.shape)
        kept = rng.random(40) > 0.1
        rows = np.concatenate([corner, corner + np.array([0.08, 0.2])], axis=1)[kept]
        frames.append((k / 10, boxes(*rows, score=rng.uniform(0.3, 1.0, len(rows)))))
    dense = follow(Tracker(), frames)
    monkeypatch.setattr("vedette.streamer.tracking.association.DENSE", 0)
    for a, b in zip(dense, follow(Tracker(), frames), strict=True):
        assert a.id.tolist() == b.id.tolist()
        assert a.detection.tolist() == b.detection.tolist()
        assert a.xyxy.tobytes() == b.xyxy.tobytes()
    assert max(len(a) for a in dense) > 30


def test_an_answer_does_not_change_afterwards() -> None:
    """What update returned is the caller's: later frames do not write into it."""
    tracker = Tracker()
    first = follow(tracker, [(0.0, boxes(walker(0)))])[0]
    copy = first.xyxy.copy()
    follow(tracker, [(k / 10, boxes(walker(k / 10))) for k in range(1, 10)])
    assert np.array_equal(first.xyxy, copy)

"""The one path from detections to events: pure, batched or not, through epochs and reloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vedette.engines.api import LABELS, Detections
from vedette.streamer.config import CameraSection
from vedette.streamer.infer.incidents import Moment
from vedette.streamer.infer.pipeline import Gate, Outcome, Pipeline
from vedette.streamer.types import Event, Tracks

GATE = [[0.3, 0.2], [0.9, 0.2], [0.9, 0.95], [0.3, 0.95]]
ZONE = {"kind": "zone", "zone": "gate"}


def section(**keys: Any) -> CameraSection:
    defaults: dict[str, Any] = {"source": "x.mp4", "zones": {"gate": GATE}, "rules": [ZONE]}
    return CameraSection.model_validate({**defaults, **keys})


def seen(*feet: tuple[float, float], score: float = 0.9, label: str = "person") -> Detections:
    """People 0.1 wide and 0.3 high."""
    boxes = [(x - 0.05, y - 0.3, x + 0.05, y) for x, y in feet]
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4),
        np.full(n, score, np.float32),
        np.full(n, LABELS.index(label), np.int32),
    )


class Show:
    """One camera of a pipeline at 10 pictures a second."""

    def __init__(self, pipeline: Pipeline, camera: str = "dock") -> None:
        self.pipeline, self.camera = pipeline, camera
        self.epoch, self.seq, self.mono_ns, self.source_s = 1, 0, 10**9, 0.0

    def moment(self) -> Moment:
        return Moment(self.camera, self.epoch, self.seq, self.mono_ns, self.source_s, 1000 + self.mono_ns / 1e9)

    def advance(self) -> None:
        self.seq, self.mono_ns, self.source_s = self.seq + 1, self.mono_ns + 10**8, self.source_s + 0.1

    def reconnect(self) -> None:
        self.epoch, self.seq, self.source_s = self.epoch + 1, 0, 0.0

    def run(self, pictures: int, *feet: tuple[float, float], **how: Any) -> list[Event]:
        events = []
        for _ in range(pictures):
            (outcome,) = self.pipeline.step([self.moment()], [seen(*feet, **how)])
            events += outcome.events
            self.advance()
        return events


def show(**keys: Any) -> Show:
    pipeline = Pipeline("site", "boot", LABELS)
    pipeline.configure("dock", section(**keys))
    return Show(pipeline)


INSIDE, OUTSIDE = (0.6, 0.8), (0.15, 0.8)


def story(events: Sequence[Event]) -> list[tuple[str, str]]:
    return [(event.rule, event.phase) for event in events]


def test_a_visit_becomes_events_with_one_id_and_counting_revs() -> None:
    """Start and end share the id, revs count from 0, the end carries peak and reason, ids are public."""
    camera = show()
    start, end = camera.run(20, INSIDE) + camera.pipeline.interrupt("dock", "end of file")
    assert (start.id, start.rev, end.rev, start.phase, end.phase) == (end.id, 0, 1, "start", "end")
    assert start.track_ids == ("dock/boot/1",)
    assert end.explain["reason"] == "end of file"
    assert end.score == end.explain["peak_score"] == pytest.approx(0.9)
    assert start.explain["since"] == end.explain["since"] < "1970-01-01T00:16:41.500Z"


def test_nothing_is_raised_for_a_label_nobody_asked_for() -> None:
    """Labels outside the camera's and its rules' classes never reach the tracker; a rule may ask for its own."""
    assert show().run(20, INSIDE, label="animal") == []
    camera = show(rules=[{**ZONE, "classes": ["animal"]}])
    assert story(camera.run(20, INSIDE, label="animal")) == [("zone:gate", "start")]
    assert story(show(rules=[{**ZONE, "classes": ["vehicle"]}]).run(20, INSIDE)) == []


def test_a_reconnect_ends_what_is_open_and_is_silent_about_who_stands_there() -> None:
    """A new epoch is a discontinuity: an end, other track ids, no second alert for the one who never moved."""
    camera = show()
    (start,) = camera.run(20, INSIDE)
    camera.mono_ns += 4 * 10**9
    camera.reconnect()
    (end,) = camera.run(40, INSIDE)
    assert (end.id, end.phase, end.explain["reason"]) == (start.id, "end", "reconnect")
    assert story(camera.run(20, INSIDE, OUTSIDE)) == []
    assert story(camera.run(20, INSIDE, (0.45, 0.8))) == [("zone:gate", "start")], "somebody else is no old friend"


def test_silence_ends_what_is_open_and_the_scene_re_arms() -> None:
    """When pictures stop the incident ends; when they go on, within the epoch, who is still there is silent."""
    camera = show()
    camera.run(20, INSIDE)
    (end,) = camera.pipeline.interrupt("dock", "no pictures")
    assert end.explain["reason"] == "no pictures"
    assert camera.run(20, INSIDE) == []
    assert camera.pipeline.interrupt("dock", "no pictures") == []


def test_a_reload_touches_only_the_rules_that_changed() -> None:
    """The unchanged rule keeps its open incident; the removed one ends; the new one is silent about who is there."""
    loiter = {"kind": "loiter", "zone": "gate", "seconds": 1}
    camera = show(rules=[ZONE, loiter])
    assert story(camera.run(30, INSIDE)) == [("zone:gate", "start"), ("loiter:gate", "start")]
    crowd = {"kind": "zone", "name": "second", "zone": "gate"}
    ended = camera.pipeline.configure("dock", section(rules=[ZONE, crowd], fps=5))
    assert story(ended) == [("loiter:gate", "end")]
    assert ended[0].explain["reason"] == "reload"
    assert story(camera.run(20, INSIDE)) == []
    assert story(camera.pipeline.remove("dock")) == [("zone:gate", "end")]


def test_a_moved_zone_is_another_rule() -> None:
    """The same rule on a zone that was redrawn starts anew."""
    camera = show()
    camera.run(20, INSIDE)
    moved = [[x, y - 0.01] for x, y in GATE]
    assert story(camera.pipeline.configure("dock", section(zones={"gate": moved}))) == [("zone:gate", "end")]


def test_a_reload_leaves_other_cameras_alone() -> None:
    """Configuring one camera changes neither the tracks nor the incidents of another."""
    camera = show()
    other = Show(camera.pipeline, "lobby")
    camera.pipeline.configure("lobby", section())
    camera.run(20, INSIDE)
    other.run(20, INSIDE)
    camera.pipeline.configure("lobby", section(rules=[]))
    assert camera.run(20, INSIDE) == []


def test_weak_tracks_are_not_reported() -> None:
    """Below min_score on average a track raises nothing and is not in the outcome."""
    weak = show(min_score=0.95)
    assert weak.run(20, INSIDE) == []
    (outcome,) = weak.pipeline.step([weak.moment()], [seen(INSIDE)])
    assert len(outcome.tracks) == 0
    assert story(show(min_score=0.85).run(20, INSIDE)) == [("zone:gate", "start")]


def test_the_gate_stays_open() -> None:
    """Once reported a track stays reported, however weak it becomes: nothing flickers."""
    gate = Gate(0.5)
    shown = [bool(gate(_one(score))[0]) for score in (0.4, 0.45, 0.9, 0.1, 0.1, 0.1)]
    assert shown == [False, False, True, True, True, True]


def _one(score: float) -> Tracks:
    f = np.array([score], np.float32)
    return Tracks(
        np.array([5]), np.zeros((1, 4), np.float32), np.zeros((1, 2), np.float32), f, np.zeros(1, np.int32), f, f,
        np.ones(1, bool), np.zeros(1, np.int32),
    )  # fmt: skip


def test_the_schedule_reads_the_injected_clock() -> None:
    """Awake or asleep is decided by the local time that was injected, not by this machine's clock."""
    for minute, expected in ((10 * 60, []), (23 * 60, [("zone:gate", "start")])):
        pipeline = Pipeline("site", "boot", LABELS, local=lambda _wall, minute=minute: (0, minute))
        pipeline.configure("dock", section(rules=[{**ZONE, "schedule": "22:00-06:00"}]))
        assert story(Show(pipeline).run(20, INSIDE)) == expected


def test_who_stands_there_at_the_first_start_is_reported_and_after_a_restart_is_not() -> None:
    """rearm is what tells a first life from a later one."""
    for rearm, expected in ((False, [("zone:gate", "start")]), (True, [])):
        pipeline = Pipeline("site", "boot", LABELS, rearm=rearm)
        pipeline.configure("dock", section())
        assert story(Show(pipeline).run(20, INSIDE)) == expected


def test_an_unknown_camera_is_left_out() -> None:
    """A picture of a camera that was removed gives nothing and disturbs nobody."""
    camera = show()
    gone = Moment("gone", 1, 0, 1, 0.0, 0.0)
    outcomes = camera.pipeline.step([gone, camera.moment()], [seen(INSIDE), seen(INSIDE)])
    assert [outcome.moment.camera for outcome in outcomes] == ["dock"]


_STEPS = st.lists(
    st.tuples(st.sampled_from("ab"), st.lists(st.tuples(st.floats(0.1, 0.9), st.floats(0.4, 1.0)), max_size=3)),
    max_size=40,
)


@settings(max_examples=25, deadline=None)
@given(_STEPS)
@example(
    [("a", []), ("a", []), ("b", [(0.5, 1.0), (0.5, 1.0)]), ("b", [(0.75, 1.0), (0.5, 1.0)])]
)  # two tracks worth the same
def test_how_pictures_are_batched_changes_nothing(steps: list[tuple[str, list[tuple[float, float]]]]) -> None:
    """Two cameras stepped one by one give exactly what they give stepped together."""
    queues: Mapping[str, list[Any]] = {name: [feet for camera, feet in steps if camera == name] for name in "ab"}
    together, apart = (Pipeline("s", "b", LABELS) for _ in range(2))
    for pipeline in (together, apart):
        for name in "ab":
            pipeline.configure(name, section())
    found: dict[str, list[Outcome]] = {"together": [], "apart": []}
    for i in range(max(len(queue) for queue in queues.values())):
        now = [(name, queue[i]) for name, queue in queues.items() if i < len(queue)]
        moments = [Moment(name, 1, i, i * 10**8, i / 10, i / 10) for name, _ in now]
        detections = [seen(*feet) for _, feet in now]
        found["together"] += together.step(moments, detections)
        for moment, detected in zip(moments, detections, strict=True):
            found["apart"] += apart.step([moment], [detected])
    for left, right in zip(found["together"], found["apart"], strict=True):
        assert left.moment == right.moment
        assert left.events == right.events
        np.testing.assert_array_equal(left.tracks.id, right.tracks.id)
        np.testing.assert_allclose(left.tracks.xyxy, right.tracks.xyxy, atol=1e-6)

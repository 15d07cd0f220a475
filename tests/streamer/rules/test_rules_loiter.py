"""The loiter rule: too long is measured from the first picture inside, through occlusions."""

from __future__ import annotations

import pytest

from tests.streamer.rules.rule_scenes import INSIDE, OUTSIDE, Stage, phases

LOITER = {"kind": "loiter", "zone": "gate", "seconds": 2}


def test_it_raises_when_the_time_is_up_and_not_before() -> None:
    """With 2 s nothing is raised at 1.9 s of presence, and the start comes with the picture at 2.0 s."""
    stage = Stage(LOITER)
    assert stage.show({1: INSIDE}, 20) == []
    (start,) = stage.show({1: INSIDE}, 1)
    assert start.explain["dwell_s"] == pytest.approx(2.0)
    assert start.explain["threshold_s"] == 2.0
    assert stage.show({1: INSIDE}, 200) == []


def test_it_ends_with_the_whole_stay_and_the_peak() -> None:
    """The end carries how long the object really was inside and its best score."""
    stage = Stage(LOITER)
    stage.show({1: INSIDE}, 10, score=0.95)
    stage.show({1: INSIDE}, 31, score=0.5)
    (end,) = stage.show({1: OUTSIDE}, 20)
    assert end.phase == "end"
    assert end.explain["duration_s"] == pytest.approx(4.0)
    assert end.score == pytest.approx(0.95)


def test_a_passer_by_is_not_reported() -> None:
    """Leaving before the time is up raises nothing, and the next visit starts at zero."""
    stage = Stage(LOITER)
    signals = []
    for _ in range(5):
        signals += stage.show({1: INSIDE}, 15)
        signals += stage.show({1: OUTSIDE}, 10)
    assert signals == []


def test_time_runs_through_an_occlusion_and_a_new_number() -> None:
    """Half a stay under one number and half under the next is one stay."""
    stage = Stage(LOITER)
    stage.show({1: INSIDE}, 12)
    stage.show({}, 5)
    signals = stage.show({2: INSIDE}, 12, age_s=0.2)
    assert phases(signals) == ["start"]
    assert signals[0].tracks == (1, 2)


def test_time_is_measured_in_seconds_not_pictures() -> None:
    """At one picture a second the same 2 s hold."""
    stage = Stage(LOITER, fps=1)
    assert stage.show({1: INSIDE}, 2) == []
    assert phases(stage.show({1: INSIDE}, 1)) == ["start"]


def test_nobody_is_accused_while_out_of_sight() -> None:
    """The start waits for a picture that shows the object inside."""
    stage = Stage(LOITER)
    stage.show({1: INSIDE}, 15)
    assert stage.show({1: INSIDE}, 20, unseen=frozenset({1})) == []
    assert phases(stage.show({1: INSIDE}, 1)) == ["start"]


def test_who_stays_until_the_schedule_begins_is_reported_then() -> None:
    """A loiterer of the idle hours is reported when the rule wakes up, because the condition still holds."""
    stage = Stage(LOITER)
    assert stage.show({1: INSIDE}, 100, awake=False) == []
    assert phases(stage.show({1: INSIDE}, 2)) == ["start"]


def test_after_a_restart_time_starts_anew() -> None:
    """What was inside before a restart raises nothing by itself; only a whole further stay does, and says so."""
    stage = Stage(LOITER, rearm=True)
    assert stage.show({1: INSIDE}, 20, age_s=0.1) == []
    (start,) = stage.show({1: INSIDE}, 1)
    assert start.explain["rearmed"] is True


def test_who_was_reported_before_a_reconnect_is_not_reported_again() -> None:
    """A flapping camera does not repeat a loiterer who still stands where he stood."""
    stage = Stage(LOITER)
    assert phases(stage.show({1: INSIDE, 2: OUTSIDE}, 30)) == ["start"]
    assert phases(stage.rule.drop(stage.now, "reconnect")) == ["end"]
    stage.start_s, stage.rearm = stage.now, True
    assert stage.show({7: (0.51, 0.5)}, 100, age_s=0.1) == []
    assert stage.show({7: OUTSIDE}, 20) == []
    assert phases(stage.show({7: INSIDE}, 30)) == ["start"]


def test_each_visitor_has_a_clock_of_its_own() -> None:
    """Two visitors who came a second apart are reported a second apart."""
    stage = Stage(LOITER)
    stage.show({1: INSIDE, 2: OUTSIDE}, 10)
    stage.show({1: INSIDE, 2: (0.3, 0.5)}, 10)
    assert [s.tracks for s in stage.show({1: INSIDE, 2: (0.3, 0.5)}, 1)] == [(1,)]
    assert [s.tracks for s in stage.show({1: INSIDE, 2: (0.3, 0.5)}, 10)] == [(2,)]

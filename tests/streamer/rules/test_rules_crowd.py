"""The crowd rule: enough people for long enough, steady against dips."""

from __future__ import annotations

import pytest

from tests.streamer.rules.rule_scenes import OUTSIDE, Stage, phases

CROWD = {"kind": "crowd", "zone": "gate", "count": 3, "seconds": 1}


def people(n: int) -> dict[int, tuple[float, float]]:
    return {k + 1: (0.25 + 0.1 * k, 0.5) for k in range(n)}


def test_enough_for_long_enough_starts_and_too_few_ends() -> None:
    """Three for a second is a crowd; it ends two seconds after it has dispersed, with its peak."""
    stage = Stage(CROWD)
    assert stage.show(people(2), 30) == []
    signals = stage.show(people(3), 20)
    assert phases(signals) == ["start"]
    assert signals[0].tracks == (1, 2, 3)
    assert signals[0].explain["count"] == 3
    gone = {1: (0.25, 0.5), 2: OUTSIDE, 3: OUTSIDE}
    (end,) = stage.show(gone, 60)
    assert end.phase == "end"
    assert end.explain["peak_count"] == 3
    assert end.explain["reason"] == "dispersed"


def test_short_is_no_crowd() -> None:
    """Less than the time is nothing."""
    stage = Stage(CROWD)
    assert stage.show(people(3), 9) + stage.show(people(2), 50) == []


def test_somebody_hidden_for_a_moment_still_counts() -> None:
    """A detection missed for under a second does not restart the clock nor end the incident."""
    stage = Stage({**CROWD, "seconds": 3})
    signals = []
    for _ in range(10):
        signals += stage.show(people(3), 4)
        signals += stage.show(people(2), 4)
    assert phases(signals) == ["start"]


def test_growth_is_an_update() -> None:
    """A crowd that grows says so, at most once a second, under the same key."""
    stage = Stage(CROWD)
    (start,) = stage.show(people(3), 20)
    (update,) = stage.show(people(5), 20)
    assert (update.phase, update.key, update.explain["count"]) == ("update", start.key, 5)


def test_without_a_zone_the_whole_picture_counts() -> None:
    """The zone is optional."""
    stage = Stage({"kind": "crowd", "count": 2})
    assert phases(stage.show({1: (0.05, 0.3), 2: (0.95, 0.99)}, 5)) == ["start"]


def test_cooldown_is_the_rules() -> None:
    """A second crowd within the cool-down is silent until the cool-down is over."""
    stage = Stage({**CROWD, "cooldown": 20})
    assert phases(stage.show(people(3), 20) + stage.show({}, 80)) == ["start", "end"]
    assert stage.show(people(3), 50) == []
    assert phases(stage.show(people(3), 150)) == ["start"]


def test_a_crowd_reported_before_a_reconnect_is_not_reported_again() -> None:
    """Until it has dispersed once, the crowd of before the reconnect stays reported."""
    stage = Stage(CROWD)
    stage.show(people(3), 20)
    (end,) = stage.rule.drop(stage.now, "reconnect")
    assert end.explain["peak_count"] == 3
    assert end.score == pytest.approx(0.8)
    stage.start_s, stage.rearm = stage.now, True
    assert stage.show(people(3), 50, age_s=0.1) == []
    assert stage.show({}, 60) == []
    assert phases(stage.show(people(3), 20)) == ["start"]

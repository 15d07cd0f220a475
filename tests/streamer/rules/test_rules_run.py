"""The run rule: own heights a second, sustained, not fooled by boxes that jump."""

from __future__ import annotations

import pytest

from tests.streamer.rules.rule_scenes import HEIGHT, Stage, phases

RUN = {"kind": "run", "speed": 1.6, "seconds": 1}


def dash(stage: Stage, speed: float, seconds: float, *, start: float = 0.2, number: int = 1, **how: object) -> list:
    """Signals of somebody who goes to the right at ``speed`` heights a second."""
    signals = []
    for k in range(round(seconds / stage.step_s) + 1):
        x = start + speed * HEIGHT * k * stage.step_s / (16 / 9)
        signals += stage.show({number: (x, 0.6)}, **how)
    return signals


@pytest.mark.parametrize("fps", [5, 10, 25])
def test_a_runner_is_told_after_the_time_and_a_walker_never(fps: float) -> None:
    """2.2 heights a second for a second starts, at any rate of pictures; 1.2 does not."""
    (start,) = dash(Stage(RUN, fps=fps), 2.2, 1.3)
    assert start.phase == "start"
    speed, held = start.explain["checks"]
    assert speed["value"] == pytest.approx(2.2, rel=0.05)
    assert speed["met"]
    assert held["value"] == pytest.approx(1.0, abs=0.3)
    (first_ago_s, *first), (last_ago_s, *last) = start.explain["path"][0], start.explain["path"][-1]
    assert first_ago_s - last_ago_s == pytest.approx(1.0, abs=0.25)
    assert last[0] - first[0] == pytest.approx(2.2 * HEIGHT * (first_ago_s - last_ago_s) / (16 / 9), abs=0.01)
    assert first[1] == last[1] == pytest.approx(0.6 - HEIGHT / 2)
    assert dash(Stage(RUN, fps=fps), 1.2, 3) == []


def test_it_ends_when_the_runner_is_slow_or_gone() -> None:
    """The end comes a while after the last fast moment, with the duration."""
    stage = Stage(RUN)
    assert phases(dash(stage, 2.5, 1.5)) == ["start"]
    (end,) = stage.show({}, 20)
    assert end.phase == "end"
    assert end.explain["reason"] == "slow or gone"
    assert end.explain["duration_s"] == pytest.approx(1.5, abs=0.2)


def test_one_jump_of_a_box_is_no_sprint() -> None:
    """Standing, a jump of three heights within a picture, standing: nobody ran."""
    stage = Stage(RUN)
    signals = stage.show({1: (0.2, 0.6)}, 15)
    signals += stage.show({1: (0.2 + 3 * HEIGHT / (16 / 9), 0.6)}, 30)
    assert signals == []


def test_a_trembling_box_has_no_speed() -> None:
    """To and fro by a third of a height at every picture is standing still."""
    stage = Stage(RUN)
    assert [s for k in range(60) for s in stage.show({1: (0.5 + (0.03 if k % 2 else 0.0), 0.6)})] == []


def test_short_sprints_and_sleeping_hours_are_silent() -> None:
    """Less than the time, or outside the schedule, is nothing."""
    assert dash(Stage(RUN), 2.5, 0.6) == []
    assert dash(Stage(RUN), 2.5, 1.5, awake=False) == []


def test_the_cooldown_is_the_runners() -> None:
    """The same runner within the cool-down is silent; another one is told."""
    stage = Stage({**RUN, "cooldown": 60})
    assert phases(dash(stage, 2.5, 1.5)) == ["start"]
    assert phases(stage.show({1: (0.6, 0.6)}, 30)) == ["end"]
    assert dash(stage, 2.5, 1.5, start=0.1) == []
    assert phases(dash(stage, 2.5, 1.5, start=0.1, number=2)) == ["start"]


def test_dropping_ends_what_is_open() -> None:
    """A reconnect ends the run and forgets the runner."""
    stage = Stage(RUN)
    dash(stage, 2.5, 1.5)
    (end,) = stage.rule.drop(stage.now, "reconnect")
    assert (end.phase, end.explain["reason"]) == ("end", "reconnect")
    assert stage.rule.drop(stage.now, "reconnect") == []

"""The line rule: clear on both sides, through the segment, never by a flicker."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.streamer.rules.rule_scenes import DOOR, HEIGHT, Stage, phases
from vedette.streamer.rules.line import CLEAR_HEIGHTS

BOTH = {"kind": "line", "line": "door"}
ABOVE, BELOW = (0.5, 0.4), (0.5, 0.6)


def walk(start: tuple[float, float], stop: tuple[float, float], n: int = 9) -> list[tuple[float, float]]:
    return [(start[0] + (stop[0] - start[0]) * k / n, start[1] + (stop[1] - start[1]) * k / n) for k in range(n + 1)]


def cross(rule: dict, path: list[tuple[float, float]], **how: object) -> list:
    stage = Stage(rule)
    return [signal for point in path for signal in stage.show({1: point}, **how)]


def test_in_is_from_the_left_hand_to_the_right_hand() -> None:
    """The door runs from left to right, so walking down the picture is ``in``: start and end in one picture."""
    signals = cross(BOTH, walk(ABOVE, BELOW))
    assert phases(signals) == ["start", "end"]
    explain = signals[0].explain
    assert (explain["direction"], explain["from"], explain["to"]) == ("in", "left", "right")
    assert explain["crossed_at"] == pytest.approx([0.5, 0.5], abs=1e-3)
    assert cross(BOTH, walk(BELOW, ABOVE))[0].explain["direction"] == "out"


@pytest.mark.parametrize(("direction", "path", "count"), [
    ("in", walk(ABOVE, BELOW), 1), ("in", walk(BELOW, ABOVE), 0),
    ("out", walk(ABOVE, BELOW), 0), ("out", walk(BELOW, ABOVE), 1),
    ("both", walk(ABOVE, BELOW) + walk(BELOW, ABOVE), 2),
])  # fmt: skip
def test_only_the_wanted_direction_counts(direction: str, path: list, count: int) -> None:
    """``in``, ``out`` and ``both`` count what they say."""
    signals = cross({**BOTH, "direction": direction}, path)
    assert phases(signals) == ["start", "end"] * count


def test_a_flicker_of_one_picture_never_counts_in_either_direction() -> None:
    """A box that jumps over the line and back counts neither the jump nor the return."""
    stage = Stage(BOTH)
    signals = []
    for _ in range(20):
        signals += stage.show({1: ABOVE}, 5)
        signals += stage.show({1: BELOW}, 1)
    assert signals == []


def test_a_flicker_at_birth_never_counts_backwards() -> None:
    """Somebody who walks in with one wrong picture at the very start has not crossed."""
    stage = Stage(BOTH)
    assert stage.show({1: ABOVE}, 1) + stage.show({1: BELOW}, 20) == []


def test_standing_on_the_line_counts_nothing_and_the_crossing_once() -> None:
    """Trembling on the line for ten seconds between two clear sides is one crossing."""
    stage = Stage(BOTH)
    signals = stage.show({1: ABOVE}, 5)
    for k in range(100):
        signals += stage.show({1: (0.5, 0.5 + (0.01 if k % 2 else -0.01))})
    assert signals == []
    assert phases(stage.show({1: BELOW}, 5)) == ["start", "end"]


def test_turning_back_on_the_line_counts_nothing() -> None:
    """Walking onto the line and back is no crossing."""
    assert cross(BOTH, walk(ABOVE, (0.5, 0.505)) + walk((0.5, 0.505), ABOVE)) == []


def test_passing_beside_the_segment_counts_nothing() -> None:
    """The path must meet the line between its end points; walking around the end is no crossing."""
    assert cross(BOTH, walk((0.9, 0.4), (0.9, 0.6))) == []
    around = walk((0.7, 0.4), (0.95, 0.4)) + walk((0.95, 0.4), (0.95, 0.6)) + walk((0.95, 0.6), (0.7, 0.6))
    assert cross(BOTH, around) == []


def test_an_unconfirmed_track_never_counts() -> None:
    """A crossing made while unconfirmed does not count, then or later."""
    stage = Stage(BOTH)
    signals = []
    for point in walk(ABOVE, BELOW):
        signals += stage.show({-1: point}, unconfirmed=frozenset({-1}))
    signals += stage.show({-1: BELOW}, 10)
    assert signals == []


def test_a_predicted_position_never_counts() -> None:
    """Coasting over the line counts only once the object is seen on the other side."""
    stage = Stage(BOTH)
    stage.show({1: ABOVE}, 5)
    assert stage.show({1: BELOW}, 10, unseen=frozenset({1})) == []
    assert phases(stage.show({1: BELOW}, 2)) == ["start", "end"]


def test_two_people_are_counted_apart() -> None:
    """Crossing at the same time in opposite directions is one in and one out."""
    stage = Stage(BOTH)
    signals = []
    for down, up in zip(walk(ABOVE, BELOW), walk((0.6, 0.6), (0.6, 0.4)), strict=True):
        signals += stage.show({1: down, 2: up})
    starts = [(s.tracks[0], s.explain["direction"]) for s in signals if s.phase == "start"]
    assert sorted(starts) == [(1, "in"), (2, "out")]


def test_cooldown_is_a_matter_of_one_person_and_direction() -> None:
    """Going to and fro within the cool-down counts once each way; somebody else counts."""
    rule = {**BOTH, "cooldown": 60}
    to_and_fro = (walk(ABOVE, BELOW) + walk(BELOW, ABOVE)) * 3
    assert phases(cross(rule, to_and_fro)).count("start") == 2
    stage = Stage(rule)
    signals = [s for n in (1, 2) for p in walk(ABOVE, BELOW) for s in stage.show({n: p})]
    assert phases(signals).count("start") == 2


def test_asleep_nothing_is_counted() -> None:
    """Outside its schedule the rule counts nothing, and nothing is counted late."""
    stage = Stage(BOTH)
    for point in walk(ABOVE, BELOW):
        assert stage.show({1: point}, awake=False) == []
    assert stage.show({1: BELOW}, 5) == []


def test_nothing_is_ever_left_open() -> None:
    """Dropping a line rule has nothing to end."""
    stage = Stage(BOTH)
    stage.show({1: ABOVE}, 5)
    assert stage.rule.drop(1.0, "reconnect") == []
    assert stage.show({1: BELOW}, 5) == [], "a crossing is never made of two epochs"


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(0.3, 0.7), min_size=1, max_size=60), st.integers(2, 4))
def test_directions_alternate_whatever_the_path(heights: list[float], hold: int) -> None:
    """One object crosses in and out in turn, never the same way twice, and ends on the side it was counted to."""
    stage = Stage(BOTH)
    signals = [s for y in heights for s in stage.show({1: (0.5, y)}, hold)]
    directions = [s.explain["direction"] for s in signals if s.phase == "start"]
    assert all(a != b for a, b in pairwise(directions))
    clear_of_it = CLEAR_HEIGHTS * HEIGHT
    assume(all(abs(abs(y - DOOR[0][1]) - clear_of_it) > 1e-5 for y in heights))  # rounding decides there
    clear = [y for y in heights if abs(y - DOOR[0][1]) > clear_of_it]
    if directions:
        assert directions[-1] == ("in" if clear[-1] > DOOR[0][1] else "out")

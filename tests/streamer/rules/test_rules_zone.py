"""The zone rule: once a visit, steady at the edge, silent after a restart."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.streamer.rules.rule_scenes import INSIDE, OUTSIDE, Stage, phases
from vedette.streamer.rules.view import Places

ENTER = {"kind": "zone", "zone": "gate"}
LEAVE = {"kind": "zone", "zone": "gate", "on": "leave"}


def test_a_visit_is_one_start_and_one_end() -> None:
    """Walking in, staying and walking out gives exactly start and end of one incident, with duration and peak."""
    stage = Stage(ENTER)
    signals = stage.show({1: OUTSIDE}, 5)
    signals += stage.show({1: INSIDE}, 10, score=0.9)
    signals += stage.show({1: INSIDE}, 10, score=0.6)
    signals += stage.show({1: OUTSIDE}, 20)
    assert phases(signals) == ["start", "end"]
    start, end = signals
    assert start.key == end.key
    assert start.tracks == (1,)
    assert end.score == pytest.approx(0.9)
    assert end.explain["reason"] == "left"
    assert end.explain["duration_s"] == pytest.approx(1.9)


def test_a_track_confirmed_inside_counts_once() -> None:
    """Somebody who is first seen inside, at a first start, is reported once however long the stay."""
    stage = Stage(ENTER)
    assert phases(stage.show({1: INSIDE}, 300, age_s=0.3)) == ["start"]


def test_one_wrong_picture_is_not_a_visitor() -> None:
    """A box that lies inside for a single picture raises nothing."""
    stage = Stage(ENTER)
    signals = stage.show({1: OUTSIDE}, 5)
    signals += stage.show({1: INSIDE})
    signals += stage.show({1: OUTSIDE}, 5)
    assert signals == []


def test_a_box_that_trembles_on_the_edge_enters_once() -> None:
    """Jumping over the edge every other picture is one visit, not many."""
    stage = Stage(ENTER)
    stage.show({1: (0.5, 0.9)}, 3)
    signals = stage.show({1: (0.5, 0.79)}, 3)
    for _ in range(100):
        signals += stage.show({1: (0.5, 0.81)})
        signals += stage.show({1: (0.5, 0.79)})
    assert phases(signals) == ["start"]


def test_a_predicted_position_neither_enters_nor_leaves() -> None:
    """Coasting boxes are guesses: they change nothing until the object is seen again."""
    stage = Stage(ENTER)
    stage.show({1: OUTSIDE}, 3)
    assert stage.show({1: INSIDE}, 10, unseen=frozenset({1})) == []
    assert phases(stage.show({1: INSIDE}, 3)) == ["start"]
    assert stage.show({1: OUTSIDE}, 10, unseen=frozenset({1})) == []
    assert stage.show({1: INSIDE}, 3) == []


def test_lost_for_some_seconds_ends_the_incident() -> None:
    """A visitor who vanishes inside ends the incident after 3 s, and says so."""
    stage = Stage(ENTER)
    stage.show({1: INSIDE}, 10)
    assert stage.show({}, 29) == []
    (end,) = stage.show({}, 3)
    assert (end.phase, end.explain["reason"]) == ("end", "lost")


def test_a_new_number_at_the_same_place_is_the_same_visitor() -> None:
    """An occlusion that costs the track its number continues the incident: an update, no second alert."""
    stage = Stage(ENTER)
    stage.show({1: INSIDE}, 10)
    stage.show({}, 10)
    signals = stage.show({2: (0.53, 0.5)}, 10, age_s=0.2)
    assert phases(signals) == ["update"]
    assert signals[0].tracks == (1, 2)
    assert phases(stage.show({2: OUTSIDE}, 20)) == ["end"]


def test_somebody_who_walks_in_is_never_taken_for_the_lost_one() -> None:
    """A track that was seen outside first is a visitor of its own, even where one was lost a moment ago."""
    stage = Stage(ENTER)
    stage.show({1: INSIDE, 2: OUTSIDE}, 10)
    stage.show({2: OUTSIDE}, 5)
    assert phases(stage.show({2: INSIDE}, 3)) == ["start"]


def test_somebody_first_seen_beside_the_visitor_is_somebody_else() -> None:
    """A track born in the last picture that shows the visitor never inherits that visit."""
    stage = Stage(ENTER)
    stage.show({1: INSIDE}, 10)
    stage.show({1: INSIDE, 2: (0.53, 0.5)}, age_s=0.0)
    assert phases(stage.show({2: (0.53, 0.5)}, 1, age_s=0.1)) == ["start"]


def test_two_numbers_seen_together_are_two_visitors() -> None:
    """When the lost one returns beside its supposed successor, the successor gets its own alert."""
    stage = Stage(ENTER)
    stage.show({1: INSIDE}, 10)
    stage.show({}, 5)
    stage.show({2: INSIDE}, 5, age_s=0.2)
    assert phases(stage.show({1: INSIDE, 2: (0.55, 0.5)}, 5)) == ["start"]


def test_who_was_there_before_a_restart_is_silent() -> None:
    """After a restart nobody who already stands inside is reported, but the next one who enters is."""
    stage = Stage(ENTER, rearm=True)
    assert stage.show({1: INSIDE}, 50, age_s=0.2) == []
    stage.show({1: INSIDE, 2: OUTSIDE}, 5)
    assert phases(stage.show({1: INSIDE, 2: INSIDE}, 5)) == ["start"]


def test_who_was_silent_is_reported_after_leaving_and_returning() -> None:
    """Re-armed silently means armed: a new visit of the same object raises."""
    stage = Stage(ENTER, rearm=True)
    stage.show({1: INSIDE}, 5, age_s=0.2)
    assert stage.show({1: OUTSIDE}, 20) == []
    assert phases(stage.show({1: INSIDE}, 5)) == ["start"]


def test_who_appears_later_is_reported_after_a_restart() -> None:
    """The silence of a restart covers its first moments only."""
    stage = Stage(ENTER, rearm=True)
    stage.show({}, 30)
    assert phases(stage.show({1: INSIDE}, 5, age_s=0.2)) == ["start"]


def test_hidden_for_long_under_one_number_is_no_second_entry() -> None:
    """A track lost inside and seen inside again under its number never left: no new alert."""
    stage = Stage(ENTER)
    assert phases(stage.show({1: INSIDE}, 5)) == ["start"]
    assert phases(stage.show({}, 100)) == ["end"]
    assert stage.show({1: INSIDE}, 20) == []


def test_leaving_is_reported_at_once_and_only_for_those_who_were_inside() -> None:
    """``on: leave`` starts and ends in one picture, half a second after the object is out."""
    stage = Stage(LEAVE)
    assert stage.show({1: OUTSIDE}, 10) == []
    assert stage.show({1: INSIDE}, 10) == []
    signals = stage.show({1: OUTSIDE}, 10)
    assert phases(signals) == ["start", "end"]
    assert signals[0].explain["inside_s"] == pytest.approx(0.9)


def test_lost_inside_is_not_leaving_unless_at_the_border() -> None:
    """Vanishing in the middle is no departure; vanishing at the picture's border is."""
    assert Stage(LEAVE).show({1: INSIDE}, 5) == []
    stage = Stage(LEAVE)
    stage.show({1: INSIDE}, 5)
    assert stage.show({}, 50) == []


def test_who_is_cut_off_by_the_border_stands_in_a_zone_drawn_up_to_it() -> None:
    """A box that ends on, or is predicted beyond, the lower border is inside a zone that reaches it."""
    for y in (1.0, 1.02):
        stage = Stage(ENTER)
        stage.rule = stage.config.rule(Places({"gate": [(0.0, 0.5), (1.0, 0.5), (1.0, 1.0), (0.0, 1.0)]}))
        assert phases(stage.show({1: (0.5, y)}, 3)) == ["start"]


def test_cooldown_silences_the_same_object_only() -> None:
    """Within the cool-down a returning object is silent, another one is not."""
    stage = Stage({**ENTER, "cooldown": 30})
    assert phases(stage.show({1: INSIDE}, 5)) == ["start"]
    assert phases(stage.show({1: OUTSIDE}, 10)) == ["end"]
    assert stage.show({1: INSIDE}, 5) == []
    stage.show({1: OUTSIDE, 2: OUTSIDE}, 10)
    assert phases(stage.show({1: OUTSIDE, 2: INSIDE}, 5)) == ["start"]
    stage.skip(60)
    stage.show({1: OUTSIDE}, 10)
    assert phases(stage.show({1: INSIDE}, 5)) == ["start"]


def test_asleep_nobody_is_reported_and_what_is_open_still_ends() -> None:
    """Outside the schedule nothing starts; an incident that began before ends when it ends."""
    stage = Stage(ENTER)
    assert phases(stage.show({1: INSIDE}, 5)) == ["start"]
    assert stage.show({1: INSIDE, 2: INSIDE}, 5, awake=False) == []
    assert phases(stage.show({1: OUTSIDE, 2: OUTSIDE}, 20, awake=False)) == ["end"]


def test_dropping_ends_what_is_open_with_its_reason() -> None:
    """At the end of a file the open incident ends with its peak score; what never started does not end."""
    stage = Stage(ENTER)
    stage.show({1: INSIDE}, 5, score=0.7)
    stage.show({1: INSIDE, 2: OUTSIDE}, 5, score=0.5)
    (end,) = stage.rule.drop(stage.now, "end of file")
    assert (end.phase, end.explain["reason"]) == ("end", "end of file")
    assert end.score == pytest.approx(0.7)
    assert stage.rule.drop(stage.now, "again") == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([INSIDE, OUTSIDE, None]), st.integers(1, 12)), max_size=30), st.booleans())
def test_whatever_is_shown_starts_and_ends_alternate(story: list, rearm: bool) -> None:
    """For any story of one object, starts and ends alternate, and dropping closes the last one."""
    stage = Stage(ENTER, rearm=rearm)
    signals = []
    for place, pictures in story:
        signals += stage.show({} if place is None else {1: place}, pictures)
    signals += stage.rule.drop(stage.now, "end of file")
    steps = [signal.phase for signal in signals if signal.phase != "update"]
    assert steps == ["start", "end"] * (len(steps) // 2)

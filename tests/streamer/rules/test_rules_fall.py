"""The fall rule: a person's evidence, who stays down, seen or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.streamer.rules.rule_scenes import LABELS, SaidReasons, tracks_at
from vedette.streamer.rules.fall import LOST_S, FallConfig, FallRule
from vedette.streamer.rules.view import Places, Signal, View

GATE = ((0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8))


class Ward:
    """One rule, one person, ten pictures a second; None: not seen."""

    why: SaidReasons | None = None

    def __init__(self, at: tuple[float, float] = (0.5, 0.5), **keys: object) -> None:
        self.rule: FallRule = FallConfig.model_validate(keys).rule(Places({"gate": GATE}))
        self.at, self.now = at, -0.1

    def show(self, *values: float | None, height: float | None = None) -> list[Signal]:
        """Signals of probabilities. Whose is high is low: a third of the height, unless ``height`` says how tall."""
        signals = []
        for value in values:
            self.now += 0.1
            tracks = tracks_at({} if value is None else {3: self.at})
            if value is not None:
                xyxy = tracks.xyxy.copy()
                xyxy[:, 1] = xyxy[:, 3] - (height or (0.07 if value >= 0.5 else 0.2))
                tracks = replace(tracks, xyxy=xyxy, evidence=np.array([[value]], np.float32))
            signals += self.rule.step(View(tracks, LABELS, self.now, evidence_names=("fall",), why=self.why))
        return signals


def test_who_stays_down_for_the_time_is_told_and_getting_up_ends_it() -> None:
    """A second of evidence starts it; two upright seconds end it."""
    ward = Ward()
    signals = ward.show(*[0.1] * 5, *[0.9] * 15, *[0.1] * 25)
    assert [s.phase for s in signals] == ["start", "end"]
    start, end = signals
    assert start.tracks == (3,)
    assert start.label == "person"
    assert {c["what"]: c["met"] for c in start.explain["checks"] if not c["what"].startswith("or ")} == {
        "probability of a fall": True, "height lost": True, "down for": True,
    }  # fmt: skip
    assert end.explain["reason"] == "got up"
    assert end.explain["duration_s"] == pytest.approx(1.4, abs=0.01)


def test_the_alert_says_which_seconds_it_goes_by_and_where_the_person_was() -> None:
    """Upright half seconds speak for it and lie where the person stood; the model is asked once, when the alert starts."""
    ward = Ward()
    ward.why = SaidReasons()
    (start,) = ward.show(*[0.1] * 15, *[0.9] * 15)
    assert ward.why.asked == ["past of 3"]
    assert start.explain["attention_s"] == [[1.5, 3.0], [0.0, -0.5]]
    parts = np.array(start.explain["attention_map"])
    assert parts.shape == (8, 13)
    assert parts.sum() == pytest.approx(2.5, abs=0.01)
    # feet at .5, a height of .2 while upright: nothing above .3, nothing below
    assert parts[3, 6] > 0
    assert not parts[:2].any()
    assert not parts[5:].any()


def test_a_track_that_goes_over_to_somebody_farther_away_is_no_fall() -> None:
    """The box is suddenly a third as high and its foot where the head had been nearly: whatever the evidence says, nobody fell."""
    ward = Ward()
    ward.show(*[0.1] * 10, height=0.2)
    ward.at = (0.5, 0.42)
    assert ward.show(*[0.9] * 20, height=0.07) == []


def test_from_upright_to_lying_in_a_moment_is_a_fall_whatever_the_evidence_says() -> None:
    """The box of who stood is a lying one half a second later, and stays so; who takes three seconds lies down."""
    ward = Ward()
    signals = ward.show(*[0.2] * 8, height=0.2) + ward.show(0.2, 0.2, height=0.12) + ward.show(*[0.2] * 15, height=0.06)
    assert [s.phase for s in signals] == ["start"]
    assert [c["met"] for c in signals[0].explain["checks"]] == [False, True, True, True]
    (end,) = ward.show(*[0.2] * 30, height=0.2)
    assert end.explain["reason"] == "got up"
    slow = Ward()
    signals = slow.show(*[0.2] * 8, height=0.2)
    for k in range(30):
        signals += slow.show(0.2, height=0.2 - 0.14 * (k + 1) / 30)
    assert signals + slow.show(*[0.2] * 30, height=0.06) == []


def test_bending_is_no_fall() -> None:
    """Evidence that goes away within the second starts nothing."""
    assert Ward().show(*[0.1] * 5, *[0.9] * 8, *[0.1] * 40) == []


def test_a_person_lost_right_after_the_fall_counts_as_down() -> None:
    """The detector often misses who lies: the alert comes all the same, and ends when nobody was seen for long."""
    ward = Ward()
    signals = ward.show(*[0.1] * 5, 0.9, 0.9, *[None] * 20)
    assert [s.phase for s in signals] == ["start"]
    assert signals[0].explain["unseen_s"] > 0.5
    ended = ward.show(*[None] * round(10 * LOST_S))
    assert [s.explain["reason"] for s in ended] == ["not seen any more"]


def test_somebody_who_was_upright_when_last_seen_has_not_fallen() -> None:
    """Leaving the picture is no fall."""
    assert Ward().show(*[0.1] * 10, *[None] * 200) == []


def test_unknown_says_nothing() -> None:
    """NaN is neither down nor up: it starts nothing and ends nothing."""
    nan = float("nan")
    assert Ward(threshold=0).show(*[nan] * 50) == []
    ward = Ward()
    assert [s.phase for s in ward.show(0.1, *[0.9] * 12, *[nan] * 5)] == ["start"]


def test_a_box_that_keeps_its_height_is_no_fall() -> None:
    """Whatever the evidence: who walks out of the picture, or is too small to be judged, is not told."""
    assert Ward().show(*[0.95] * 30, height=0.2) == []
    assert Ward().show(*[0.1] * 5, height=0.2) + Ward().show(*[0.95] * 30, height=0.15) == []
    small = Ward()
    assert small.show(*[0.1] * 5, height=0.09) + small.show(*[0.95] * 30, height=0.03) == []


def test_only_inside_the_zone() -> None:
    """With a zone, falls elsewhere are not told."""
    assert Ward(at=(0.5, 0.95), zone="gate").show(0.1, *[0.9] * 20) == []
    assert [s.zone for s in Ward(zone="gate").show(0.1, *[0.9] * 20)] == ["gate"]


def test_the_end_of_the_file_ends_it_with_the_peak() -> None:
    """drop() ends what is open and forgets the people."""
    ward = Ward(threshold=0)
    ward.show(*[0.2] * 6, 0.6)
    ward.show(*[0.3] * 12, height=0.07)
    (end,) = ward.rule.drop(ward.now, "end of file")
    assert end.score == pytest.approx(0.6)
    assert ward.show(0.1) == []

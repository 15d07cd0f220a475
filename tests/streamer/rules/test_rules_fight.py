"""The fight rule: learned evidence of the picture, sustained; unknown is not calm and not a fight."""

from __future__ import annotations

import numpy as np
import pytest

from tests.streamer.rules.rule_scenes import LABELS, SaidReasons, tracks_at
from vedette.streamer.rules.fight import FightConfig, FightRule
from vedette.streamer.rules.view import Places, Signal, View


def play(rule: FightRule, values: list[float | None], *, start_s: float = 0.0, awake: bool = True) -> list[Signal]:
    """The signals of probabilities, ten a second; two people stand in each other's boxes, a third alone."""
    signals = []
    for k, value in enumerate(values):
        tracks = tracks_at({4: (0.5, 0.5), 7: (0.51, 0.5), 9: (0.1, 0.9)})
        scene = {} if value is None else {"fight": value}
        signals += rule.step(View(tracks, LABELS, start_s + 0.1 * k, awake=awake, scene=scene))
    return signals


def rule(**keys: object) -> FightRule:
    return FightConfig.model_validate(keys).rule(Places())


def test_sustained_evidence_starts_and_calm_ends_with_the_peak() -> None:
    """Three tenths above the threshold start it, with who is near whom; two calm seconds end it with its peak."""
    signals = play(rule(threshold=0.7), [0.1] * 5 + [0.8, 0.95, 0.8, 0.8, 0.8] + [0.1] * 30)
    assert [s.phase for s in signals] == ["start", "end"]
    start, end = signals
    assert start.tracks == (4, 7)
    assert start.box is not None
    assert start.box[0] > 0.4
    assert start.explain["checks"][0] == {
        "what": "probability of a fight", "value": 0.8, "is": "at least", "threshold": 0.7, "unit": "", "met": True,
    }  # fmt: skip
    assert end.score == pytest.approx(0.95)
    assert end.explain["reason"] == "calm"
    assert end.explain["duration_s"] == pytest.approx(0.4, abs=0.01)


def test_a_single_picture_is_no_fight_and_a_dip_is_forgiven() -> None:
    """One high picture says nothing; a picture below the threshold does not start the clock anew."""
    assert play(rule(), [0.1, 0.99, 0.1, 0.1, 0.1, 0.1]) == []
    assert [s.phase for s in play(rule(), [0.9, 0.9, 0.1, 0.9, 0.9])] == ["start"]


def test_unknown_is_neither_fight_nor_calm_at_once() -> None:
    """Without evidence nothing starts, even at threshold 0; an open incident ends only when it stays unknown."""
    assert play(rule(threshold=0), [None] * 30) == []
    signals = play(rule(), [0.9] * 5 + [None] * 30)
    assert [s.phase for s in signals] == ["start", "end"]
    assert signals[1].explain["reason"] == "unknown"


def test_threshold_nought_reports_the_best_of_every_clip() -> None:
    """At threshold 0 any known evidence starts, and the end of the file tells the peak."""
    running = rule(threshold=0)
    assert [s.phase for s in play(running, [0.02, 0.05, 0.01, 0.03, 0.02])] == ["start"]
    (end,) = running.drop(0.5, "end of file")
    assert end.score == pytest.approx(0.05)
    assert running.drop(0.6, "end of file") == []


def test_a_higher_peak_is_told_at_most_once_a_second() -> None:
    """Updates carry a rising probability, not every picture of it."""
    signals = play(rule(), list(np.linspace(0.71, 0.99, 30)))
    assert [s.phase for s in signals] == ["start", "update", "update"]


def test_silence_after_an_incident_and_outside_the_schedule() -> None:
    """The cool-down counts from the end; asleep, nothing starts."""
    running = rule(cooldown=10)
    assert len(play(running, [0.9] * 5 + [0.1] * 25)) == 2
    assert play(running, [0.9] * 10, start_s=4.0) == []
    assert [s.phase for s in play(running, [0.9] * 10, start_s=14.0)] == ["start"]
    assert play(rule(), [0.9] * 10, awake=False) == []


def test_the_alert_says_which_seconds_made_it() -> None:
    """Shares of past steps are summed by half seconds, parts of the picture told as they are; asked for only when something is told."""
    running, why = rule(), SaidReasons()
    signals: list[Signal] = []
    for k in range(10):
        signals += running.step(View(tracks_at({}), LABELS, 0.1 * k, scene={"fight": 0.9}, why=why))
    assert [s.explain["attention_s"] for s in signals] == [[[0.5, 0.75], [0.0, 2.0]]]
    assert [s.explain["attention_map"] for s in signals] == [[[0.0, 0.5], [-0.25, 0.0]]]
    assert why.asked == ["past", "places"]


def test_the_rule_switches_the_temporal_engine_on() -> None:
    """It says which evidence it reads."""
    assert FightConfig().learned() == ("fight",)

"""``vedette bench startup``: firsts of real starts, rounds in turn. Figures are not judged."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from vedette.streamer.bench import startup
from vedette.streamer.errors import VedetteError


def test_rounds_are_interleaved_and_the_warm_ones_do_not_count() -> None:
    """Another contender goes first each round; who cannot run at all is left out with the reason."""
    order: list[str] = []

    def start(name: str) -> startup.Row:
        order.append(name)
        if name == "broken":
            raise VedetteError("not installed")
        return dict.fromkeys(startup.STEPS, float(len(order)))

    contenders = {name: lambda name=name: start(name) for name in ("a", "b", "broken")}  # type: ignore[misc]
    rows, missing = startup.rounds_of(contenders, 1, 2)
    assert order == ["a", "b", "broken", "b", "a", "a", "b"]
    assert missing == {"broken": "not installed"}
    assert {name: len(found) for name, found in rows.items()} == {"a": 2, "b": 2, "broken": 0}


def test_the_median_of_each_step() -> None:
    """A step that a contender does not have stays unknown."""
    rows: list[startup.Row] = [
        {"first_decoded_s": s, "first_detection_s": 2 * s, "first_alert_s": None} for s in (3.0, 1.0, 2.0)
    ]
    assert startup.median_of(rows) == {"first_decoded_s": 2.0, "first_detection_s": 4.0, "first_alert_s": None}


@pytest.mark.slow
@pytest.mark.data
def test_one_daemon_is_started_for_real(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture is decoded before somebody is detected, and somebody is detected before the alert is there."""
    parser = argparse.ArgumentParser()
    startup.add_arguments(parser)
    words = ["--video", str(data_dir / "clips" / "vtest.avi"), "--cameras", "1", "--rounds", "1", "--warm", "0"]
    assert startup.run(parser.parse_args(words)) == 0
    (contender,) = json.loads(capsys.readouterr().out)["contenders"].values()
    firsts = [contender["median"][step] for step in startup.STEPS]
    assert firsts == sorted(firsts)
    assert firsts[0] > 0

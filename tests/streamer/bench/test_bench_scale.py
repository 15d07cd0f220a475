"""``vedette bench scale``: the exponent is the exponent, and what a machine cannot hold is not fitted."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import pytest

from vedette.streamer.bench import scale


@pytest.mark.parametrize("power", [0.5, 1.0, 1.7])
def test_the_exponent_of_a_power_law_is_found(power: float) -> None:
    """Whatever one camera costs."""
    rows = [{"cameras": n, "cores": 0.03 * n**power} for n in (1, 2, 4, 8, 64)]
    assert scale.exponent(rows, "cores") == pytest.approx(power, abs=1e-3)
    assert scale.exponent(rows[:1], "cores") is None


def test_what_one_camera_more_adds() -> None:
    """What all cameras share is not counted to each of them."""
    assert scale.slope([{"cameras": n, "memory_mb": 300 + 60.0 * n} for n in (1, 4, 16)], "memory_mb") == 60.0


def test_a_still_scene_is_compared_with_a_busy_one_of_as_many_cameras() -> None:
    """Only where both got all they were due: a busy machine that falls behind looks cheap."""

    def row(cameras: int, cores: float, *, held: bool = True) -> dict[str, Any]:
        return {"cameras": cameras, "cores": cores, "held": held}

    rows = {"still": [row(1, 0.1), row(2, 0.15), row(4, 0.3)], "recorded": [row(1, 1.0), row(2, 2.0, held=False)]}
    assert scale.still_of_recorded(rows) == {1: 0.1}
    assert scale.still_of_recorded({"synthetic": []}) == {}


def test_a_row_is_held_when_its_cameras_were_read() -> None:
    """Roles add up; a machine that read less than was due is not called cheap."""
    process = {"name": "x", "cpu_percent": 10.0, "pss_mb": 50.0}
    measured: dict[str, Any] = {
        "cameras": 2, "fps_total": 2.0, "cpu_s_per_camera_hour": 540.0, "latency_ms": None,
        "processes": [{**process, "role": role} for role in ("capture", "capture", "infer")],
    }  # fmt: skip
    row = scale.row_of(measured, 1.0)
    assert row["held"]
    assert row["cores"] == pytest.approx(0.3)
    assert row["cores_by_role"] == {"capture": 0.2, "infer": 0.1}
    assert row["memory_mb"] == 150.0
    assert not scale.row_of(measured, 2.0)["held"]


def test_the_drawn_scene_moves(tmp_path: Path) -> None:
    """Its square crosses the wall from one side to the other."""
    clip = cv2.VideoCapture(str(scale.drawn(tmp_path / "drawn.avi", 0.4)))
    pictures = []
    while (read := clip.read())[0]:
        pictures.append(read[1])
    assert len(pictures) == 4
    reddest = [int((p[450, :, 2].astype(int) - p[450, :, 0]).argmax()) for p in pictures]
    assert reddest == sorted(reddest)
    assert reddest[0] < 200
    assert reddest[-1] > 1000


@pytest.mark.slow
def test_one_and_two_cameras_are_measured_for_real(capsys: pytest.CaptureFixture[str]) -> None:
    """Every process of the daemon is in the sum, and a row that came too late is said to be missing."""
    parser = argparse.ArgumentParser()
    scale.add_arguments(parser)
    words = ["--cameras", "1", "2", "--scenes", "synthetic", "--seconds", "3", "--warm", "1"]
    assert scale.run(parser.parse_args(words)) == 0
    document = json.loads(capsys.readouterr().out)
    rows = document["scenes"]["synthetic"]["rows"]
    assert [row["cameras"] for row in rows] == [1, 2]
    assert all(set(row["cores_by_role"]) == {"capture", "infer", "hub", "supervisor"} for row in rows)
    assert rows[1]["memory_mb"] > rows[0]["memory_mb"] > 0
    assert scale.run(parser.parse_args([*words, "--most-s", "0"])) == 0
    assert json.loads(capsys.readouterr().out)["not_run"] == [{"scene": "synthetic", "cameras": n} for n in (1, 2)]

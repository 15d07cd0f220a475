"""`vedette probe`: what it prints, the picture it saves, and one clear line with exit 4 when it cannot."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.streamer.clips import write_clip
from tests.streamer.rtsp import free_port, rtsp_server
from vedette.streamer.commands import probe
from vedette.streamer.offline.grid import draw_grid


def run(*argv: str) -> int:
    """The command, as the CLI calls it."""
    parser = argparse.ArgumentParser()
    probe.add_arguments(parser)
    return probe.run(parser.parse_args(argv))


def test_a_file_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Codec, size, rate and latency, for people and for machines."""
    clip = write_clip(tmp_path / "a.avi", fps=12.5)
    assert run(str(clip)) == 0
    text = capsys.readouterr().out
    for word in ("mjpg", "160x120", "12.50 pictures a second", "first frame"):
        assert word in text
    assert run(str(clip), "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["codec"], found["width"], found["height"], found["fps"]) == ("mjpg", 160, 120, 12.5)
    assert 0 <= found["open_s"] <= found["first_frame_s"]


@pytest.mark.parametrize("name", ["grid.jpg", "grid.png"])
def test_the_snapshot_carries_a_grid(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The picture is saved with lines at every tenth, readable also for a small camera."""
    clip = write_clip(tmp_path / "a.avi")
    assert run(str(clip), "--snapshot", str(tmp_path / name)) == 0
    assert name in capsys.readouterr().out
    picture = cv2.imread(str(tmp_path / name))
    assert max(picture.shape) >= 960
    height, width = picture.shape[:2]
    for tenth in range(1, 10):
        column = picture[height // 2 + 5 :, round(tenth / 10 * width)].astype(int)
        assert column.max(axis=1).mean() > 150, f"the line at x = {tenth / 10}"


def test_the_grid_does_not_draw_on_its_input() -> None:
    """A copy is drawn on."""
    picture = np.zeros((1200, 1600, 3), np.uint8)
    assert draw_grid(picture).any()
    assert not picture.any()


def test_failures_are_one_line_and_exit_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody there, no video, no such file, a picture that cannot be saved: a sentence, exit 4, no secret."""
    (tmp_path / "a.txt").write_text("hello")
    clip = str(write_clip(tmp_path / "a.avi"))
    for argv, words in (
        ([f"rtsp://bob:sesame123@127.0.0.1:{free_port()}/x"], "cannot be reached"),
        ([str(tmp_path / "a.txt")], "not a video"),
        ([str(tmp_path / "none.mp4")], "No such file"),
        ([clip, "--snapshot", str(tmp_path / "no" / "x.png")], "No such file"),
        ([clip, "--snapshot", str(tmp_path / "x.bmp")], "ends in .jpg or .png"),
        ([clip, "--timeout", "0"], "positive number"),
        ([clip, "--timeout", "nan"], "positive number"),
    ):
        assert run(*argv) == 4, argv
        captured = capsys.readouterr()
        assert captured.out == ""
        assert words in captured.err
        assert captured.err.count("\n") == 1
        assert "sesame123" not in captured.err


def test_a_camera_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    """A real RTSP camera: H.264, its size, the rate it delivers; a mute one is given up in time."""
    with rtsp_server("--size", "320x180", "--fps", "12", "--seconds", "3") as server:
        assert run(server.url(), "--format", "json") == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["codec"], found["width"], found["height"]) == ("h264", 320, 180)
        assert found["fps"] == pytest.approx(12, rel=0.1)
    with rtsp_server("--silent") as server:
        assert run(server.url(), "--timeout", "1") == 4
        assert "does not answer" in capsys.readouterr().err

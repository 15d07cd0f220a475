"""``vedette bench pipeline``: what it calls lost is lost, and the load it makes is the load it says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from tests.streamer.clips import write_clip
from vedette.engines.load import resolve
from vedette.streamer.bench._daemonload import Meter
from vedette.streamer.bench._mixture import ask_peer, mixture, recode
from vedette.streamer.bench.pipeline import _finished, search
from vedette.streamer.cells import MOVED_MOST, moved, shrink
from vedette.streamer.errors import VedetteError


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[Meter]:
    """A meter that hears nothing by itself."""
    made = Meter(SimpleNamespace(publish=f"ipc://{tmp_path}/nobody"), ["a", "b"])  # type: ignore[arg-type]
    yield made
    made.close()


def test_gaps_in_seq_are_lost_pictures_also_across_a_loop(meter: Meter) -> None:
    """A jump of seq, and a loop that does not begin at 0, count what is missing; the worst camera decides."""
    for epoch, seq in [(1, 10), (1, 11), (1, 14), (2, 1), (2, 2)]:
        meter._take({"camera": "a", "epoch": epoch, "seq": seq, "mono_ns": 0}, 50_000_000)
    for seq in range(5):
        meter._take({"camera": "b", "epoch": 1, "seq": seq, "mono_ns": 0}, 10_000_000)
    result = meter.result(2.0)
    assert result["lost_most"] == pytest.approx(3 / 8, abs=1e-4)
    assert result["fps_total"] == 5.0
    assert result["latency_ms"]["p99"] == 50.0


def test_a_camera_nobody_heard_is_all_lost(meter: Meter) -> None:
    """Silence is not a sustained load."""
    meter._take({"camera": "a", "epoch": 1, "seq": 0, "mono_ns": 0}, 1)
    assert meter.result(1.0)["lost_most"] == 1.0


def test_a_still_clip_only_shimmers(tmp_path: Path) -> None:
    """Of a moving clip only the first picture is left, and adaptive inference takes it for still."""
    clip = cv2.VideoCapture(str(recode(write_clip(tmp_path / "c.avi"), tmp_path / "clip.mp4", 15.0, still=True)))
    cells = []
    while (read := clip.read())[0]:
        cells.append(shrink(np.asarray(read[1], np.uint8)))
    assert len(cells) == 300
    assert max(moved(c, cells[0]) for c in cells) <= MOVED_MOST
    assert any((c != cells[0]).any() for c in cells), "not a frozen picture"


def test_the_clip_is_recoded_to_the_wanted_rate(tmp_path: Path) -> None:
    """Every picture is kept, and the header says the rate of the load."""
    source = tmp_path / "source.avi"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (160, 120))
    for k in range(12):
        writer.write(np.full((120, 160, 3), 20 * k, np.uint8))
    writer.release()
    clip = cv2.VideoCapture(str(recode(source, tmp_path / "clip.mp4", 15.0)))
    assert clip.get(cv2.CAP_PROP_FPS) == 15.0
    assert clip.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    clip.release()


def test_who_falls_behind_his_rate_loses_pictures(meter: Meter) -> None:
    """Gapless, but one camera read half of what was due: half is lost; a camera that rests reads, and loses nothing."""
    for seq in range(50):
        meter._take({"camera": "a", "epoch": 1, "seq": seq, "mono_ns": 0}, 1)
    meter._take({"camera": "b", "epoch": 1, "seq": 0, "mono_ns": 0}, 1)
    assert meter.result(10.0, 10.0, {"a": 5.0, "b": 10.0})["lost_most"] == pytest.approx(0.5)
    assert meter.result(10.0, 10.0, {"a": 10.0, "b": 10.0})["lost_most"] == 0.0


@pytest.mark.parametrize("cost_s", [0.0, 40.0, 400.0, 4000.0])
@pytest.mark.parametrize("holds", [0, 1, 2, 3, 5, 7, 8, 13, 64])
def test_the_search_ends_at_the_most_cameras_that_are_sustained(holds: int, cost_s: float) -> None:
    """Whatever the machine holds up to ``most`` is what is found, each number asked once, whatever it says to cost."""
    asked: list[int] = []

    def contender(cameras: int) -> dict[str, object]:
        asked.append(cameras)
        lost = 0.0 if cameras <= holds else 0.5
        return {
            "cameras": cameras,
            "fps_total": 0.0,
            "lost_most": lost,
            "latency_ms": None,
            "cpu_s_per_camera_hour": cost_s,
        }

    rows = search("x", contender, 64)
    assert _finished(rows, 64)
    assert max((row["cameras"] for row in rows if row["lost_most"] == 0.0), default=0) == holds
    assert len(set(asked)) == len(asked)


def test_a_search_that_ran_out_of_time_is_not_finished() -> None:
    """What is sustained is then the least, and one number of cameras is measured in any case."""

    def contender(cameras: int) -> dict[str, object]:
        row = dict.fromkeys(("fps_total", "lost_most", "cpu_s_per_camera_hour"), 0.0)
        return {**row, "cameras": cameras, "latency_ms": None}

    rows = search("x", contender, 64, until_s=0.0)
    assert [row["cameras"] for row in rows] == [1]
    assert not _finished(rows, 64)


def test_a_quarter_of_any_run_of_cameras_is_busy() -> None:
    """The mixture does not depend on how many cameras are measured, but for rounding, and one is always busy."""
    order = mixture(Path("busy"), Path("still"), 0.25)
    for count in (1, 4, 8, 12, 40):
        assert order[:count].count(Path("busy")) == -(-count // 4)


@pytest.mark.slow
def test_the_loop_of_threads_finds_people_and_counts_what_it_lost(tmp_path: Path, data_dir: Path) -> None:
    """The script of the peers, under this interpreter: one camera with nothing to do loses little, results are real."""
    clip = recode(data_dir / "clips" / "vtest.avi", tmp_path / "clip.mp4", 5.0)
    model = str(resolve("vedette-nano").absolute())
    job = {"loop": "opencv", "model": model, "fps": 2.0, "seconds": 3.0, "warm": 1.0, "threads": 1, "workers": 1,
           "batch": 1, "clips": [str(clip)]}  # fmt: skip
    row = ask_peer(sys.executable, job)
    assert row["cameras"] == 1
    assert row["boxes_per_picture"] > 2, "people walk there"
    assert 0 < row["fps_least"] <= 2.5
    assert row["cpu_s_per_camera_hour"] > 0
    assert row["latency_ms"]["p95"] > 0


def test_a_peer_that_cannot_run_says_why() -> None:
    """An interpreter without the packages is a reason, not a figure."""
    with pytest.raises(VedetteError, match="No module named 'inference'"):
        ask_peer(sys.executable, {"loop": "inference", "clips": []})

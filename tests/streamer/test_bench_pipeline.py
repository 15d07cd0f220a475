"""``vedette bench pipeline``: what it calls lost is lost, and the load it makes is the load it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from clips import write_clip

from vedette.streamer.bench.pipeline import _Meter, recode
from vedette.streamer.infer.stillness import MOVED_MOST, moved, shrink


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[_Meter]:
    """A meter that hears nothing by itself."""
    made = _Meter(SimpleNamespace(publish=f"ipc://{tmp_path}/nobody"), ["a", "b"])  # type: ignore[arg-type]
    yield made
    made.close()


def test_gaps_in_seq_are_lost_pictures_also_across_a_loop(meter: _Meter) -> None:
    """A jump of seq, and a loop that does not begin at 0, count what is missing; the worst camera decides."""
    for epoch, seq in [(1, 10), (1, 11), (1, 14), (2, 1), (2, 2)]:
        meter._take({"camera": "a", "epoch": epoch, "seq": seq, "mono_ns": 0}, 50_000_000)
    for seq in range(5):
        meter._take({"camera": "b", "epoch": 1, "seq": seq, "mono_ns": 0}, 10_000_000)
    result = meter.result(2.0)
    assert result["lost_most"] == pytest.approx(3 / 8, abs=1e-4)
    assert result["fps_total"] == 5.0
    assert result["latency_ms"]["p99"] == 50.0


def test_a_camera_nobody_heard_is_all_lost(meter: _Meter) -> None:
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

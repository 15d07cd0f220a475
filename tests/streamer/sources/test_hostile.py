"""Files that break readers: each in a real process, because the point is that the process survives them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.streamer.captured import captured
from tests.streamer.clips import moving, write_clip, write_mjpeg, write_raw_avi

READ = """
import contextlib, sys
from vedette.streamer.errors import SourceError
from vedette.streamer.sources import EndOfStream, Want, open_source
for path in sys.argv[1:]:
    count = 0
    try:
        with contextlib.closing(open_source(path, Want())) as reader:
            while True:
                reader.grab()
                reader.retrieve()
                count += 1
    except (EndOfStream, SourceError) as error:
        print(type(error).__name__, count)
    # give the allocator every reason to notice a damaged heap
    for size in (100, 5_000, 20_000, 200_000):
        held = [bytearray(size) for _ in range(200)]
"""


def read_in_one_process(*paths: Path) -> list[str]:
    """What became of each file; the process must end well."""
    command = [sys.executable, "-c", READ, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"the reader died with {done.returncode}: {done.stderr[-500:]}"
    return done.stdout.splitlines()


def test_a_bottom_up_raw_avi_and_then_another_file_in_one_process(tmp_path: Path) -> None:
    """OpenCV 4.13 and later damage their heap on the first file; our reader does not let them."""
    raw = write_raw_avi(tmp_path / "raw.avi", moving(0, 48, 48), count=50)
    good = write_clip(tmp_path / "good.avi")
    assert read_in_one_process(raw, good, raw, good) == ["EndOfStream 50", "EndOfStream 30"] * 2


@pytest.mark.data
def test_the_collected_hostile_files_in_one_process(data_dir: Path) -> None:
    """The 48x48 raw AVI, then the one that claims 444 frames, twice: both are read to their real end."""
    files = [data_dir / "hostile" / name for name in ("bgslibrary_demo_48x48.avi", "tree.avi")]
    first, second = read_in_one_process(*files, *files)[:2]
    assert first == "EndOfStream 51"
    assert second.startswith("EndOfStream ")
    assert 60 <= int(second.split()[1]) < 444


def test_truncations_of_every_length_end_the_same_way(tmp_path: Path) -> None:
    """A file cut anywhere is either refused or ends early; it never hangs and never kills the process."""
    paths = []
    for name in ("a.avi", "b.mp4", "c.mjpeg"):
        path = tmp_path / name
        whole = (write_mjpeg(path, [(120, 160)], 20) if name[0] == "c" else write_clip(path, 20)).read_bytes()
        for part in range(1, 12):
            cut = tmp_path / f"{part}-{name}"
            cut.write_bytes(whole[: len(whole) * part // 12])
            paths.append(cut)
    assert len(read_in_one_process(*paths)) == len(paths)


@pytest.mark.slow
def test_damaged_bytes_end_the_same_way(tmp_path: Path) -> None:
    """Random damage in header and data: every file has an outcome."""
    rng = np.random.default_rng(11)
    paths = []
    for name in ("a.avi", "b.mp4", "c.mjpeg"):
        path = tmp_path / name
        whole = (write_mjpeg(path, [(120, 160)], 20) if name[0] == "c" else write_clip(path, 20)).read_bytes()
        for n in range(8):
            data = np.frombuffer(whole, np.uint8).copy()
            where = rng.integers(0, 512 if n % 2 else len(data), 20)
            data[where] = rng.integers(0, 256, 20)
            (tmp_path / f"{n}-{name}").write_bytes(data.tobytes())
            paths.append(tmp_path / f"{n}-{name}")
    assert len(read_in_one_process(*paths)) == len(paths)


def test_a_hostile_camera_costs_no_restart(tmp_path: Path) -> None:
    """The raw AVI looped as a camera: one process reads it again and again, epoch after epoch."""
    raw = write_raw_avi(tmp_path / "raw.avi", moving(0, 48, 48), count=5)
    with captured(tmp_path, str(raw), loop=True, pace="max", fps=120) as capture:
        epochs = {lease.header.epoch for lease in capture.frames(60)}
        assert len(epochs) >= 5
        assert capture.stop() == 0

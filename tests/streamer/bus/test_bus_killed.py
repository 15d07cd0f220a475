"""The frames link between real processes that are killed: frames come again, and none of them is torn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vedette.streamer.bus.ring import create_ring

WRITER = """
import sys, time, zlib, numpy as np
from vedette.engines.api import Letterbox
from vedette.streamer.bus import FrameWriter
from vedette.streamer.bus.ring import Ring
from vedette.streamer.types import Frame
run_dir, ring, incarnation = sys.argv[1:]
writer = FrameWriter(run_dir, "cam", incarnation, Ring.open(f"{run_dir}/{ring}", writable=True))
rng, box, seq = np.random.default_rng(1), Letterbox.fit((240, 320), (240, 320)), 0
while True:
    writer.poll(1)
    pixels = rng.integers(0, 256, (240, 320, 3), np.uint8)
    crc = zlib.crc32(pixels)
    if writer.send(Frame("cam", 0, seq, time.monotonic_ns(), float(crc), 0.0, pixels, box)):
        seq += 1
"""

READER = """
import sys, time, zlib
from vedette.streamer.bus import FrameReader
reader = FrameReader(sys.argv[1], sys.argv[2])
while True:
    for lease in reader.take(8, 1):
        with lease:
            before = zlib.crc32(lease.pixels)
            time.sleep(0.002)  # the writer gets every chance to overwrite what is being read
            good = before == zlib.crc32(lease.pixels) == int(lease.header.source_s)
        print(lease.header.incarnation, lease.header.seq, "good" if good else "TORN", flush=True)
"""


class Child:
    """A script in its own process whose lines are read."""

    def __init__(self, script: str, *args: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", script, *args], stdout=subprocess.PIPE, text=True)

    def lines(self, count: int) -> list[str]:
        """The next lines; the runner's time-out is the deadline."""
        assert self.process.stdout is not None
        return [self.process.stdout.readline().strip() for _ in range(count)]

    def kill(self) -> None:
        """SIGKILL, and gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.mark.slow
def test_no_frame_is_torn_while_either_side_is_killed(tmp_path: Path) -> None:
    """Two processes flat out, each killed three times: frames come again after every kill, none of them torn."""
    lives = 0

    def start_writer() -> Child:
        nonlocal lives
        lives += 1
        create_ring(tmp_path / f"ring-cam-{lives}", 3, 240 * 320 * 3)
        return Child(WRITER, str(tmp_path), f"ring-cam-{lives}", f"i{lives}")

    reader, writer = Child(READER, str(tmp_path), "b0"), start_writer()
    try:
        seen = reader.lines(40)
        for i in range(3):
            reader.kill()
            reader = Child(READER, str(tmp_path), f"b{i + 1}")
            seen += reader.lines(40)
            writer.kill()
            os.unlink(tmp_path / f"ring-cam-{lives}")
            writer = start_writer()
            while seen[-1].split()[0] != f"i{lives}":
                seen += reader.lines(1)
            seen += reader.lines(40)
    finally:
        reader.kill()
        writer.kill()
    assert len(seen) >= 280
    assert [line for line in seen if not line.endswith("good")] == []

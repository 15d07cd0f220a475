"""Both ends of the frames link for tests: small pictures, a writer with its own ring, a peer that sends what it likes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zmq

from vedette.engines.api import Letterbox
from vedette.streamer import wire
from vedette.streamer.bus import FrameReader, FrameWriter, Lease
from vedette.streamer.bus.ring import Ring, create_ring
from vedette.streamer.types import Frame

H, W = 32, 48


def picture(value: int) -> Frame:
    """A frame whose pixels all say ``value % 256`` and whose seq is ``value``."""
    pixels = np.full((H, W, 3), value % 256, np.uint8)
    return Frame("cam", 0, value, time.monotonic_ns(), value / 30, 0.0, pixels, Letterbox.fit((H, W), (H, W)))


def until(done: Callable[[], object], what: str, deadline_s: float = 20.0) -> None:
    """Wait for a condition; fail with its name at the deadline."""
    end = time.monotonic() + deadline_s
    while not done():
        assert time.monotonic() < end, f"waited {deadline_s} s for: {what}"
        time.sleep(0.002)


def writer_of(run_dir: Path, name: str = "ring-cam-1", *, incarnation: str = "i1", slots: int = 3) -> FrameWriter:
    """A writer with its own new ring."""
    create_ring(run_dir / name, slots, H * W * 3)
    return FrameWriter(run_dir, "cam", incarnation, Ring.open(run_dir / name, writable=True))


def deliver(writer: FrameWriter, reader: FrameReader, value: int, deadline_s: float = 20.0) -> Lease:
    """Send until a frame with this seq is taken."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        writer.poll(5)
        if writer.send(picture(value)):
            for lease in reader.take(8, 0.5):
                if lease.header.seq == value:
                    return lease
                lease.release()
    raise AssertionError(f"frame {value} was not delivered: writer {writer.drops}, reader {reader.drops}")


@contextmanager
def rogue_peer(tmp_path: Path) -> Iterator[zmq.Socket[bytes]]:
    """A peer named cam that sends what it likes."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.setsockopt(zmq.IDENTITY, b"cam")
        socket.connect(wire.ipc(tmp_path, wire.FRAMES))
        yield socket

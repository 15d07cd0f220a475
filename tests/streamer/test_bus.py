"""The frames link between real sockets and real processes: newest frame, credits, reclaim, bad messages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq

from vedette.engines.api import Letterbox
from vedette.streamer import wire
from vedette.streamer.bus import Cut, FrameReader, FrameWriter, Lease
from vedette.streamer.errors import WireError
from vedette.streamer.ring import Ring, create_ring
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


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[FrameReader]:
    reader = FrameReader(tmp_path, "boot1")
    yield reader
    reader.close()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[FrameWriter]:
    writer = writer_of(tmp_path)
    yield writer
    writer.close()


@contextmanager
def rogue_peer(tmp_path: Path) -> Iterator[zmq.Socket[bytes]]:
    """A peer named cam that sends what it likes."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.setsockopt(zmq.IDENTITY, b"cam")
        socket.connect(wire.ipc(tmp_path, wire.FRAMES))
        yield socket


@pytest.fixture
def rogue(tmp_path: Path) -> Iterator[zmq.Socket[bytes]]:
    with rogue_peer(tmp_path) as socket:
        yield socket


def test_a_frame_arrives_whole(reader: FrameReader, writer: FrameWriter) -> None:
    """Header fields and pixels arrive as they were sent; the lease's pixels are the ring, without a copy."""
    lease = deliver(writer, reader, 5)
    frame = lease.frame()
    assert (frame.camera, frame.seq, frame.source_s) == ("cam", 5, 5 / 30)
    assert frame.letterbox == Letterbox.fit((H, W), (H, W))
    assert (frame.pixels == 5).all()
    assert not lease.pixels.flags.owndata
    assert not lease.pixels.flags.writeable


def test_a_reserved_slot_is_sent_without_a_copy(reader: FrameReader, writer: FrameWriter) -> None:
    """A picture drawn into the reserved view is what the reader sees."""
    until(lambda: writer.poll(5) or writer.reserve(H, W) is not None, "a credit")
    view = writer.reserve(H, W)
    assert view is not None
    view[:] = 77
    base = picture(3)
    assert writer.send(Frame("cam", 0, 3, base.mono_ns, 0.0, 0.0, view, base.letterbox))
    (lease,) = reader.take(1, 5)
    assert (lease.pixels == 77).all()


def test_only_the_newest_frame_waits_and_the_rest_is_counted(reader: FrameReader, writer: FrameWriter) -> None:
    """A slow reader finds the last frame; superseded ones are counted and their credit comes back at once."""
    deliver(writer, reader, 0).release()
    last = 0
    end = time.monotonic() + 20
    while last < 20 and time.monotonic() < end:
        writer.poll(5)
        last += writer.send(picture(last + 1))
    until(lambda: reader.drops.get(("cam", "superseded"), 0) == 19, "19 superseded frames")
    (lease,) = reader.take(8, 1)
    assert lease.header.seq == 20
    assert reader.take(8, 0) == []


def test_without_credit_frames_are_dropped_and_counted(reader: FrameReader, writer: FrameWriter) -> None:
    """A reader that keeps its leases stops the writer after the last slot; releasing brings it back."""
    leases = [deliver(writer, reader, i) for i in range(3)]
    writer.drops.clear()
    assert writer.send(picture(9)) is False
    assert writer.drops["no_credit"] == 1
    assert [int(lease.pixels[0, 0, 0]) for lease in leases] == [0, 1, 2], "held slots are not overwritten"
    leases[1].release()
    leases[1].release()
    lease = deliver(writer, reader, 10)
    assert lease.header.slot == leases[1].header.slot


def test_without_a_reader_nothing_waits(tmp_path: Path, writer: FrameWriter) -> None:
    """No reader: every frame is dropped and counted; none of them reaches a reader that starts later."""
    for i in range(5):
        writer.poll(0)
        assert writer.send(picture(i)) is False
    assert writer.drops["no_reader"] == 5
    late = FrameReader(tmp_path, "late")
    try:
        assert deliver(writer, late, 50).header.seq == 50
    finally:
        late.close()


def test_a_new_boot_reclaims_every_slot(tmp_path: Path, writer: FrameWriter) -> None:
    """A reader that dies with all leases in hand costs nothing: the next one gets frames."""
    first = FrameReader(tmp_path, "boot1")
    kept = [deliver(writer, first, i) for i in range(3)]
    first.close()
    second = FrameReader(tmp_path, "boot2")
    try:
        lease = deliver(writer, second, 40)
        assert lease.header.boot == "boot2"
        assert len(kept) == 3
    finally:
        second.close()


def test_frames_paid_for_by_another_boot_are_dropped(tmp_path: Path, reader: FrameReader) -> None:
    """A slot that another boot's credit paid for may be rewritten at any moment, so it is never read."""
    writer = writer_of(tmp_path)
    lease = deliver(writer, reader, 1)
    lease.release()
    writer.close()
    header = wire.decode(wire.encode(lease.header)) | {"boot": "dead", "seq": 2}
    with rogue_peer(tmp_path) as rogue:
        rogue.send_multipart([b"frame", wire.encode(header)])
        until(lambda: ("cam", "stale_boot") in reader.drops, "a stale frame to be counted")
        assert reader.take(1, 0) == []
        assert rogue.poll(5000)
        assert wire.decode(rogue.recv_multipart()[1])["boot"] == "boot1"


def test_a_new_incarnation_brings_its_own_ring(tmp_path: Path, reader: FrameReader) -> None:
    """After a capture restart old leases stay readable, their credits mean nothing to the new life."""
    old = writer_of(tmp_path, "ring-cam-1", incarnation="i1")
    lease = deliver(old, reader, 1)
    old.close()
    os.unlink(tmp_path / "ring-cam-1")
    new = writer_of(tmp_path, "ring-cam-2", incarnation="i2", slots=1)
    try:
        fresh = deliver(new, reader, 2)
        assert (lease.pixels == 1).all()
        lease.release()
        for _ in range(20):
            new.poll(5)
        assert new.send(picture(3)) is False, "the old life's slot 0 is not the new life's slot 0"
        fresh.release()
        deliver(new, reader, 4).release()
    finally:
        new.close()


def test_lost_credits_are_found_again(reader: FrameReader, writer: FrameWriter) -> None:
    """A writer that lost credit messages asks, and gets back every slot that the reader does not hold."""
    held = deliver(writer, reader, 1)
    writer._free.clear()  # as if the credit messages had been lost with a connection
    lease = deliver(writer, reader, 2)
    assert lease.header.slot != held.header.slot
    assert (held.pixels == 1).all()


def test_a_cut_goes_there_and_back(reader: FrameReader, writer: FrameWriter) -> None:
    """infer asks for a moment, capture answers with a JPEG, `take` wakes up for it."""
    deliver(writer, reader, 1).release()
    reader.cut("cam", "k1", 123, (0.1, 0.2, 0.3, 0.4))
    cuts: list[Cut] = []
    until(lambda: cuts.extend(writer.poll(20)) or cuts, "the cut request")
    assert cuts == [Cut("k1", 123, (0.1, 0.2, 0.3, 0.4))]
    assert writer.send_snapshot(cuts[0], b"\xff\xd8jpeg")
    assert reader.take(1, 5) == []
    snapshot = reader.snapshots.popleft()
    assert (snapshot.camera, snapshot.key, snapshot.mono_ns, snapshot.jpeg) == ("cam", "k1", 123, b"\xff\xd8jpeg")


def test_a_cut_of_an_absent_camera_is_answered_at_once(reader: FrameReader) -> None:
    """No capture process: the answer is an empty snapshot, not silence."""
    reader.cut("nobody", "k", 1)
    until(lambda: reader.snapshots, "the empty answer")
    assert reader.snapshots.popleft().jpeg is None


def test_a_waiting_take_wakes_when_a_frame_arrives(reader: FrameReader, writer: FrameWriter) -> None:
    """`take` with a long wait returns with the first frame; `wake` ends it without one."""
    deliver(writer, reader, 1).release()
    until(lambda: writer.poll(5) or writer.send(picture(2)), "a send")
    began = time.monotonic()
    assert [lease.header.seq for lease in reader.take(64, 60)] == [2]
    reader.wake()
    assert reader.take(64, 60) == []
    assert time.monotonic() - began < 50


def test_forget_returns_the_credit(reader: FrameReader, writer: FrameWriter) -> None:
    """A removed camera's waiting frame is dropped and every slot is free again."""
    deliver(writer, reader, 1).release()
    until(lambda: writer.poll(5) or writer.send(picture(2)), "a send")
    until(lambda: reader._mailbox.waiting, "a waiting frame")
    reader.forget("cam")
    assert reader.take(1, 0) == []
    until(lambda: writer.poll(5) or len(writer._free) == 3, "all credits")


def malformed(reader: FrameReader) -> int:
    """Messages refused so far."""
    return sum(n for (_, reason), n in reader.drops.items() if reason in ("malformed", "oversized", "bad_ring"))


def bad_headers() -> list[tuple[str, dict[str, object]]]:
    """What a broken or hostile writer could claim."""
    return [
        ("another camera", {"camera": "other"}),
        ("a path for a ring", {"ring": "../secret"}),
        ("a dot for a ring", {"ring": ".."}),
        ("no such ring", {"ring": "ring-none"}),
        ("a slot out of range", {"slot": 200}),
        ("a negative slot", {"slot": -1}),
        ("no slot", {"slot": None}),
        ("a huge picture", {"height": 8192, "width": 8192}),
        ("a picture beyond the limit", {"height": 10**9}),
        ("text for a number", {"seq": "1"}),
        ("an extra-long incarnation", {"incarnation": "x" * 100}),
        ("inline pixels missing", {"ring": None}),
    ]


@pytest.mark.parametrize(("what", "change"), bad_headers(), ids=lambda v: v if isinstance(v, str) else "")
def test_bad_frames_are_counted_and_dropped(
    tmp_path: Path, reader: FrameReader, rogue: zmq.Socket[bytes], what: str, change: dict[str, object]
) -> None:
    """A malformed descriptor is counted, never read, and the next good one gets through."""
    create_ring(tmp_path / "ring-cam-1", 2, H * W * 3)
    good = {
        "camera": "cam", "incarnation": "i", "epoch": 0, "seq": 1, "mono_ns": 1, "source_s": 0.0, "wall_s": 0.0,
        "height": H, "width": W, "letterbox": [W, H, 1.0, 0, 0], "ring": "ring-cam-1", "slot": 0, "boot": "boot1",
    }  # fmt: skip
    rogue.send_multipart([b"frame", wire.encode(good | change)])
    until(lambda: malformed(reader) == 1, f"{what} to be counted")
    assert reader.take(1, 0) == []
    rogue.send_multipart([b"frame", wire.encode(good)])
    assert len(reader.take(1, 10)) == 1


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"frame"],
        [b"frame", b"\xff\xfe"],
        [b"frame", b"[]"],
        [b"frame", b'{"camera": NaN}'],
        [b"frame", b"[" * 100_000],
        [b"frame", b" " * (wire.MAX_JSON + 1)],
        [b"nonsense", b"{}"],
        [b"hello", b"{}"],
        [b"snapshot", b'{"key":"k","mono_ns":1}'],
        [b"snapshot", b'{"key":"k","mono_ns":1}', b"x" * (wire.MAX_JPEG + 1)],
    ],
    ids=range(11),
)
def test_garbage_is_counted_and_the_link_goes_on(
    reader: FrameReader, rogue: zmq.Socket[bytes], parts: list[bytes]
) -> None:
    """Whatever arrives, the thread survives, counts it and answers the next hello."""
    rogue.send_multipart(parts)
    until(lambda: malformed(reader) == 1, "the message to be counted")
    rogue.send_multipart([b"hello", wire.encode({"incarnation": "i", "sent": 0})])
    assert rogue.poll(10_000)
    assert rogue.recv_multipart()[0] == b"boot"


def test_a_message_beyond_the_limit_ends_only_that_connection(
    tmp_path: Path, reader: FrameReader, rogue: zmq.Socket[bytes]
) -> None:
    """32 MiB and more is refused by the socket itself: memory stays bounded, others go on."""
    rogue.send_multipart([b"frame", b"{}", bytes(33 * 1024 * 1024)])
    good = writer_of(tmp_path)
    try:
        deliver(good, reader, 1).release()
    finally:
        good.close()


def test_a_sender_without_a_camera_name_is_not_obeyed(tmp_path: Path, reader: FrameReader) -> None:
    """Identities are checked like any other input."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.setsockopt(zmq.IDENTITY, b"../Cam")
        socket.connect(wire.ipc(tmp_path, wire.FRAMES))
        socket.send_multipart([b"hello", b'{"incarnation":"i","sent":0}'])
        until(lambda: reader.drops.get(("", "malformed")) == 1, "the name to be refused")
        assert not socket.poll(0)


def test_a_remote_camera_sends_pixels_inline_and_gets_our_clock(tmp_path: Path) -> None:
    """Over tcp pixels travel in the message, credits bound them, and mono_ns is this host's at receipt."""
    reader = FrameReader(tmp_path, "boot1", listen=["tcp://127.0.0.1:*"])
    endpoint = reader._remote[0].getsockopt_string(zmq.LAST_ENDPOINT)
    writer = FrameWriter(endpoint, "cam", "i1", None, inline_slots=2)
    try:
        first, second = deliver(writer, reader, 1), deliver(writer, reader, 2)
        assert (first.pixels == 1).all()
        assert first.header.mono_ns <= time.monotonic_ns()
        assert writer.send(picture(3)) is False, "no credit left"
        second.release()
        deliver(writer, reader, 4).release()
        with pytest.raises(WireError, match="too large"):
            writer.reserve(8000, 8000)
    finally:
        writer.close()
        reader.close()


def test_a_remote_peer_cannot_name_local_files(tmp_path: Path) -> None:
    """A ring name that comes in by tcp is malformed."""
    reader = FrameReader(tmp_path, "boot1", listen=["tcp://127.0.0.1:*"])
    endpoint = reader._remote[0].getsockopt_string(zmq.LAST_ENDPOINT)
    create_ring(tmp_path / "ring-cam-1", 2, H * W * 3)
    writer = FrameWriter(endpoint, "cam", "i1", Ring.open(tmp_path / "ring-cam-1", writable=True))
    try:
        until(lambda: writer.poll(5) or writer.send(picture(1)), "a send")
        until(lambda: ("cam", "malformed") in reader.drops, "the ring name to be refused")
        assert reader.take(1, 0) == []
    finally:
        writer.close()
        reader.close()


WRITER = """
import sys, time, zlib, numpy as np
from vedette.engines.api import Letterbox
from vedette.streamer.bus import FrameWriter
from vedette.streamer.ring import Ring
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

"""The frames link between real sockets: newest frame, credits, reclaim, cuts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.streamer.bus.bus_ends import H, W, deliver, picture, rogue_peer, until, writer_of
from vedette.engines.api import Letterbox
from vedette.streamer import wire
from vedette.streamer.bus import Cut, FrameReader, FrameWriter
from vedette.streamer.types import Frame


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

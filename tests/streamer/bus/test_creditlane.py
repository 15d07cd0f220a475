"""The lane of credits: records arrive whole, foreign ones mean nothing, bad ones are counted, and no slot is lent twice."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.streamer.bus.bus_ends import H, W, deliver, writer_of
from vedette.streamer.bus import FrameReader, FrameWriter
from vedette.streamer.bus import reader as bus_reader
from vedette.streamer.bus.creditlane import CreditReceiver, CreditSender, key_of, lane_path
from vedette.streamer.bus.ring import Ring, create_ring, remove_ring

KEY = key_of("i1", "boot1")


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[CreditReceiver]:
    create_ring(tmp_path / "r", 3, 300)
    receiver = CreditReceiver.open(tmp_path / "r")
    assert receiver is not None
    yield receiver
    receiver.close()


def sender_of(tmp_path: Path, incarnation: str = "i1", boot: str = "boot1") -> CreditSender:
    """The paying end of ring r."""
    sender = CreditSender.open(tmp_path / "r", incarnation, boot)
    assert sender is not None
    return sender


def test_paid_slots_come_back_in_order_and_once(tmp_path: Path, receiver: CreditReceiver) -> None:
    """What one end pays the other takes, nothing is left for a second look."""
    sender = sender_of(tmp_path)
    for slot in (2, 0, 255):
        sender.pay(slot)
    assert receiver.take(KEY) == [2, 0, 255]
    assert receiver.take(KEY) == []
    sender.close()


@pytest.mark.parametrize(("incarnation", "boot"), [("i1", "boot0"), ("i0", "boot1"), ("i1\nboot1", "")])
def test_credits_of_another_life_mean_nothing(
    tmp_path: Path, receiver: CreditReceiver, incarnation: str, boot: str
) -> None:
    """Records of another boot or incarnation are neither credits nor errors."""
    other = sender_of(tmp_path, incarnation, boot)
    other.pay(1)
    assert receiver.take(KEY) == []
    assert receiver.malformed == 0
    other.close()


@pytest.mark.parametrize("raw", [b"x", KEY + b"\1\1" + bytes(6), b"\0" * 16, os.urandom(4095)])
def test_bad_records_are_counted(tmp_path: Path, receiver: CreditReceiver, raw: bytes) -> None:
    """Half a record or a slot whose complement is wrong is malformed; the next good one counts."""
    fd = os.open(lane_path(tmp_path / "r"), os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, raw)
    os.close(fd)
    assert receiver.take(KEY) == []
    assert receiver.malformed >= 1
    sender = sender_of(tmp_path)
    sender.pay(1)
    assert receiver.take(KEY) == [1]
    sender.close()


def test_a_lane_nobody_reads_never_blocks_and_never_raises(tmp_path: Path, receiver: CreditReceiver) -> None:
    """A full pipe loses credits instead of holding the reader of frames up; so does one whose reader has died."""
    sender = sender_of(tmp_path)
    for _ in range(10_000):
        sender.pay(0)
    other = CreditReceiver.open(tmp_path / "r")
    assert other is not None
    while other.take(KEY):
        pass
    other.close()
    sender.pay(1)
    assert receiver.take(KEY) == [1]
    sender.close()


def test_there_is_no_lane_where_it_is_not_a_private_fifo_of_a_living_writer(tmp_path: Path) -> None:
    """No file, a regular file, a link, or a FIFO that nobody reads: credits travel by message."""
    create_ring(tmp_path / "r", 3, 300)
    assert stat.S_IMODE(lane_path(tmp_path / "r").stat().st_mode) == 0o600
    assert CreditSender.open(tmp_path / "r", "i1", "boot1") is None, "nobody reads it"
    (tmp_path / "l.credits").symlink_to(lane_path(tmp_path / "r"))
    (tmp_path / "f.credits").touch()
    for name in ("l", "f", "none"):
        assert CreditReceiver.open(tmp_path / name) is None
    remove_ring(tmp_path / "r")
    remove_ring(tmp_path / "r")
    assert not (tmp_path / "r").exists()
    assert not lane_path(tmp_path / "r").exists()


@pytest.fixture
def link(tmp_path: Path) -> Iterator[tuple[FrameReader, FrameWriter]]:
    reader, writer = FrameReader(tmp_path, "boot1"), writer_of(tmp_path)
    yield reader, writer
    writer.close()
    reader.close()


def test_a_local_camera_is_paid_without_messages(
    link: tuple[FrameReader, FrameWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames go on although the reader may not send a single credit by ZeroMQ."""
    reader, writer = link
    deliver(writer, reader, 0).release()
    monkeypatch.setattr(bus_reader.FrameReader, "_send", lambda *_: pytest.fail("a message was sent"))
    for i in range(1, 20):
        assert writer.wait_credit(20)
        deliver(writer, reader, i).release()
    assert reader.drops == {}


def test_without_a_lane_credits_travel_by_message(tmp_path: Path) -> None:
    """A writer whose ring has no lane is paid all the same."""
    reader = FrameReader(tmp_path, "boot1")
    create_ring(tmp_path / "ring-cam-1", 1, H * W * 3)
    lane_path(tmp_path / "ring-cam-1").unlink()
    writer = FrameWriter(tmp_path, "cam", "i1", Ring.open(tmp_path / "ring-cam-1", writable=True))
    try:
        for i in range(5):
            deliver(writer, reader, i).release()
            assert writer.wait_credit(20)
    finally:
        writer.close()
        reader.close()


def test_wait_credit_waits_for_a_release_and_no_longer(link: tuple[FrameReader, FrameWriter]) -> None:
    """False while the reader keeps every slot, true as soon as one is handed back; nothing is counted as dropped."""
    reader, writer = link
    leases = [deliver(writer, reader, i) for i in range(3)]
    writer.drops.clear()
    assert not writer.wait_credit(0.01)
    threading.Timer(0.05, leases[1].release).start()
    assert writer.wait_credit(60)
    assert not writer.drops
    view = writer.reserve(H, W)
    assert view is not None
    assert writer.wait_credit(0), "a reserved slot is one that reserve would find"


def test_a_credit_that_an_answer_overtook_is_not_found_again(tmp_path: Path) -> None:
    """A slot freed by the reader's answer and sent again is not freed a second time by its old record in the lane."""
    writer = writer_of(tmp_path)
    lane = CreditSender.open(tmp_path / "ring-cam-1", "i1", "boot1")
    assert lane is not None
    with writer._lock:
        writer._meet("boot1", 0, set())
        writer.sent, writer._free = 3, []  # all three are under way
        lane.pay(1)
        writer._meet("boot1", 3, {0, 2})
        assert writer._free == [1]
        writer._free = []  # and slot 1 is under way again
        writer._drain_lane()
        assert writer._free == []
    lane.close()
    writer.close()

"""The frames link and what must not be believed: malformed messages, names that are none, peers on other hosts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.streamer.bus.bus_ends import H, W, deliver, picture, rogue_peer, until, writer_of
from vedette.streamer import wire
from vedette.streamer.bus import Cut, FrameReader, FrameWriter
from vedette.streamer.bus.ring import Ring, create_ring
from vedette.streamer.errors import WireError


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[FrameReader]:
    reader = FrameReader(tmp_path, "boot1")
    yield reader
    reader.close()


@pytest.fixture
def rogue(tmp_path: Path) -> Iterator[zmq.Socket[bytes]]:
    with rogue_peer(tmp_path) as socket:
        yield socket


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


@pytest.mark.parametrize(
    "body",
    [
        b'{"key":"a","mono_ns":1,"clip":[1]}',
        b'{"key":"a","mono_ns":1,"clip":[]}',
        b'{"key":"a","mono_ns":1,"clip":{"0":1}}',
        b'{"key":"a","mono_ns":1,"box":[1,2,3]}',
        b'{"key":"a","mono_ns":1,"box":7}',
        b'{"key":"a","mono_ns":null}',
        b"{}",
        b"[]",
    ],
)
def test_a_malformed_cut_costs_the_capture_process_nothing(tmp_path: Path, body: bytes) -> None:
    """Whatever a broken reader asks for is counted and dropped, and the next good request is heard."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.linger = 0
        socket.bind(wire.ipc(tmp_path, wire.FRAMES))
        writer = writer_of(tmp_path)
        try:
            until(lambda: writer.poll(10) or socket.poll(0), "the hello")
            identity = socket.recv_multipart()[0]
            socket.send_multipart([identity, b"cut", body])
            socket.send_multipart([identity, b"cut", b'{"key":"b","mono_ns":2,"box":null,"clip":[1,2]}'])
            heard: list[Cut] = []
            until(lambda: heard.extend(writer.poll(10)) or heard, "the good request")
            assert heard == [Cut("b", 2, None, (1.0, 2.0))]
            assert writer.drops["malformed"] == 1
        finally:
            writer.close()


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

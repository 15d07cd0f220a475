"""Both ends of every transport that `vedette bench transport` compares. A script of its own: peers may live in another Python.

    python transport_peers.py recv|send TRANSPORT PLACE HEIGHT WIDTH FPS SECONDS

TRANSPORT: vedette, vedette-copied, imagezmq, pyzmq-copy, pyzmq-zerocopy. PLACE: a run folder. FPS 0 is flat out. The
receiver prints one JSON line when it is ready, one when its warm-up is over and one with what it measured, and then
lives until it is killed; only frames whose checksum is right count.

Every sender's pictures are made the same way: a new one is written once, as a decoder or a resize does, into the memory
that the transport offers (a slot of our ring; an array of the sender's own elsewhere, and for vedette-copied). The sender stamps when the
picture is complete, the receiver when it can read the pixels, before the checksum; both halves count flat out.
"""

from __future__ import annotations

import functools
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zmq

#: Different pictures in turn, so that a stale or torn one has the wrong checksum.
PICTURES = 4
#: The ring's file in the run folder.
RING = "ring-bench-1"
#: Queue lengths of plain pyzmq: more only adds latency.
HIGH_WATER = 4

Received = tuple[int, int, Any]  # index of the picture, when it was sent (ns), pixels
Produce = Callable[[Any], None]  # writes the next picture into an array
Send = Callable[[int, Produce], None]


def rows(width: int) -> list[Any]:
    """The same random rows u8 [width,3] in every process; a picture is one of them from top to bottom."""
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, (width, 3), np.uint8) for _ in range(PICTURES)]


def paint(row: Any, memory: Any) -> None:
    """Make a picture: every byte is written, little is read, as when a decoder fills its output."""
    np.copyto(memory, row)


def checksum(pixels: Any) -> int:
    """Sum of the pixels as 64-bit words, modulo 2**64: reads every byte, at memory speed, the same for all."""
    flat = pixels.reshape(-1)
    words = flat[: flat.size // 8 * 8].view(np.uint64)
    return int(np.add.reduce(words)) % 2**64 + int(flat[flat.size // 8 * 8 :].sum())


def receive_vedette(place: Path, ready: Callable[[], None]) -> Iterator[Received]:
    """Our frames link: newest frame a camera."""
    from vedette.streamer.bus import FrameReader

    reader = FrameReader(place, "bench")
    ready()
    try:
        while True:
            for lease in reader.take(1, 1.0):
                with lease:
                    yield lease.header.seq % PICTURES, lease.header.mono_ns, lease.pixels
    finally:
        reader.close()


def sender_vedette(place: Path, height: int, width: int, *, copied: bool) -> Send:
    """Our frames link, flat out as fast as credits come back. copied: the picture is made elsewhere and copied in."""
    from vedette.engines.api import Letterbox
    from vedette.streamer.bus import FrameWriter
    from vedette.streamer.bus.ring import Ring
    from vedette.streamer.types import Frame

    ring = Ring.open(place / RING, writable=True)
    writer = FrameWriter(place, "bench", "1", ring)
    box = Letterbox.fit((height, width), (height, width))
    own = np.empty((height, width, 3), np.uint8)

    def send(number: int, produce: Produce) -> None:
        while (slot := writer.reserve(height, width)) is None:
            writer.wait_credit(1.0)
        pixels = own if copied else slot
        produce(pixels)
        writer.send(Frame("bench", 0, number, time.monotonic_ns(), 0.0, 0.0, pixels, box))

    return send


def receive_imagezmq(place: Path, ready: Callable[[], None]) -> Iterator[Received]:
    """imageZMQ as its README says, REQ/REP; the reply goes out before the checksum, so that both sides overlap."""
    import imagezmq

    hub = imagezmq.ImageHub(open_port=endpoint(place, "tcp"))
    ready()
    while True:
        message, pixels = hub.recv_image()
        hub.send_reply(b"OK")
        number, sent_ns = message.split()
        yield int(number), int(sent_ns), pixels


def sender_imagezmq(place: Path, height: int, width: int) -> Send:
    """imageZMQ's sender."""
    import imagezmq

    sender = imagezmq.ImageSender(connect_to=endpoint(place, "tcp"))
    pixels = np.empty((height, width, 3), np.uint8)

    def send(number: int, produce: Produce) -> None:
        produce(pixels)
        sender.send_image(f"{number % PICTURES} {time.monotonic_ns()}", pixels)

    return send


def receive_pyzmq(place: Path, height: int, width: int, ready: Callable[[], None], *, copy: bool) -> Iterator[Received]:
    """A plain PULL socket."""
    socket: Any = zmq.Context.instance().socket(zmq.PULL)
    socket.set_hwm(HIGH_WATER)
    socket.bind(endpoint(place, "ipc"))
    ready()
    while True:
        head, body = socket.recv_multipart(copy=copy)
        number, sent_ns = bytes(head).split()
        data = body if copy else body.buffer
        yield int(number), int(sent_ns), np.frombuffer(data, np.uint8).reshape(height, width, 3)


def sender_pyzmq(place: Path, height: int, width: int, *, copy: bool) -> Send:
    """A plain PUSH socket."""
    socket: Any = zmq.Context.instance().socket(zmq.PUSH)
    socket.set_hwm(HIGH_WATER)
    socket.connect(endpoint(place, "ipc"))

    # without copies a picture must stay untouched while it waits in the queues of both ends or is on its way
    stock = [np.empty((height, width, 3), np.uint8) for _ in range(1 if copy else 2 * HIGH_WATER + 2)]

    def send(number: int, produce: Produce) -> None:
        pixels = stock[number % len(stock)]
        produce(pixels)
        socket.send(b"%d %d" % (number % PICTURES, time.monotonic_ns()), zmq.SNDMORE)
        socket.send(pixels, copy=copy)

    return send


def endpoint(place: Path, transport: str) -> str:
    """Where this run's peers meet. The parent has put a free port into the folder."""
    return f"ipc://{place}/plain.sock" if transport == "ipc" else f"tcp://127.0.0.1:{(place / 'port').read_text()}"


def receiver_of(name: str, place: Path, height: int, width: int, ready: Callable[[], None]) -> Iterator[Received]:
    """The receiving end of a transport."""
    if name.startswith("vedette"):
        return receive_vedette(place, ready)
    if name == "imagezmq":
        return receive_imagezmq(place, ready)
    return receive_pyzmq(place, height, width, ready, copy=name == "pyzmq-copy")


def sender_of(name: str, place: Path, height: int, width: int) -> Send:
    """The sending end of a transport."""
    if name.startswith("vedette"):
        return sender_vedette(place, height, width, copied=name == "vedette-copied")
    if name == "imagezmq":
        return sender_imagezmq(place, height, width)
    return sender_pyzmq(place, height, width, copy=name == "pyzmq-copy")


def receive(name: str, place: Path, height: int, width: int, _fps: float, seconds: float) -> None:
    """Measure for ``seconds`` after a warm-up of a tenth of it."""
    right = [checksum(np.tile(row, (height, 1, 1))) for row in rows(width)]
    source = receiver_of(name, place, height, width, lambda: print(json.dumps({"ready": True}), flush=True))
    latencies: list[int] = []
    warm = False
    wrong = 0
    begins_ns = ends_ns = first_ns = last_ns = 0
    for number, sent_ns, pixels in source:
        now_ns = time.monotonic_ns()
        good = checksum(pixels) == right[number]
        if not begins_ns:
            begins_ns = now_ns + round(seconds * 1e8)
            ends_ns = begins_ns + round(seconds * 1e9)
        if now_ns >= begins_ns:
            if not warm:
                warm = True
                print(json.dumps({"warm": True}), flush=True)
            wrong += not good
            if good:
                first_ns = first_ns or now_ns
                last_ns = time.monotonic_ns()
                latencies.append(now_ns - sent_ns)
        if now_ns >= ends_ns:
            break
    span_s = max(1e-9, (last_ns - first_ns) / 1e9)
    p50, p95, p99 = (float(v) / 1e6 for v in np.percentile(latencies, (50, 95, 99)))
    result = {"delivered": len(latencies), "wrong": wrong, "fps": (len(latencies) - 1) / span_s}
    print(json.dumps(result | {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99}), flush=True)
    signal.pause()  # its processor time is still to be read


def send(name: str, place: Path, height: int, width: int, fps: float, _seconds: float) -> None:
    """Send until killed, flat out or at ``fps``."""
    stock = rows(width)
    push = sender_of(name, place, height, width)
    began = time.monotonic()
    number = 0
    while True:
        if fps:
            time.sleep(max(0.0, began + number / fps - time.monotonic()))
        push(number, functools.partial(paint, stock[number % PICTURES]))
        number += 1


def main() -> None:
    """One end of one run."""
    role, name, place, height, width, fps, seconds = sys.argv[1:]
    end = {"recv": receive, "send": send}[role]
    signal.alarm(round(4 * float(seconds)) + 20)  # the other end may have died
    end(name, Path(place), int(height), int(width), float(fps), float(seconds))


if __name__ == "__main__":
    main()

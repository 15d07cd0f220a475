"""The capture side of the frames link: a free slot, a descriptor, or a counted drop."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import zmq
from numpy.typing import NDArray

from vedette.streamer import wire
from vedette.streamer.bus.creditlane import CreditReceiver, key_of
from vedette.streamer.bus.link import HELLO_EVERY_S, MAX_MESSAGE, Cut, endpoint_of, tune, waiting
from vedette.streamer.bus.ring import Ring
from vedette.streamer.errors import WireError
from vedette.streamer.types import CAMERA_NAME, Frame

log = logging.getLogger("vedette.bus")

U8 = NDArray[np.uint8]

#: How long `FrameWriter.wait_credit` may overlook a message that another thread took in, seconds.
UNNOTICED_S = 0.005


class FrameWriter:
    """The capture side of the frames link. One thread may ``send``, another ``poll``; nothing in here blocks a sender.

    ring None sends pixels inside the message (a remote reader), still bounded by ``inline_slots`` credits.
    """

    def __init__(
        self, place: Path | str, camera: str, incarnation: str, ring: Ring | None, *, inline_slots: int = 4
    ) -> None:
        if CAMERA_NAME.fullmatch(camera) is None:
            raise ValueError(f"FrameWriter: camera needs {CAMERA_NAME.pattern}, got {camera!r}")
        self.camera = camera
        self.incarnation = incarnation
        #: pictures that were not sent, by reason: no_reader, no_credit
        self.drops: Counter[str] = Counter()
        self.sent = 0
        self._ring = ring
        self._lane = CreditReceiver.open(ring.path) if ring else None
        self._key = b""
        self._slots = ring.slots if ring else inline_slots
        self._free = list(range(self._slots))
        self._reserved: tuple[int, U8] | None = None
        self._boot = ""
        self._next_hello = 0.0
        self._lock = threading.Lock()
        self._cuts: deque[Cut] = deque(maxlen=1024)
        #: The reader's word that nothing is in doubt about the pictures so far.
        self.calm = False
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        tune(self._socket)
        self._socket.setsockopt(zmq.IDENTITY, camera.encode())
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing waits for a reader that is not there
        self._socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 250)
        self._socket.connect(endpoint_of(place))
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._waiter = select.poll()
        self._credit_waiter = select.poll()
        socket_fd = int(self._socket.getsockopt(zmq.FD))
        self._waiter.register(self._wake_fd, select.POLLIN)
        for waiter in (self._waiter, self._credit_waiter):
            waiter.register(socket_fd, select.POLLIN)
        if self._lane is not None:
            self._credit_waiter.register(self._lane.fd, select.POLLIN)

    def reserve(self, height: int, width: int) -> U8 | None:
        """A free slot to write the next picture into, u8 [height,width,3], or None (counted) when there is none.

        Pass the very view as ``Frame.pixels`` to ``send`` and nothing is copied. A view that was never sent is
        reused by the next call.
        """
        if self._ring is None and height * width * 3 > MAX_MESSAGE - wire.MAX_JSON:
            raise WireError(f"bus: a picture of {width}x{height} is too large to travel inside a message")
        with self._lock:
            self._unreserve()
            if not self._may_send():
                return None
            slot = self._free.pop()
            try:
                view = self._ring.view(slot, height, width) if self._ring else np.empty((height, width, 3), np.uint8)
            except WireError:
                self._free.append(slot)
                raise
            self._reserved = (slot, view)
            return view

    def send(self, frame: Frame) -> bool:
        """Send one picture; False when it was dropped, and `drops` says why. Never waits."""
        if self._reserved is None or frame.pixels is not self._reserved[1]:
            view = self.reserve(*frame.pixels.shape[:2])
            if view is None:
                return False
            _copy(view, frame.pixels)
        with self._lock:
            assert self._reserved is not None
            slot, view = self._reserved
            self._reserved = None
            message = [b"frame", wire.encode(self._header(frame, slot))]
            if self._ring is None:
                message.append(view.data)  # type: ignore[arg-type]
            if not self._push(message):
                self._free.append(slot)
                self.drops["no_reader"] += 1
                return False
            self.sent += 1
            self._drain()
            return True

    def wait_credit(self, timeout_s: float) -> bool:
        """Wait until `reserve` would find a free slot, at most ``timeout_s``; whether it would.

        For a sender that would rather be slow than drop a picture; nothing is counted.
        """
        end = time.monotonic() + timeout_s
        while True:
            with self._lock:
                if self._has_credit():
                    return True
                self._greet()
                # a message may be taken in by a `poll` in another thread, which this wait would not notice
                step_s = HELLO_EVERY_S if self._lane is not None and self._boot else UNNOTICED_S
            left_s = end - time.monotonic()
            if left_s <= 0:
                return False
            self._credit_waiter.poll(max(1, round(min(left_s, step_s) * 1000)))

    def send_snapshot(self, cut: Cut, jpeg: bytes | None) -> bool:
        """Answer a cut; None says that the picture is gone. False when no reader is there."""
        with self._lock:
            done = self._push([b"snapshot", wire.encode({"key": cut.key, "mono_ns": cut.mono_ns}), jpeg or b""])
            self._drain()
            return done

    def poll(self, timeout_ms: int = 0) -> list[Cut]:
        """Take in credits and the reader's boot, greet when it is time, and return the cuts that were asked for.

        Waits at most ``timeout_ms`` for a message to arrive; `wake` ends the wait from any thread.
        """
        with self._lock:
            self._drain_lane()
            news = self._drain()
            self._greet()
        if timeout_ms > 0 and not news and not self._cuts:
            # The socket's descriptor is edge-triggered: whoever takes in a cut elsewhere rings the wake_fd.
            self._waiter.poll(min(timeout_ms, int(HELLO_EVERY_S * 1000)))
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake_fd)
            with self._lock:
                self._drain()
        cuts = []
        while self._cuts:
            cuts.append(self._cuts.popleft())
        return cuts

    def wake(self) -> None:
        """End a `poll` that is waiting in another thread."""
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """Leave; what was already queued gets 200 ms to go out."""
        with self._lock:
            self._socket.close(linger=200)
            self._context.term()
            os.close(self._wake_fd)
            if self._lane is not None:
                self._lane.close()
                self._lane = None

    def _may_send(self) -> bool:
        if self._has_credit():
            return True
        self.drops["no_credit" if self._boot else "no_reader"] += 1
        self._greet()
        return False

    def _has_credit(self) -> bool:
        """Whether a slot is free; each thing is looked at only when those before it do not tell."""
        if not self._free:
            self._drain_lane()
        if not (self._boot and self._free):
            self._drain()
        return bool(self._boot and (self._free or self._reserved))

    def _unreserve(self) -> None:
        if self._reserved is not None:
            self._free.append(self._reserved[0])
            self._reserved = None

    def _header(self, frame: Frame, slot: int) -> dict[str, object]:
        """A `wire.FrameHeader` as JSON takes it: a dict, because this is done for every frame."""
        box = frame.letterbox
        return {
            "camera": self.camera,
            "incarnation": self.incarnation,
            "epoch": frame.epoch,
            "seq": frame.seq,
            "mono_ns": frame.mono_ns,
            "source_s": frame.source_s,
            "wall_s": frame.wall_s,
            "height": frame.pixels.shape[0],
            "width": frame.pixels.shape[1],
            "letterbox": (box.source_w, box.source_h, box.scale, box.pad_x, box.pad_y),
            "ring": self._ring.name if self._ring else None,
            "slot": slot,
            "boot": self._boot,
            "stats": None if frame.stats is None else frame.stats.to_json(),
        }

    def _greet(self) -> None:
        now = time.monotonic()
        if (self._free and self._boot) or now < self._next_hello:
            return
        if self._push([b"hello", wire.encode({"incarnation": self.incarnation, "sent": self.sent})]):
            self._next_hello = now + HELLO_EVERY_S
        else:
            self._next_hello = now + 0.02  # not connected yet: a failed try costs nothing

    def _push(self, message: Sequence[bytes]) -> bool:
        try:
            for part in message[:-1]:
                self._socket.send(part, zmq.NOBLOCK | zmq.SNDMORE)
            self._socket.send(message[-1], zmq.NOBLOCK)
        except zmq.Again:  # only the first part can meet it
            return False
        return True

    def _drain(self) -> bool:
        """Take in every waiting message; whether there was one. The lock is held."""
        news = False
        while waiting(self._socket):
            parts = self._socket.recv_multipart(zmq.NOBLOCK)
            news = True
            try:
                self._obey(parts)
            except (WireError, KeyError, TypeError, ValueError) as error:
                self.drops["malformed"] += 1
                log.debug("a message from the reader is malformed: %s", error)
        if self._cuts:
            self.wake()
        return news

    def _drain_lane(self) -> None:
        if self._lane is not None:
            self._take_back(self._lane.take(self._key))
            if self._lane.malformed:
                self.drops["malformed"] += self._lane.malformed
                self._lane.malformed = 0

    def _obey(self, parts: list[bytes]) -> None:
        if len(parts) != 2:
            raise WireError(f"bus: needs [kind, json], got {len(parts)} parts")
        kind, message = parts[0], wire.decode(parts[1])
        if kind == b"boot":
            self._meet(str(message["boot"]), int(message["sent"]), {int(s) for s in message["held"]})
        elif kind == b"credit":
            if message["boot"] == self._boot and message["incarnation"] == self.incarnation:
                self._take_back(int(slot) for slot in message["slots"])
        elif kind == b"calm":
            self.calm = message["calm"] is True
        elif kind == b"cut":
            self._cuts.append(Cut.of(message))
        else:
            raise WireError(f"bus: unknown kind {kind!r:.40}")

    def _meet(self, boot: str, sent: int, held: set[int]) -> None:
        # Credits that were paid before this answer must not be found after it: their slots may be under way again.
        self._drain_lane()
        if boot != self._boot:
            self._boot, self._key = boot, key_of(self.incarnation, boot)
            self.calm = False
            held = set()  # a new reader holds nothing, and drops what was paid for by another one
        elif sent != self.sent:
            return  # frames were sent since that hello; the next one will tell
        self._take_back(slot for slot in range(self._slots) if slot not in held)

    def _take_back(self, slots: Iterable[int]) -> None:
        mine = {*self._free, *([self._reserved[0]] if self._reserved else [])}
        for slot in slots:
            if 0 <= slot < self._slots and slot not in mine:
                mine.add(slot)
                self._free.append(slot)


def _copy(view: U8, pixels: U8) -> None:
    """Pixels into a slot; a fifth faster than NumPy's copy of rows where the memory is in one piece."""
    if pixels.flags.c_contiguous and pixels.dtype == np.uint8 and pixels.shape == view.shape:
        ctypes.memmove(view.ctypes.data, pixels.ctypes.data, view.nbytes)
    else:
        np.copyto(view, pixels)

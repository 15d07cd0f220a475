"""The newest frame of every camera, and who holds which slot. Not locked: the reader that owns it is."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from vedette.streamer.bus.creditlane import CreditSender
from vedette.streamer.bus.ring import Ring
from vedette.streamer.errors import WireError
from vedette.streamer.types import Frame
from vedette.streamer.wire import FrameHeader

U8 = NDArray[np.uint8]

#: (camera, incarnation, slot): one credit
Slot = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The answer to a cut: a JPEG with privacy applied, or None when that moment is gone (or the camera is away)."""

    camera: str
    key: str
    mono_ns: int
    jpeg: bytes | None


class Lease:
    """A frame that is ours to read until `release`. pixels: u8 [H,W,3], read-only; after release they may change."""

    __slots__ = ("_give_back", "header", "pixels")

    def __init__(self, header: FrameHeader, pixels: U8, give_back: Callable[[Slot], None]) -> None:
        self.header = header
        self.pixels = pixels
        self._give_back: Callable[[Slot], None] | None = give_back

    def frame(self) -> Frame:
        """The frame; its pixels are the leased ones."""
        h = self.header
        return Frame(h.camera, h.epoch, h.seq, h.mono_ns, h.source_s, h.wall_s, self.pixels, h.to_letterbox(), h.stats)

    def release(self) -> None:
        """Return the credit; once is enough, more do no harm. From any thread."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back(slot_of(self.header))

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def slot_of(header: FrameHeader) -> Slot:
    """The credit a frame was paid with."""
    assert header.slot is not None
    return header.camera, header.incarnation, header.slot


@dataclass(frozen=True, slots=True)
class _Writer:
    """What we have open of one life of a local camera. lane None: its credits travel by message."""

    incarnation: str
    ring: Ring
    lane: CreditSender | None

    def close(self) -> None:
        if self.lane is not None:
            self.lane.close()


class Mailbox:
    """Keeps one waiting frame a camera. Credits go back by the ring's lane where there is one, else by ``pay``.

    boot: the reader that leases are good for. give_back: what a lease's release calls.
    """

    def __init__(
        self, run_dir: Path, boot: str, pay: Callable[[Slot], None], give_back: Callable[[Slot], None]
    ) -> None:
        self.snapshots: deque[Snapshot] = deque(maxlen=1024)
        self.drops: Counter[tuple[str, str]] = Counter()
        self.waiting: dict[str, Lease] = {}
        self._run_dir = run_dir
        self._boot = boot
        self._message = pay
        self._give_back = give_back
        self._held: set[Slot] = set()
        self._writers: dict[str, _Writer] = {}

    def put(self, header: FrameHeader, blobs: list[bytes]) -> None:
        """A frame has arrived: map its pixels and let it take its camera's place. Raises WireError when malformed."""
        slot = slot_of(header)
        if slot in self._held:
            raise WireError(f"mailbox: slot {slot[2]} of {slot[0]!r} was sent twice without credit")
        if header.ring is None:
            pixels, header = _inline(header, blobs)
        else:
            try:
                pixels = self._mapped(header, blobs)
            except WireError:
                self.drops[header.camera, "bad_ring"] += 1
                self._pay(slot)
                return
        self._held.add(slot)
        superseded = self.waiting.get(header.camera)
        self.waiting[header.camera] = Lease(header, pixels, self._give_back)  # keeps the camera's place in the queue
        if superseded is not None:
            self.drops[header.camera, "superseded"] += 1
            superseded.release()

    def pop(self, most: int) -> list[Lease]:
        """At most ``most`` waiting frames, the camera that waits longest first."""
        return [self.waiting.pop(camera) for camera in list(self.waiting)[:most]]

    def free(self, slot: Slot) -> bool:
        """A lease has ended; whether that took a message."""
        self._held.discard(slot)
        return self._pay(slot)

    def held(self, camera: str, incarnation: str) -> list[int]:
        """The slots of a writer that this reader still reads."""
        return sorted(slot for c, i, slot in self._held if (c, i) == (camera, incarnation))

    def forget(self, camera: str) -> None:
        """Drop the frame that waits and unmap the ring."""
        lease = self.waiting.pop(camera, None)
        if lease is not None:
            lease.release()
        writer = self._writers.pop(camera, None)
        if writer is not None:
            writer.close()

    def close(self) -> None:
        """Close every lane. Pixels that somebody holds stay readable."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _pay(self, slot: Slot) -> bool:
        writer = self._writers.get(slot[0])
        if writer is not None and writer.lane is not None and writer.incarnation == slot[1]:
            writer.lane.pay(slot[2])
            return False
        self._message(slot)
        return True

    def _mapped(self, header: FrameHeader, blobs: list[bytes]) -> U8:
        assert header.ring is not None
        assert header.slot is not None
        if blobs:
            raise WireError("mailbox: pixels both in a ring and inline")
        writer = self._writers.get(header.camera)
        if writer is None or writer.ring.name != header.ring or writer.incarnation != header.incarnation:
            ring = Ring.open_in(self._run_dir, header.ring)
            if writer is not None:
                writer.close()
            writer = _Writer(header.incarnation, ring, CreditSender.open(ring.path, header.incarnation, self._boot))
            self._writers[header.camera] = writer
        return writer.ring.view(header.slot, header.height, header.width)


def _inline(header: FrameHeader, blobs: list[bytes]) -> tuple[U8, FrameHeader]:
    if len(blobs) != 1 or len(blobs[0]) != header.nbytes:
        raise WireError(f"mailbox: needs {header.nbytes} bytes of pixels, got {[len(b) for b in blobs]}")
    pixels = np.frombuffer(blobs[0], np.uint8).reshape(header.height, header.width, 3)
    # Another host's monotonic clock means nothing here.
    return pixels, replace(header, mono_ns=time.monotonic_ns())

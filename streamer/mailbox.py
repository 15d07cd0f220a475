"""The newest frame of every camera, and who holds which slot: shared by the reader's thread and the one that infers."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from vedette.streamer.errors import WireError
from vedette.streamer.ring import Ring
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
        return Frame(h.camera, h.epoch, h.seq, h.mono_ns, h.source_s, h.wall_s, self.pixels, h.to_letterbox())

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


class Mailbox:
    """Keeps one waiting frame a camera. ``ring_bell`` is called when credits wait to be sent back."""

    def __init__(self, run_dir: Path, boot: str, ring_bell: Callable[[], None]) -> None:
        self.snapshots: deque[Snapshot] = deque(maxlen=1024)
        self._run_dir = run_dir
        self._boot = boot
        self._ring_bell = ring_bell
        self._waiting: dict[str, Lease] = {}
        self._held: set[Slot] = set()
        self._released: deque[Slot] = deque()
        self._rings: dict[str, Ring] = {}
        self._drops: Counter[tuple[str, str]] = Counter()
        self._changed = threading.Condition()
        self._woken = False

    def put(self, header: FrameHeader, blobs: list[bytes]) -> None:
        """A frame has arrived: map its pixels and let it take its camera's place. Raises WireError when it is malformed."""
        slot = slot_of(header)
        if slot in self._held:
            raise WireError(f"mailbox: slot {slot[2]} of {slot[0]!r} was sent twice without credit")
        if header.ring is None:
            pixels, header = self._inline(header, blobs)
        else:
            try:
                pixels = self._mapped(header, blobs)
            except WireError:
                self.count(header.camera, "bad_ring")
                self._released.append(slot)
                return
        lease = Lease(header, pixels, self._give_back)
        with self._changed:
            self._held.add(slot)
            superseded = self._waiting.get(header.camera)
            self._waiting[header.camera] = lease  # keeps the place the camera has in the queue
            if superseded is not None:
                self._drops[header.camera, "superseded"] += 1
            self._changed.notify()
        if superseded is not None:
            superseded.release()

    def take(self, max_batch: int, wait_s: float, fill_s: float) -> list[Lease]:
        """See `FrameReader.take`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._woken or self.snapshots, wait_s)
            if fill_s > 0 and self._waiting:
                until = time.monotonic() + fill_s
                while len(self._waiting) < max_batch and not self._woken and (left := until - time.monotonic()) > 0:
                    self._changed.wait(left)
            self._woken = False
            cameras = list(self._waiting)[:max_batch]
            return [self._waiting.pop(camera) for camera in cameras]

    def wake(self) -> None:
        """End a `take` that waits."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def post(self, snapshot: Snapshot) -> None:
        """A snapshot has arrived."""
        with self._changed:
            self.snapshots.append(snapshot)
            self._changed.notify()

    def count(self, camera: str, reason: str) -> None:
        """One more drop."""
        with self._changed:
            self._drops[camera, reason] += 1

    def drops(self) -> dict[tuple[str, str], int]:
        """All drops so far by (camera, reason)."""
        with self._changed:
            return dict(self._drops)

    def held(self, camera: str, incarnation: str) -> list[int]:
        """The slots of a writer that this reader still reads."""
        with self._changed:
            return sorted(slot for c, i, slot in self._held if (c, i) == (camera, incarnation))

    def released(self) -> dict[tuple[str, str], list[int]]:
        """Credits that wait to be sent back, by writer; they are taken out."""
        back: dict[tuple[str, str], list[int]] = defaultdict(list)
        while self._released:
            camera, incarnation, slot = self._released.popleft()
            back[camera, incarnation].append(slot)
        return back

    def forget(self, camera: str) -> None:
        """Drop the frame that waits and unmap the ring."""
        with self._changed:
            lease = self._waiting.pop(camera, None)
        self._rings.pop(camera, None)
        if lease is not None:
            lease.release()

    def _give_back(self, slot: Slot) -> None:
        with self._changed:
            self._held.discard(slot)
        self._released.append(slot)
        self._ring_bell()

    def _inline(self, header: FrameHeader, blobs: list[bytes]) -> tuple[U8, FrameHeader]:
        if len(blobs) != 1 or len(blobs[0]) != header.nbytes:
            raise WireError(f"mailbox: needs {header.nbytes} bytes of pixels, got {[len(b) for b in blobs]}")
        pixels = np.frombuffer(blobs[0], np.uint8).reshape(header.height, header.width, 3)
        # Another host's monotonic clock means nothing here.
        return pixels, replace(header, mono_ns=time.monotonic_ns())

    def _mapped(self, header: FrameHeader, blobs: list[bytes]) -> U8:
        assert header.ring is not None
        assert header.slot is not None
        if blobs:
            raise WireError("mailbox: pixels both in a ring and inline")
        ring = self._rings.get(header.camera)
        if ring is None or ring.name != header.ring:
            ring = self._rings[header.camera] = Ring.open_in(self._run_dir, header.ring)
        return ring.view(header.slot, header.height, header.width)

"""JPEGs of the past in one block of memory that is taken once.

Pictures of ever different sizes, each with a piece of heap of its own, leave gaps between them that nothing fits. Here the
oldest make room for the newest in place.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a JPEG lies. mono_ns: when its picture was taken."""

    mono_ns: int
    start: int
    size: int


class JpegRing:
    """A ring of ``nbytes``. Not for two threads at once; what is `kept` holds until the next `push`."""

    def __init__(self, nbytes: int) -> None:
        self._block: U8 = np.empty(nbytes, np.uint8)  # pages become real when they are written
        self._next = 0
        self.kept: deque[Kept] = deque()  # oldest first
        self.nbytes = 0  # what they take; told with every picture, so it is not summed anew

    def push(self, mono_ns: int, jpeg: U8) -> None:
        """Copy a JPEG u8 [N] in; the oldest make room. One that is larger than the ring is not kept."""
        size = len(jpeg)
        if size > len(self._block):
            return
        start = self._next
        if start + size > len(self._block):  # what lies behind is the oldest of all, and would be forgotten out of turn
            self._forget(start, len(self._block))
            start = 0
        self._forget(start, start + size)
        self._block[start : start + size] = jpeg
        self.kept.append(Kept(mono_ns, start, size))
        self._next = start + size
        self.nbytes += size

    def _forget(self, start: int, end: int) -> None:
        """The oldest, as long as they begin between those bytes."""
        while self.kept and start <= self.kept[0].start < end:
            self.nbytes -= self.kept.popleft().size

    def read(self, kept: Kept) -> bytes:
        """A copy of one that is `kept`."""
        return self._block[kept.start : kept.start + kept.size].tobytes()

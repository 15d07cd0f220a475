"""Past pictures of one camera in bounded memory, so that an alert can show the moment it is about.

The newest ones (about 1.5 s, less when they are large) are kept whole as YUV 4:2:0, which is what a JPEG holds
anyway at half the memory of BGR; of the older ones a few a second stay as JPEG. Privacy is already burned in.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

#: How long pictures stay whole, seconds, and how far a picture may be from the moment that was asked for.
WHOLE_S = 1.5
FARTHEST_S = 2.0
#: Distance of the JPEGs kept of older moments, seconds.
JPEG_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class _Whole:
    mono_ns: int
    data: U8
    yuv: bool

    def bgr(self) -> U8:
        return cv2.cvtColor(self.data, cv2.COLOR_YUV2BGR_I420) if self.yuv else self.data


class EvidenceRing:
    """`push` in the thread that reads, `compact` and `cut` in the one that has time.

    max_bytes: half for whole pictures, half for JPEGs; more reaches farther back. max_side: larger pictures are
    stored smaller. quality: JPEG's 0..100.
    """

    def __init__(self, max_bytes: int, *, quality: int = 85, max_side: int = 1920, enabled: bool = True) -> None:
        self._half = max_bytes // 2
        self._quality = quality
        self._max_side = max_side
        self._enabled = enabled
        self._lock = threading.Lock()
        self._whole: deque[_Whole] = deque()
        self._whole_bytes = 0
        self._leaving: _Whole | None = None
        self._jpegs: deque[tuple[int, bytes]] = deque()
        self._jpeg_bytes = 0
        self._next_jpeg_ns = 0

    @property
    def nbytes(self) -> int:
        """Memory held now."""
        with self._lock:
            leaving = self._leaving.data.nbytes if self._leaving else 0
            return self._whole_bytes + self._jpeg_bytes + leaving

    def push(self, picture: U8, mono_ns: int) -> None:
        """Remember a picture u8 [H,W,3] BGR (it is copied)."""
        if not self._enabled:
            return
        whole = _store(picture, mono_ns, self._max_side)
        with self._lock:
            self._whole.append(whole)
            self._whole_bytes += whole.data.nbytes
            oldest_ns = mono_ns - round(WHOLE_S * 1e9)
            while len(self._whole) > 1 and (self._whole[0].mono_ns < oldest_ns or self._whole_bytes > self._half):
                leaving = self._whole.popleft()
                self._whole_bytes -= leaving.data.nbytes
                if leaving.mono_ns >= self._next_jpeg_ns:
                    self._leaving = leaving
                    self._next_jpeg_ns = leaving.mono_ns + round(JPEG_EVERY_S * 1e9)

    def compact(self) -> None:
        """Encode the picture that is about to be forgotten, when one is."""
        with self._lock:
            leaving, self._leaving = self._leaving, None
        if leaving is None:
            return
        jpeg = self._encode(leaving)
        with self._lock:
            self._jpegs.append((leaving.mono_ns, jpeg))
            self._jpeg_bytes += len(jpeg)
            while self._jpeg_bytes > self._half:
                self._jpeg_bytes -= len(self._jpegs.popleft()[1])

    def cut(self, mono_ns: int) -> bytes | None:
        """The JPEG of the picture nearest to that moment, or None when none within 2 s is remembered."""
        with self._lock:
            known: list[tuple[int, _Whole | bytes]] = [(whole.mono_ns, whole) for whole in self._whole]
            if self._leaving is not None:
                known.append((self._leaving.mono_ns, self._leaving))
            known += self._jpegs
        if not known:
            return None
        at_ns, found = min(known, key=lambda item: abs(item[0] - mono_ns))
        if abs(at_ns - mono_ns) > FARTHEST_S * 1e9:
            return None
        return found if isinstance(found, bytes) else self._encode(found)

    def _encode(self, whole: _Whole) -> bytes:
        good, jpeg = cv2.imencode(".jpg", whole.bgr(), [cv2.IMWRITE_JPEG_QUALITY, self._quality])
        if not good:
            raise ValueError(f"evidence: a picture {list(whole.data.shape)} cannot be encoded")
        return jpeg.tobytes()


def _store(picture: U8, mono_ns: int, max_side: int) -> _Whole:
    height, width = picture.shape[:2]
    longest = max(height, width)
    if longest > max_side:
        shrunk = max(2, round(width * max_side / longest)), max(2, round(height * max_side / longest))
        picture = cv2.resize(picture, (shrunk[0] & ~1, shrunk[1] & ~1), interpolation=cv2.INTER_AREA)
    if picture.shape[0] % 2 == 0 and picture.shape[1] % 2 == 0:
        return _Whole(mono_ns, cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420), yuv=True)
    return _Whole(mono_ns, picture.copy(), yuv=False)

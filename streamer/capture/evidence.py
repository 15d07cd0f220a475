"""Past pictures of one camera in bounded memory, so that an alert can show the moment it is about.

The newest ones (about 1.5 s, less when they are large) are kept whole as YUV 4:2:0, which is what a JPEG holds
anyway at half the memory of BGR; of the older ones a few a second stay as JPEG (`vedette.streamer.capture.jpegring`).
Privacy is already burned in.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from vedette.streamer.capture.clip import Shot
from vedette.streamer.capture.jpegring import JpegRing, Kept

U8 = NDArray[np.uint8]

#: How long pictures stay whole, seconds, and how far a picture may be from the moment that was asked for.
WHOLE_S = 1.5
FARTHEST_S = 2.0
#: Distance of the JPEGs kept of older moments, seconds, unless a clip wants another one.
JPEG_EVERY_S = 0.25
#: Pictures that wait to be encoded, at most.
MOST_LEAVING = 4


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
    stored smaller. quality: JPEG's 0..100. jpeg_every_s: distance of the JPEGs; more often is smoother clips and more CPU.
    """

    def __init__(
        self,
        max_bytes: int,
        *,
        quality: int = 85,
        max_side: int = 1920,
        enabled: bool = True,
        jpeg_every_s: float = JPEG_EVERY_S,
    ) -> None:
        self._every_ns = round(jpeg_every_s * 1e9)
        self._half = max_bytes // 2
        self._quality = quality
        self._max_side = max_side
        self._enabled = enabled
        self._lock = threading.Lock()
        self._whole: deque[_Whole] = deque()
        self._whole_bytes = 0
        self._leaving: deque[_Whole] = deque(maxlen=MOST_LEAVING)
        self._jpegs = JpegRing(self._half if enabled else 0)
        self._next_jpeg_ns = 0

    @property
    def nbytes(self) -> int:
        """Memory held now."""
        with self._lock:
            leaving = sum(whole.data.nbytes for whole in self._leaving)
            return self._whole_bytes + self._jpegs.nbytes + leaving

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
                    self._leaving.append(leaving)
                    self._next_jpeg_ns = leaving.mono_ns + self._every_ns

    def compact(self) -> None:
        """Encode the pictures that are about to be forgotten, when there are some."""
        while self._leaving:
            self._compact_one()

    def _compact_one(self) -> None:
        with self._lock:
            leaving = self._leaving[0]
        jpeg = self._encode(leaving)
        with self._lock:
            if self._leaving and self._leaving[0] is leaving:
                self._leaving.popleft()
            self._jpegs.push(leaving.mono_ns, jpeg)

    def cut(self, mono_ns: int) -> bytes | None:
        """The JPEG of the picture nearest to that moment, or None when none within 2 s is remembered."""
        with self._lock:
            found = min(self._known(), key=lambda known: abs(known.mono_ns - mono_ns), default=None)
            if found is None or abs(found.mono_ns - mono_ns) > FARTHEST_S * 1e9:
                return None
            if isinstance(found, Kept):
                return self._jpegs.read(found)
        return self._encode(found).tobytes()

    def span(self, from_ns: int, until_ns: int) -> list[Shot]:
        """Every picture remembered of that time, oldest first; each is decoded when it is called for."""
        with self._lock:
            chosen = [known for known in self._known() if from_ns <= known.mono_ns <= until_ns]
            shots: list[Shot] = [
                (known.mono_ns, known.bgr if isinstance(known, _Whole) else partial(_decode, self._jpegs.read(known)))
                for known in chosen
            ]
        return sorted(shots, key=lambda shot: shot[0])

    def _known(self) -> list[_Whole | Kept]:
        return [*self._leaving, *self._whole, *self._jpegs.kept]

    def _encode(self, whole: _Whole) -> U8:
        good, jpeg = cv2.imencode(".jpg", whole.bgr(), [cv2.IMWRITE_JPEG_QUALITY, self._quality])
        if not good:
            raise ValueError(f"evidence: a picture {list(whole.data.shape)} cannot be encoded")
        return np.asarray(jpeg, np.uint8).reshape(-1)


def _decode(jpeg: bytes) -> U8:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError("evidence: a picture of our own cannot be decoded")
    return np.asarray(picture, np.uint8)


def _store(picture: U8, mono_ns: int, max_side: int) -> _Whole:
    height, width = picture.shape[:2]
    longest = max(height, width)
    if longest > max_side:
        shrunk = max(2, round(width * max_side / longest)), max(2, round(height * max_side / longest))
        picture = cv2.resize(picture, (shrunk[0] & ~1, shrunk[1] & ~1), interpolation=cv2.INTER_AREA)
    if picture.shape[0] % 2 == 0 and picture.shape[1] % 2 == 0:
        return _Whole(mono_ns, cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420), yuv=True)
    return _Whole(mono_ns, picture.copy(), yuv=False)

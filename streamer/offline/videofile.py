"""The pictures of a file, every one, with the file's own timestamps: what `process` reads.

A thread decodes ahead of the engine; the order and the times do not depend on how fast either is.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import Letterbox
from vedette.streamer.capture.letterbox import draw_letterbox
from vedette.streamer.capture.pacing import Sampler, SourceClock
from vedette.streamer.capture.privacy import PrivacyMask
from vedette.streamer.errors import SourceError
from vedette.streamer.sources import file
from vedette.streamer.sources.base import EndOfStream, Info, Want

U8 = NDArray[np.uint8]
T = TypeVar("T")

#: Frames a second of a file that does not say.
UNKNOWN_FPS = 25.0
#: Pictures decoded ahead of the engine.
AHEAD = 4


@dataclass(frozen=True, slots=True)
class Picture:
    """index: number of the source frame, from 0. time_s: seconds since the first. canvas: u8 [h,w,3] for the engine.
    full: the picture with privacy applied, u8 [H,W,3], or None when it was not asked for."""

    index: int
    time_s: float
    canvas: U8
    letterbox: Letterbox
    full: U8 | None


class VideoFile:
    """An opened file. Raises SourceError when it cannot be opened.

    fps: at most so many pictures a second of the file's own time, None for every one. full: keep the whole pictures.
    """

    def __init__(
        self,
        path: Path,
        canvas_hw: tuple[int, int],
        *,
        mask: PrivacyMask | None = None,
        fps: float | None = None,
        full: bool = False,
    ) -> None:
        self.path = path
        self._hw, self._mask, self._full = canvas_hw, mask or PrivacyMask([]), full
        self._sampler = None if fps is None else Sampler(fps)
        self._reader = file.KIND.open(str(path), Want())
        self.frames = 0
        self.fault: str | None = None

    @property
    def info(self) -> Info:
        """What the file says about itself."""
        return self._reader.info

    def pictures(self) -> Iterator[Picture]:
        """Every picture that can be decoded, in order; ``frames`` counts them, skipped ones included.

        A file that breaks in its middle ends there, and ``fault`` says why.
        """
        clock = SourceClock()
        interval_s = 1.0 / (self.info.fps or UNKNOWN_FPS)
        while True:
            try:
                stamp_s = self._reader.grab()
            except EndOfStream:
                return
            except SourceError as error:
                self.fault = str(error)
                return
            # where stamps are missing or jump, frames are taken to be evenly spaced: never the time it takes to read
            time_s = clock.at(stamp_s, self.frames * interval_s)
            index = self.frames
            self.frames += 1
            if self._sampler is None or self._sampler.takes(time_s):
                try:
                    picture = self._picture(index, time_s)
                except SourceError as error:
                    self.fault = str(error)
                    return
                yield picture

    def close(self) -> None:
        """Let the file go."""
        self._reader.close()

    def _picture(self, index: int, time_s: float) -> Picture:
        pixels = self._reader.retrieve()
        self._mask.apply(pixels)
        canvas = np.empty((*self._hw, 3), np.uint8)
        letterbox = draw_letterbox(pixels, canvas)
        return Picture(index, time_s, canvas, letterbox, pixels.copy() if self._full else None)


class Ahead(Generic[T]):
    """Runs an iterator in a thread, a few items ahead of its consumer; its exception arrives in its place."""

    def __init__(self, items: Iterator[T], ahead: int = AHEAD) -> None:
        self._queue: queue.Queue[tuple[T] | Exception | None] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(items,), name="decode", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while (found := self._queue.get()) is not None:
            if isinstance(found, Exception):
                raise found
            yield found[0]

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._queue.get(timeout=0.05)

    def _fill(self, items: Iterator[T]) -> None:
        try:
            for item in items:
                self._queue.put((item,))
                if self._stop.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - raised again where the item is asked for
            self._queue.put(error)
        else:
            self._queue.put(None)

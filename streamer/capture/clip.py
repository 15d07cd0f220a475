"""A short film of an incident, made of remembered pictures.

MPEG-4 Part 2 in an mp4 file: what every OpenCV wheel can write without patents or a GPU, about 5 ms a picture of 960x540
(VP8 takes 20 times as long), and what VLC, mpv, ffmpeg, Windows and Android play; browsers do not, they show the
snapshot. The same pictures give the same bytes on the same build of OpenCV: one thread, a fixed grid of time, no date.
"""

from __future__ import annotations

import logging
import os
import queue
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vedette.streamer.errors import VedetteError

log = logging.getLogger("vedette.clip")

U8 = NDArray[np.uint8]

#: A moment and how to get its picture u8 [H,W,3]; getting may take milliseconds.
Shot = tuple[int, Callable[[], U8]]
#: Clips that wait to be made, per camera; more are refused at once.
MOST_WAITING = 16
#: How polite the thread that makes them is: analysis comes first.
NICE = 5


@dataclass(frozen=True, slots=True)
class ClipForm:
    """fps: pictures a second. max_side: larger pictures are made smaller."""

    fps: float = 5.0
    max_side: int = 960


def encode_clip(shots: Sequence[Shot], from_ns: int, until_ns: int, form: ClipForm, folder: Path) -> bytes:
    """The mp4 of what the camera showed from one moment to the other, in real time; a gap shows the picture before it.

    shots: oldest first, at least one. It begins with the first shot when that is later than ``from_ns``. folder: where a
    temporary file may be. Raises VedetteError when it cannot be written.
    """
    if not shots:
        raise VedetteError("clip: no picture of that time is remembered")
    from_ns = max(from_ns, min(shots[0][0], until_ns))
    step_ns = 1e9 / form.fps
    count = max(1, int((until_ns - from_ns) / step_ns) + 1)
    moments = np.array([moment for moment, _ in shots], np.int64)
    grid = from_ns + np.arange(count) * step_ns
    chosen = np.maximum(0, np.searchsorted(moments, grid, side="right") - 1)
    descriptor, name = tempfile.mkstemp(suffix=".mp4", prefix=".clip-", dir=folder)
    os.close(descriptor)
    path = Path(name)
    try:
        _write(path, [shots[i][1] for i in chosen.tolist()], chosen.tolist(), form)
        return path.read_bytes()
    finally:
        path.unlink(missing_ok=True)


def _write(path: Path, pictures: Sequence[Callable[[], U8]], numbers: Sequence[int], form: ClipForm) -> None:
    writer: cv2.VideoWriter | None = None
    last, shown, size = -1, None, (0, 0)
    try:
        for number, picture in zip(numbers, pictures, strict=True):
            if number != last or shown is None:
                shown, last = picture(), number
                if writer is None:
                    size = _size(shown.shape[1], shown.shape[0], form.max_side)
                    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), form.fps, size)
                    if not writer.isOpened():
                        raise VedetteError(f"clip: {path}: this OpenCV cannot write mp4")
                if (shown.shape[1], shown.shape[0]) != size:
                    shown = np.asarray(cv2.resize(shown, size, interpolation=cv2.INTER_AREA), np.uint8)
            assert writer is not None
            writer.write(shown)
    finally:
        if writer is not None:
            writer.release()


def _size(width: int, height: int, max_side: int) -> tuple[int, int]:
    """Even sides, the longer one at most ``max_side``."""
    scale = min(1.0, max_side / max(width, height))
    return max(2, round(width * scale) & ~1), max(2, round(height * scale) & ~1)


class ClipMaker:
    """Makes clips one after the other in a thread of low priority, so that neither reading nor snapshots wait for them."""

    def __init__(self, name: str) -> None:
        self.made = self.failed = self.refused = 0
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(MOST_WAITING)
        self._name = name
        self._thread: threading.Thread | None = None

    def ask(self, make: Callable[[], bytes], done: Callable[[bytes | None], object]) -> None:
        """Call ``done`` with what ``make`` returns, None when it fails or too many wait. In another thread, mostly."""

        def job() -> None:
            try:
                clip = make()
            except (VedetteError, cv2.error, OSError, ValueError) as error:
                self.failed += 1
                if self.failed == 1:
                    log.warning("%s: a clip could not be made: %s", self._name, error)
                done(None)
                return
            self.made += 1
            done(clip)

        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="clips", daemon=True)
            self._thread.start()
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self.refused += 1
            done(None)

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while (job := self._jobs.get()) is not None:
            job()

    def close(self, timeout_s: float = 0.5) -> None:
        """Give up what waits; what is being made may take ``timeout_s``."""
        while not self._jobs.empty():
            self._jobs.get_nowait()
        self._jobs.put_nowait(None)
        if self._thread is not None:
            self._thread.join(timeout_s)

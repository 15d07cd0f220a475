"""Is the picture standing still? A frozen camera looks healthy and shows nothing: worse than none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

#: Samples along each side: enough for a running clock in a corner to be noticed, cheap enough for every picture.
SAMPLES = 192
#: Grey levels by which an encoder changes a picture that does not change; sensor noise somewhere is always more.
LEVELS = 2


class FrozenDetector:
    """Says when all samples of the picture, or the source's own clock, stood still for ``after_s`` seconds.

    after_s: longer forgives still scenes behind strong compression, and reports a frozen camera later.
    """

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._reference: NDArray[np.int16] | None = None
        self._moved_s = 0.0
        self._stamp = float("-inf")
        self._ticked_s: float | None = None

    def restart(self) -> None:
        """A connection begins: nothing has stood still yet. The reference stays: a reconnect does not thaw a picture."""
        self._ticked_s = None
        self._stamp = float("-inf")

    def update(self, picture: U8, mono_s: float, stamp_s: float) -> bool:
        """Whether the picture stands still, given the newest one u8 [H,W,3], its arrival and its timestamp.

        stamp_s: the source's own timestamp as it gives it; a source that never gives one (always 0) is judged by
        its pictures alone.
        """
        height, width = picture.shape[:2]
        step_y, step_x = max(1, height // SAMPLES), max(1, width // SAMPLES)
        samples = picture[::step_y, ::step_x, 1].astype(np.int16)
        same = (
            self._reference is not None
            and self._reference.shape == samples.shape
            and int(np.abs(samples - self._reference).max()) <= LEVELS
        )
        if not same:
            self._reference, self._moved_s = samples, mono_s
        if stamp_s != self._stamp or self._ticked_s is None:
            self._stamp, self._ticked_s = stamp_s, mono_s
        stuck_clock = stamp_s > 0 and mono_s - self._ticked_s >= self._after_s
        return stuck_clock or mono_s - self._moved_s >= self._after_s

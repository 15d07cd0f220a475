"""Something new that stands still: a background model of a small grey picture, a few times a second.

Two memories a pixel: the background, learned slowly, and a candidate that differs from it, with the time for which it
has stayed the same (Porikli's dual backgrounds, 2008, with a clock instead of a second learning rate). A passer-by who
hides the candidate stops its clock and does not reset it. What stays long enough becomes background itself.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
Box = tuple[float, float, float, float]

#: Learning the empty scene from the first pictures, and following it afterwards, seconds.
LEARN_S, FOLLOW_S = 3.0, 30.0
#: Grey levels by which a pixel differs from the background, and by which a candidate may flicker and stay the same.
DIFFERS, SAME = 18.0, 10.0
#: A candidate that has stood still for so long is told, seconds; its clock runs back so many times faster while
#: neither it nor the background is seen for longer than that.
STILL_S, HIDDEN_S = 1.5, 20.0
#: What stands still for so long is background, seconds.
ABSORB_S = 900.0
#: Changed all at once, this share of the picture is light (or a turned camera), not an object.
MOST_CHANGED = 0.35
#: Least area of a blob, pixels of the small picture; at most so many blobs are told.
LEAST_AREA, MOST_BLOBS = 8, 8


class StaticScene:
    """The model of one camera."""

    def __init__(self) -> None:
        self._background: F32 | None = None
        self._candidate: F32
        self._still_s: F32
        self._hidden_s: F32
        self._learned_s = 0.0

    def step(self, small: U8, step_s: float) -> list[tuple[Box, float, float]]:
        """Take a grey picture in; what stands still that was not there, (box, seconds, added) each, largest first."""
        grey = small.astype(np.float32)
        if self._background is None or self._background.shape != grey.shape:
            self._begin(grey)
            return []
        if self._learned_s < LEARN_S:
            self._learned_s += max(step_s, 1e-3)
            self._background += (grey - self._background) * np.float32(max(step_s, 1e-3) / self._learned_s)
            return []
        foreground = np.abs(grey - self._background) > DIFFERS
        share = np.count_nonzero(foreground) / foreground.size
        if share > MOST_CHANGED:
            self._relight(grey, foreground, step_s)
            return []
        np.add(
            self._background, (grey - self._background) * np.float32(step_s / (FOLLOW_S + step_s)),
            out=self._background, where=~foreground,
        )  # fmt: skip
        if share == 0.0 and not self._still_s.any():
            return []
        self._clock(grey, foreground, step_s)
        return self._blobs(grey)

    def _begin(self, grey: F32) -> None:
        self._background, self._learned_s = grey.copy(), 0.0
        self._candidate = grey.copy()
        self._still_s = np.zeros_like(grey)
        self._hidden_s = np.zeros_like(grey)

    def _relight(self, grey: F32, foreground: NDArray[np.bool_], step_s: float) -> None:
        """Too much has changed to be objects: learn quickly, tell nothing."""
        assert self._background is not None
        self._background += (grey - self._background) * np.float32(min(1.0, step_s / LEARN_S))
        self._still_s[foreground] = 0.0

    def _clock(self, grey: F32, foreground: NDArray[np.bool_], step_s: float) -> None:
        """Run, stop or reset the clock of every pixel that differs from the background."""
        assert self._background is not None
        same = foreground & (np.abs(grey - self._candidate) <= SAME)
        other = foreground & ~same
        fresh = other & (self._still_s <= 0)
        self._candidate[fresh] = grey[fresh]
        self._candidate[same] += (grey[same] - self._candidate[same]) * np.float32(0.2)
        # a hidden candidate waits; one that stays hidden, or whose background is seen again, is over
        self._hidden_s[same] = 0.0
        self._hidden_s[other] += np.float32(step_s)
        over = (other & (self._still_s > 0) & ((self._hidden_s > HIDDEN_S) | (self._still_s < STILL_S))) | ~foreground
        self._still_s[over] = np.maximum(0.0, self._still_s[over] - np.float32(4 * step_s) - self._still_s[over] / 2)
        self._still_s[over & (self._still_s < 0.1)] = 0.0
        self._still_s[same | fresh] += np.float32(step_s)
        usual = self._still_s > ABSORB_S
        if usual.any():
            self._background[usual], self._still_s[usual] = self._candidate[usual], 0.0

    def _blobs(self, grey: F32) -> list[tuple[Box, float, float]]:
        assert self._background is not None
        still = (self._still_s >= STILL_S).astype(np.uint8)
        if not still.any():
            return []
        joined = cv2.morphologyEx(still, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        count, labels, table, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
        height, width = grey.shape
        found = []
        for i in np.argsort(-table[1:count, cv2.CC_STAT_AREA])[:MOST_BLOBS] + 1:
            x, y, w, h, area = (int(v) for v in table[i])
            if area < LEAST_AREA:
                break
            mask = (labels[y : y + h, x : x + w] == i) & (still[y : y + h, x : x + w] > 0)
            since_s = float(np.median(self._still_s[y : y + h, x : x + w][mask]))
            box = (round(x / width, 4), round(y / height, 4), round((x + w) / width, 4), round((y + h) / height, 4))
            found.append((box, round(since_s, 2), self._added(labels == i, x, y, w, h)))
        return found

    def _added(self, mask: NDArray[np.bool_], x: int, y: int, w: int, h: int) -> float:
        """Share of the outline's gradient that the scene shows now, against what the background shows there."""
        assert self._background is not None
        height, width = mask.shape
        top, bottom, left, right = max(0, y - 2), min(height, y + h + 2), max(0, x - 2), min(width, x + w + 2)
        inside = mask[top:bottom, left:right].astype(np.uint8)
        ring = cv2.dilate(inside, np.ones((3, 3), np.uint8)) - cv2.erode(inside, np.ones((3, 3), np.uint8))
        now, before = (
            _energy(picture[top:bottom, left:right], ring)
            for picture in (np.where(mask, self._candidate, self._background), self._background)
        )
        return round(now / (now + before), 3) if now + before > 0 else 0.5


def _energy(picture: F32, ring: U8) -> float:
    x, y = cv2.Sobel(picture, cv2.CV_32F, 1, 0), cv2.Sobel(picture, cv2.CV_32F, 0, 1)
    return float(cv2.magnitude(x, y)[ring > 0].sum())

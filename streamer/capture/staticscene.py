"""Something new that stands still: a background model of a small grey picture, a few times a second.

Two memories a pixel: the background, learned slowly, and a candidate that differs from it, with the time for which it
has stayed the same (Porikli's dual backgrounds, 2008, with a clock instead of a second learning rate). A passer-by who
hides the candidate stops its clock and does not reset it. What stays long enough becomes background itself.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]

#: Learning the empty scene from the first pictures, and following it afterwards, seconds.
LEARN_S, FOLLOW_S = 3.0, 30.0
#: Grey levels by which a pixel differs from the background, and by which a candidate may flicker and stay the same.
DIFFERS, SAME = 18, 10
#: A candidate that has stood still for so long is told; one that is hidden for longer than that is forgotten, seconds.
STILL_S, HIDDEN_S = 1.5, 20.0
#: What stands still for so long is background, seconds.
ABSORB_S = 900.0
#: A blob without an outline of its own for so long is a hole, and background at once, seconds.
HOLE, HOLE_S = 0.4, 6.0
#: Changed all at once in most parts of the picture (so many of 16, each by this share), it is light or a turned camera, not
#: somebody near: clocks stop, and when it stays for so long everything is learned anew, seconds.
PARTS_CHANGED, PART_SHARE, UPSET_S = 10, 0.35, 3.0
#: An exposure that follows what walks by moves the whole picture by up to so many grey levels, and is taken out.
MOST_SHIFT = 24.0
#: A blob is told while the picture shows this share of it: what is hidden, or has gone and left no background, is not.
SHOWN = 0.4
#: Least area of a blob, pixels of the small picture; at most so many blobs are told.
LEAST_AREA, MOST_BLOBS = 8, 16
_SQUARE = np.ones((3, 3), np.uint8)


class StaticScene:
    """The model of one camera. Whole-array operations throughout: one step is about 0.8 ms at 208x117."""

    def __init__(self) -> None:
        self._background: F32 | None = None
        self._candidate: U8
        self._still_s: F32
        self._hidden_s: F32
        self._learned_s = self._upset_s = 0.0
        self._shift = 0.0

    def step(self, small: U8, step_s: float) -> list[tuple[Box, float, float]]:
        """Take a grey picture in; what stands still that was not there, (box, seconds, added) each, largest first.

        added: 0..1, how much of the change along the outline is gradient that has come; the rest is gradient that has gone.
        """
        step_s = max(step_s, 1e-3)
        if self._background is None:
            self._background = small.astype(np.float32)
            self._candidate = small.copy()
            self._still_s, self._hidden_s = np.zeros(small.shape, np.float32), np.zeros(small.shape, np.float32)
            return []
        if self._learned_s < LEARN_S:
            self._learned_s += step_s
            cv2.accumulateWeighted(small, self._background, step_s / self._learned_s)
            return []
        background = cv2.convertScaleAbs(self._background)
        raw, small = small, self._exposed(small, background)
        differs = cv2.absdiff(small, background) > DIFFERS
        if self._is_upset(differs, raw, step_s):
            return []
        cv2.accumulateWeighted(raw, self._background, step_s / (FOLLOW_S + step_s), mask=(~differs).view(np.uint8))
        if not differs.any() and not self._still_s.any():
            return []
        seen = self._run_clocks(small, differs, step_s)
        still = self._still_s >= STILL_S
        return self._blobs(small, still, seen) if still.any() else []

    def _exposed(self, small: U8, background: U8) -> U8:
        """The picture at the background's exposure; measured where they are alike."""
        alike = (cv2.absdiff(cv2.subtract(small, self._shift), background) <= 2 * DIFFERS).view(np.uint8)
        if cv2.countNonZero(alike) > small.size // 4:
            shift = cv2.mean(small, mask=alike)[0] - cv2.mean(background, mask=alike)[0]
            self._shift = min(max(shift, -MOST_SHIFT), MOST_SHIFT)
        return np.asarray(cv2.subtract(small, self._shift), np.uint8)

    def _is_upset(self, differs: Mask, raw: U8, step_s: float) -> bool:
        """Whether most parts of the picture have changed; after `UPSET_S` of it the new picture is learned quickly."""
        assert self._background is not None
        parts = cv2.resize(differs.view(np.uint8) * np.float32(1), (4, 4), interpolation=cv2.INTER_AREA)
        if np.count_nonzero(parts > PART_SHARE) < PARTS_CHANGED:
            self._upset_s = 0.0
            return False
        self._upset_s += step_s
        if self._upset_s >= UPSET_S:
            cv2.accumulateWeighted(raw, self._background, min(1.0, step_s / LEARN_S))
            self._still_s[:] = 0.0
        return True

    def _run_clocks(self, small: U8, differs: Mask, step_s: float) -> Mask:
        """Where the candidate is seen. Clocks: on while it is, soon over while the background is, stopped while something hides both."""
        assert self._background is not None
        same: Mask = differs & (cv2.absdiff(small, self._candidate) <= SAME)
        other = differs & ~same
        cv2.add(self._still_s, step_s, dst=self._still_s, mask=same.view(np.uint8))
        np.multiply(self._still_s, np.float32(0.25), out=self._still_s, where=~differs)
        self._still_s[self._still_s < 0.05] = 0.0
        cv2.add(self._hidden_s, step_s, dst=self._hidden_s, mask=other.view(np.uint8))
        self._hidden_s *= ~same
        over = other & ((self._still_s < STILL_S) | (self._hidden_s > HIDDEN_S))
        np.copyto(self._candidate, small, where=over | same)
        self._still_s *= ~over
        self._hidden_s *= ~over
        if float(self._still_s.max()) > ABSORB_S:
            usual = self._still_s > ABSORB_S
            np.copyto(self._background, self._candidate, where=usual)
            self._still_s *= ~usual
        return same

    def _blobs(self, small: U8, still: Mask, seen: Mask) -> list[tuple[Box, float, float]]:
        assert self._background is not None
        joined = cv2.morphologyEx(still.view(np.uint8), cv2.MORPH_CLOSE, _SQUARE)
        count, labels, table, _ = cv2.connectedComponentsWithStats(joined, connectivity=8, ltype=cv2.CV_16U)
        order = (np.argsort(-table[1:count, cv2.CC_STAT_AREA], kind="stable")[:MOST_BLOBS] + 1).tolist()
        large = [i for i in order if table[i, cv2.CC_STAT_AREA] >= LEAST_AREA]
        if not large:
            return []
        since_s = _mean_by(labels, still, self._still_s, count)
        shown = _mean_by(labels, still, seen, count)
        background = cv2.convertScaleAbs(self._background)
        added = _outline_added(labels, joined, small, background, count)
        height, width = still.shape
        # a hole that somebody left who stood there while the scene was learned: the floor is background
        for i in large:
            if added[i] <= HOLE and since_s[i] >= HOLE_S:
                hole = (labels == i) & still
                np.copyto(self._background, self._candidate, where=hole)
                self._still_s *= ~hole
        found = []
        for i in large:
            if shown[i] < SHOWN:
                continue
            x, y, w, h = (int(v) for v in table[i, :4])
            box = (round(x / width, 4), round(y / height, 4), round((x + w) / width, 4), round((y + h) / height, 4))
            found.append((box, round(float(since_s[i]), 2), round(float(added[i]), 3)))
        return found


def _outline_added(labels: NDArray[Any], blobs: U8, small: U8, background: U8, count: int) -> NDArray[np.float64]:
    """f64 [count]: of each label. What the picture shows on both sides of the outline anyway cancels out."""
    outline = cv2.morphologyEx(blobs, cv2.MORPH_GRADIENT, _SQUARE).view(np.bool_)
    around = cv2.dilate(labels, _SQUARE)
    now = cv2.morphologyEx(small, cv2.MORPH_GRADIENT, _SQUARE)
    before = cv2.morphologyEx(background, cv2.MORPH_GRADIENT, _SQUARE)
    come = _mean_by(around, outline, cv2.subtract(now, before), count)
    gone = _mean_by(around, outline, cv2.subtract(before, now), count)
    return np.asarray(come / np.maximum(come + gone, 1e-6))


def _mean_by(labels: NDArray[Any], where: Mask, values: NDArray[Any], count: int) -> NDArray[np.float64]:
    """f64 [count]: the mean of ``values`` over the pixels of each label that lie in ``where``."""
    chosen = labels[where]
    total = np.bincount(chosen, weights=values[where], minlength=count)
    return total / np.maximum(np.bincount(chosen, minlength=count), 1)

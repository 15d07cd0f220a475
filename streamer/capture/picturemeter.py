"""Measures pictures where they are read: `PictureStats` of a small grey copy, against slowly learned references.

All references are learned here and not where the numbers are judged, so that a restart of the judging process does
not take a covered camera for the usual view.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import Letterbox
from vedette.streamer.capture.staticscene import StaticScene
from vedette.streamer.picturestats import PictureStats, StaticBlob

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]

#: Width and height of the small grey picture, whatever the camera's shape: coordinates are normalised anyway.
SMALL_WH = (160, 90)
#: A pixel of the small picture has moved when its grey level changed by more than this between two pictures.
MOTION_LEVELS = 12
#: The view, and what stands still in it, need no fast answer: measured at most so often, seconds of the camera's clock.
VIEW_EVERY_S, SCENE_EVERY_S = 0.5, 1.0
#: How long a new view is learned before it is the reference, and how slowly the reference follows afterwards, seconds.
LEARN_S, FOLLOW_S = 5.0, 60.0
#: A picture that shows less than this share of the reference's structure is not learned from.
LEARN_FROM = 0.5
#: A different view that stays sharp for so long is the new usual view, seconds.
ACCEPT_S = 600.0
#: Gradients well below this many grey levels are noise, and count as little as they are.
NOISE_LEVELS = 24.0
#: Less contrast than this is noise, and has no sharpness of its own.
LEAST_CONTRAST = 0.02
#: A reference with less structure than this (mean squared unit gradient) cannot tell one view from another.
LEAST_STRUCTURE = 0.004


class PictureMeter:
    """Measures the pictures of one camera in order. About 0.15 ms a picture of 416x256 on one core of 2020.

    What it learned survives a reconnect: a camera that was turned while it was away has been turned.
    """

    def __init__(self) -> None:
        self._previous: U8 | None = None
        self._time_s: float | None = None
        self._view_s, self._scene_s = VIEW_EVERY_S, SCENE_EVERY_S  # since they were measured: at once for the first
        self._view = _View()
        self._scene = StaticScene()
        self._sharpness = 0.0
        self._edges: float | None = None
        self._blobs: tuple[StaticBlob, ...] = ()

    def measure(self, canvas: U8, box: Letterbox, time_s: float) -> PictureStats:
        """The numbers of a letterboxed picture u8 [H,W,3]. time_s: the camera's clock; a step back counts as none."""
        half, small = _shrink(canvas, box)
        step_s = 0.0 if self._time_s is None else min(max(0.0, time_s - self._time_s), 2.0)
        self._time_s = time_s
        mean, deviation = _mean_std(small)
        contrast = min(1.0, deviation)
        motion = None
        if self._previous is not None:
            _, changed = cv2.threshold(cv2.absdiff(small, self._previous), MOTION_LEVELS, 255, cv2.THRESH_BINARY)
            motion = cv2.countNonZero(changed) / small.size
        self._previous = small
        self._view_s, self._scene_s = self._view_s + step_s, self._scene_s + step_s
        if self._view_s >= VIEW_EVERY_S - 1e-6:
            self._measure_view(half, small, contrast)
        if self._scene_s >= SCENE_EVERY_S - 1e-6:
            self._blobs = tuple(StaticBlob(*blob) for blob in self._scene.step(half, self._scene_s))
            self._scene_s = 0.0
        view = self._view
        return PictureStats(
            round(mean, 4), round(contrast, 4), self._sharpness, self._edges,
            _digits(view.contrast), _digits(view.sharpness), None if motion is None else round(motion, 5), self._blobs,
        )  # fmt: skip

    def _measure_view(self, half: U8, small: U8, contrast: float) -> None:
        _, deviation = _mean_std(cv2.Laplacian(half, cv2.CV_16S, ksize=1))
        # over the contrast, so that dimmer light alone does not look like a lens out of focus
        sharpness = (deviation / max(contrast, LEAST_CONTRAST)) ** 2
        self._edges = _digits(self._view.compare(small, contrast, sharpness, self._view_s))
        self._sharpness, self._view_s = round(sharpness, 4), 0.0


class _View:
    """The usual view of a camera: unit gradients averaged over time, so that only what stays in place counts.

    A gradient is divided by its own length plus `NOISE_LEVELS`: light that changes leaves it as it is (Tzimiropoulos
    et al., "Robust FFT-based scale-invariant image registration", 2010, use the same normalised gradients).
    """

    def __init__(self) -> None:
        self.contrast: float | None = None
        self.sharpness: float | None = None
        self._x = self._y = np.zeros((SMALL_WH[1], SMALL_WH[0]), np.float32)
        self._sums = [0.0, 0.0]  # contrast, sharpness
        self._learned_s = 0.0
        self._other_s = 0.0

    def compare(self, small: U8, contrast: float, sharpness: float, step_s: float) -> float | None:
        """How much of the usual view is there, and learn from the picture when it is."""
        x, y = _unit_gradients(small)
        if self._learned_s < LEARN_S:
            self._learn_first(x, y, contrast, sharpness, step_s)
            return None
        power = _inner(self._x, self._x) + _inner(self._y, self._y)
        if power < LEAST_STRUCTURE * small.size:
            self._follow(x, y, contrast, sharpness, step_s)
            return None
        edges = (_inner(self._x, x) + _inner(self._y, y)) / power
        assert self.contrast is not None
        assert self.sharpness is not None
        # behind a cover, or out of focus, there is nothing worth getting used to
        healthy = contrast >= 0.5 * self.contrast and sharpness >= 0.4 * self.sharpness
        if edges >= LEARN_FROM:
            self._other_s = 0.0
            self._follow(x, y, contrast, sharpness, step_s if healthy else step_s / 10)
            return min(edges, 2.0)
        self._other_s = self._other_s + step_s if healthy else 0.0
        if self._other_s >= ACCEPT_S:
            self.__init__()  # type: ignore[misc]
            return None
        return max(edges, -2.0)

    def _learn_first(self, x: F32, y: F32, contrast: float, sharpness: float, step_s: float) -> None:
        weight = max(step_s, 1e-3)
        self._learned_s += weight
        part = weight / self._learned_s
        self._blend(x, y, contrast, sharpness, part)

    def _follow(self, x: F32, y: F32, contrast: float, sharpness: float, step_s: float) -> None:
        self._blend(x, y, contrast, sharpness, step_s / (FOLLOW_S + step_s))

    def _blend(self, x: F32, y: F32, contrast: float, sharpness: float, part: float) -> None:
        self._x = cv2.addWeighted(self._x, 1 - part, x, part, 0)
        self._y = cv2.addWeighted(self._y, 1 - part, y, part, 0)
        for i, value in enumerate((contrast, sharpness)):
            self._sums[i] += part * (value - self._sums[i])
        if self._learned_s >= LEARN_S:
            self.contrast, self.sharpness = self._sums


def _shrink(canvas: U8, box: Letterbox) -> tuple[U8, U8]:
    """Half of the canvas's picture, and the small one, both grey. In steps, because one resize by 2.6 takes as long
    as everything else here together."""
    height, width = box.inner_hw
    inner = canvas[box.pad_y : box.pad_y + height, box.pad_x : box.pad_x + width]
    grey = cv2.cvtColor(inner, cv2.COLOR_BGR2GRAY)
    even = grey[: height & ~1 or 1, : width & ~1 or 1]
    half = cv2.resize(even, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
    small = cv2.resize(half, SMALL_WH, interpolation=cv2.INTER_LINEAR)
    return np.asarray(half, np.uint8), np.asarray(small, np.uint8)


def _mean_std(picture: NDArray[Any]) -> tuple[float, float]:
    """Mean and standard deviation of grey levels, 0..1."""
    mean, deviation = cv2.meanStdDev(picture)
    return float(mean[0, 0]) / 255, float(deviation[0, 0]) / 255


def _unit_gradients(small: U8) -> tuple[F32, F32]:
    x, y = cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1)
    length = cv2.magnitude(x, y) + np.float32(NOISE_LEVELS)
    return np.asarray(cv2.divide(x, length), np.float32), np.asarray(cv2.divide(y, length), np.float32)


def _inner(a: F32, b: F32) -> float:
    """Inner product; not by BLAS, which would wake threads for so little."""
    return float((a * b).sum())


def _digits(value: float | None) -> float | None:
    return None if value is None else round(value, 4)

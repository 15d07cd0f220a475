"""Freeze detection: what stands still, what only looks still, and how soon it is said."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.streamer.clips import moving
from vedette.streamer.capture.frozen import FrozenDetector

U8 = NDArray[np.uint8]


def says(detector: FrozenDetector, pictures: list[U8], fps: float = 10.0, stamp_step: float = 0.1) -> list[bool]:
    """The verdict for every picture."""
    return [detector.update(p, 50 + n / fps, 1 + n * stamp_step) for n, p in enumerate(pictures)]


def test_a_picture_that_stands_still_is_frozen_after_the_time() -> None:
    """Not before ``after_s``, at once after it, and no longer when something moves."""
    still = [moving(0)] * 60
    verdicts = says(FrozenDetector(5.0), still)
    assert verdicts.index(True) == 50
    detector = FrozenDetector(5.0)
    assert says(detector, [*still, moving(3)])[-2:] == [True, False]


def test_a_moving_picture_is_never_frozen() -> None:
    """A small object that moves is enough."""
    assert not any(says(FrozenDetector(1.0), [moving(n, 480, 640) for n in range(50)]))


def test_sensor_noise_is_life() -> None:
    """An empty corridor at night differs by noise alone."""
    rng = np.random.default_rng(3)
    dark = [np.clip(rng.normal(20, 2, (240, 320, 3)), 0, 255).astype(np.uint8) for _ in range(30)]
    assert not any(says(FrozenDetector(1.0), dark))


def test_a_clock_in_the_corner_is_life() -> None:
    """A burnt-in clock of a few pixels that goes on means that the camera works."""
    pictures = []
    for n in range(60):
        picture = np.full((1080, 1920, 3), 90, np.uint8)
        picture[20:48, 20 + 20 * (n // 10) : 36 + 20 * (n // 10)] = 255
        pictures.append(picture)
    assert not any(says(FrozenDetector(2.0), pictures))


def test_an_encoders_ripple_is_not_life() -> None:
    """A camera that encodes the same picture again and again changes it by a level or two: frozen."""
    rng = np.random.default_rng(3)
    base = np.full((240, 320, 3), 90, np.uint8)
    ripple = [base + rng.integers(0, 3, base.shape, np.uint8) for _ in range(40)]
    assert says(FrozenDetector(2.0), ripple)[-1]


def test_a_stuck_timestamp_is_frozen() -> None:
    """The source's clock stands still while pictures come: they are repeats, whatever they show."""
    moves = [moving(n) for n in range(40)]
    assert says(FrozenDetector(2.0), moves, stamp_step=0.0)[-1]


def test_a_source_without_timestamps_is_judged_by_its_pictures() -> None:
    """Always 0 is no clock at all."""
    detector = FrozenDetector(1.0)
    assert not any(detector.update(moving(n), 50 + n / 10, 0.0) for n in range(40))


def test_a_reconnect_does_not_thaw_a_frozen_picture() -> None:
    """The same picture after a reconnect is still the same picture; the clock is judged anew."""
    detector = FrozenDetector(2.0)
    assert says(detector, [moving(0)] * 30)[-1]
    detector.restart()
    assert detector.update(moving(0), 54.0, 0.1)


def test_another_size_is_life() -> None:
    """A change of resolution is a change."""
    detector = FrozenDetector(1.0)
    assert says(detector, [moving(0)] * 15)[-1]
    assert not detector.update(moving(0, 240, 320), 52.0, 9.0)

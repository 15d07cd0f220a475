"""Which pictures are taken, when they are released and what time they carry; and how they are letterboxed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vedette.engines.api import Letterbox
from vedette.streamer.capture.letterbox import draw_letterbox
from vedette.streamer.capture.pacing import RealTime, Sampler, SourceClock


@pytest.mark.parametrize(
    ("source_hz", "wanted_hz", "taken_hz"),
    [(30, 10, 10), (25, 10, 10), (15, 10, 10), (5, 10, 5), (30, 30, 30), (12.5, 12.5, 12.5)],
)
@pytest.mark.parametrize("jitter_s", [0.0, 0.004])
def test_the_sampler_takes_the_wanted_rate(
    source_hz: float, wanted_hz: float, taken_hz: float, jitter_s: float
) -> None:
    """Ten seconds of any source give ten seconds of the wanted rate, or all that there is, also with jitter."""
    rng = np.random.default_rng(5)
    sampler = Sampler(wanted_hz)
    times = [n / source_hz + rng.uniform(-jitter_s, jitter_s) for n in range(round(10 * source_hz))]
    taken = sum(sampler.takes(t) for t in times)
    assert taken == pytest.approx(10 * taken_hz, abs=0.04 * 10 * taken_hz)


def test_the_sampler_does_not_catch_up_after_a_gap() -> None:
    """After an hour of silence pictures are taken at the wanted rate, not all at once."""
    sampler = Sampler(10)
    for n in range(30):
        sampler.takes(n / 30)
    assert sum(sampler.takes(3600 + n / 30) for n in range(30)) <= 11


def test_source_time_follows_good_timestamps() -> None:
    """The source's own steps are kept, arrival jitter does not matter."""
    clock = SourceClock()
    assert [round(clock.at(5 + n / 10, 100 + n * 0.37), 6) for n in range(4)] == [0.0, 0.1, 0.2, 0.3]


@pytest.mark.parametrize("stamps", [[0, 0, 0, 0], [9, 8, 7, 6], [0, 1e6, 0, 1e6], [5, 5, float("nan"), 5]])
def test_bad_timestamps_are_replaced_by_arrival(stamps: list[float]) -> None:
    """Missing, backwards, jumping or NaN: time still increases by what passed here."""
    clock = SourceClock()
    times = [clock.at(stamp, 100 + n / 10) for n, stamp in enumerate(stamps)]
    assert np.diff(times) == pytest.approx([0.1, 0.1, 0.1])


def test_a_file_is_released_at_its_own_pace() -> None:
    """A picture waits until it is due; a reader that fell behind by more than a second starts anew."""
    pace = RealTime()
    assert pace.wait_s(0.0, 100.0) == 0
    assert pace.wait_s(0.5, 100.1) == pytest.approx(0.4)
    assert pace.wait_s(0.6, 100.9) == 0
    assert pace.wait_s(0.7, 105.0) == 0
    assert pace.wait_s(0.8, 105.0) == pytest.approx(0.1)


@pytest.mark.parametrize(("height", "width"), [(1080, 1920), (576, 768), (48, 48), (256, 416), (500, 100), (120, 160)])
def test_the_letterbox_is_centred_black_and_written_in_place(height: int, width: int) -> None:
    """The picture lies where `Letterbox.fit` says, the border is 0, whatever the canvas held before."""
    picture = np.full((height, width, 3), 100, np.uint8)
    canvas = np.full((256, 416, 3), 77, np.uint8)
    box = draw_letterbox(picture, canvas)
    assert box == Letterbox.fit((height, width), (256, 416))
    inner_h, inner_w = box.inner_hw
    inside = np.zeros((256, 416), bool)
    inside[box.pad_y : box.pad_y + inner_h, box.pad_x : box.pad_x + inner_w] = True
    assert (canvas[inside] == 100).all()
    assert not canvas[~inside].any()


def test_shrinking_averages_areas() -> None:
    """Every source pixel counts when a picture shrinks a lot: no aliasing of a one-pixel checkerboard."""
    picture = np.zeros((1024, 1664, 3), np.uint8)
    picture[::2, ::2] = picture[1::2, 1::2] = 255
    canvas = np.zeros((256, 416, 3), np.uint8)
    draw_letterbox(picture, canvas)
    assert np.ptp(canvas) <= 2
    assert np.abs(canvas.astype(int) - cv2.resize(picture, (416, 256), interpolation=cv2.INTER_AREA)).max() == 0

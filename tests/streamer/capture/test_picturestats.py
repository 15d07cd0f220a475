"""What is measured of a picture: small numbers, the same whatever the size, and safe to send."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from vedette.streamer import wire
from vedette.streamer.capture.letterbox import draw_letterbox
from vedette.streamer.capture.picturemeter import PictureMeter
from vedette.streamer.errors import WireError
from vedette.streamer.picturestats import PictureStats, StaticBlob
from vedette.streamer.wire import FrameHeader

U8 = NDArray[np.uint8]
STATS = PictureStats(0.5, 0.2, 1.5, 0.9, 0.21, 1.4, 0.02, (StaticBlob((0.1, 0.2, 0.3, 0.4), 7.5, 0.8),))
HEADER = FrameHeader("dock", "i", 1, 2, 3, 0.5, 9.0, 256, 416, (1280, 720, 0.325, 0, 11), "ring-dock-1", 0, "b", STATS)


def measured(*pictures: U8, step_s: float = 0.2) -> PictureStats:
    """The numbers of the last of some pictures."""
    meter, canvas = PictureMeter(), np.zeros((256, 416, 3), np.uint8)
    for number, picture in enumerate(pictures):
        stats = meter.measure(canvas, draw_letterbox(picture, canvas), number * step_s)
    return stats


def test_the_numbers_survive_the_wire() -> None:
    """A descriptor with measures parses to what was sent; one without is as good."""
    body = {**dataclasses.asdict(HEADER), "stats": STATS.to_json()}
    assert wire.parse(FrameHeader, wire.encode(body)) == HEADER
    assert wire.parse(FrameHeader, wire.encode({**body, "stats": None})).stats is None


@pytest.mark.parametrize(
    "wrong",
    [{"mean": 1.5}, {"contrast": -0.1}, {"blobs": [{"box": [0, 0, 1], "since_s": 1, "added": 1}]}, {"motion": "x"}],
)
def test_wrong_numbers_are_refused(wrong: dict[str, object]) -> None:
    """The capture process decodes what strangers send, so its numbers are checked too."""
    body = {**dataclasses.asdict(HEADER), "stats": {**STATS.to_json(), **wrong}}
    with pytest.raises(WireError):
        wire.parse(FrameHeader, wire.encode(body))


def test_the_border_of_a_letterbox_is_not_measured() -> None:
    """A white picture of any shape has mean 1 and no contrast."""
    for shape in ((300, 300, 3), (100, 900, 3), (720, 1280, 3), (37, 53, 3)):
        stats = measured(np.full(shape, 255, np.uint8))
        assert (stats.mean, stats.contrast) == (pytest.approx(1, abs=0.01), pytest.approx(0, abs=0.02))


def test_motion_is_the_share_that_changed() -> None:
    """None for the first picture, 0 for the same one, a quarter when a quarter changed."""
    still = np.full((256, 416, 3), 100, np.uint8)
    other = still.copy()
    other[:128, :208] = 160
    assert measured(still).motion is None
    assert measured(still, still).motion == 0
    assert measured(still, other).motion == pytest.approx(0.25, abs=0.02)


def test_a_view_without_edges_is_not_judged() -> None:
    """A blank wall cannot be told from another blank wall: edges stay unknown."""
    wall = np.full((256, 416, 3), 100, np.uint8)
    assert measured(*[wall] * 60).edges is None


def test_a_clock_that_steps_back_or_far_ahead_does_no_harm() -> None:
    """Time that jumps counts as none, or as two seconds at most."""
    meter, canvas = PictureMeter(), np.zeros((256, 416, 3), np.uint8)
    box = draw_letterbox(np.random.default_rng(1).integers(0, 255, (90, 160, 3), np.uint8), canvas)
    for time_s in (0.0, 1.0, 0.5, 1e9, -1e9, 3.0):
        assert meter.measure(canvas, box, time_s).mean > 0

"""Evidence: the exact moment while it is fresh, a near one later, never more memory than allowed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from vedette.streamer.capture.evidence import EvidenceRing

U8 = NDArray[np.uint8]
S = 1_000_000_000


def grey(level: int, height: int = 120, width: int = 160) -> U8:
    """A picture whose grey level says which one it is."""
    return np.full((height, width, 3), level, np.uint8)


def level_of(jpeg: bytes | None) -> float:
    """The grey level of a JPEG."""
    assert jpeg is not None
    return float(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).mean())


def filled(seconds: float, fps: float = 10.0, max_bytes: int = 10_000_000) -> EvidenceRing:
    """A ring that saw pictures of levels 0, 1, 2... at t = 0, 1/fps..."""
    ring = EvidenceRing(max_bytes)
    for n in range(round(seconds * fps)):
        ring.push(grey(n % 256), round(n / fps * S))
        ring.compact()
    return ring


def test_the_exact_picture_is_cut_while_it_is_fresh() -> None:
    """Within the last second every picture can be had, not a neighbour."""
    ring = filled(10)
    for n in range(90, 100):
        assert level_of(ring.cut(round(n / 10 * S))) == pytest.approx(n, abs=1.5)


def test_older_moments_are_near() -> None:
    """Of the past a few pictures a second stay."""
    ring = filled(20)
    for second in range(1, 18):
        assert abs(level_of(ring.cut(second * S)) - 10 * second) <= 4


def test_a_moment_that_is_gone_is_none() -> None:
    """Too long ago, in the future, or before the first picture: None, not some other picture."""
    ring = filled(5)
    assert ring.cut(-3 * S) is None
    assert ring.cut(9 * S) is None
    assert EvidenceRing(1_000_000).cut(0) is None


@pytest.mark.parametrize("size", [(120, 160), (1080, 1920)])
def test_memory_stays_within_its_cap(size: tuple[int, int]) -> None:
    """However long the camera runs, at most the cap and one picture are held."""
    ring = EvidenceRing(8_000_000)
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (*size, 3), np.uint8)
    for n in range(120):
        ring.push(picture, round(n / 10 * S))
        ring.compact()
        assert ring.nbytes <= 8_000_000 + picture.nbytes
    assert ring.cut(round(11.9 * S)) is not None


def test_pictures_keep_their_resolution_up_to_the_limit() -> None:
    """Full resolution is kept, larger ones are shrunk to ``max_side``, odd sizes are no problem."""
    for height, width, expected in ((1080, 1920, (1080, 1920)), (2160, 3840, (1080, 1920)), (361, 641, (361, 641))):
        ring = EvidenceRing(50_000_000, max_side=1920)
        ring.push(grey(7, height, width), S)
        jpeg = ring.cut(S)
        assert jpeg is not None
        assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[:2] == expected


def test_the_camera_may_reuse_its_buffer() -> None:
    """What was pushed is a copy: the next picture does not change the past."""
    ring = EvidenceRing(10_000_000)
    for size in ((120, 160), (121, 161)):
        buffer = grey(10, *size)
        ring.push(buffer, S)
        buffer[:] = 200
        assert level_of(ring.cut(S)) == pytest.approx(10, abs=1.5)


def test_turned_off_it_holds_nothing() -> None:
    """``enabled: false`` keeps no picture at all."""
    ring = EvidenceRing(10_000_000, enabled=False)
    ring.push(grey(1), S)
    assert ring.nbytes == 0
    assert ring.cut(S) is None

"""Reading packets: the same pictures as OpenCV's, and which sizes stir."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from vedette.streamer.sources import file
from vedette.streamer.sources.base import Info, Resting, Want
from vedette.streamer.sources.libav import libraries
from vedette.streamer.sources.packets import PacketReader, SizeWatch


def learned(sizes: list[int], keyframe: int = 60_000) -> SizeWatch:
    """A watch that has seen these packets."""
    watch = SizeWatch()
    watch.keyframe(keyframe)
    for size in sizes:
        watch.saw(size)
    return watch


@pytest.fixture
def noise() -> list[int]:
    """A still scene's packets: 2000 bytes, give or take."""
    return np.random.default_rng(1).normal(2000, 60, 90).astype(int).tolist()


def test_noise_does_not_stir_and_a_larger_packet_does(noise: list[int]) -> None:
    """The sizes of a still scene are what is usual; half as much again is not."""
    watch = learned(noise)
    assert watch.tells()
    assert not any(watch.stirs(size) for size in noise)
    assert watch.stirs(3100)


def test_a_little_more_in_every_packet_stirs(noise: list[int]) -> None:
    """What is too small for one packet shows in five in a row."""
    watch = learned(noise)
    assert not watch.stirs(2500)
    for _ in range(4):
        watch.saw(2500)
    assert watch.stirs(2500)


@pytest.mark.parametrize(
    ("sizes", "keyframe"),
    [([2000] * 10, 60_000), ([2000] * 90, 0), ([20_000] * 90, 60_000), ([100, 9000] * 45, 60_000)],
    ids=["too few", "no keyframe", "filled to a constant bitrate", "B-pictures"],
)
def test_sizes_that_tell_nothing_are_not_trusted(sizes: list[int], keyframe: int) -> None:
    """The reader does not rest on them."""
    assert not learned(sizes, keyframe).tells()


@pytest.mark.data
@pytest.mark.parametrize("name", ["car-detection.mp4", "Retail02_short.mp4"])
def test_packets_give_the_pictures_that_opencv_gives(data_dir: Path, name: str) -> None:
    """H.264 and HEVC, B-pictures among them: to the bit, with the same times."""
    if libraries() is None:
        pytest.skip("this build of OpenCV brings no FFmpeg library that can be called")
    source = str(data_dir / "clips" / name)
    with closing(file.KIND.open(source, Want())) as plain, closing(file.KIND.open(source, Want(rest=True))) as resting:
        assert isinstance(resting, Resting)
        for _ in range(25):
            assert resting.grab() == pytest.approx(plain.grab(), abs=1e-4)
            assert np.array_equal(resting.retrieve(), plain.retrieve())
            assert resting.fresh


@pytest.mark.data
def test_a_reader_that_is_called_back_while_it_keeps_packets_gives_the_very_next_picture(data_dir: Path) -> None:
    """Rest ends between two packets: what was kept is decoded, and the next picture is OpenCV's to the bit."""
    source = str(data_dir / "clips" / "car-detection.mp4")
    with closing(file.KIND.open(source, Want())) as plain, closing(file.KIND.open(source, Want(rest=True))) as resting:
        if not isinstance(resting, PacketReader):
            pytest.skip("this build of OpenCV brings no FFmpeg library that can be called")
        for _ in range(20):
            plain.grab()
            resting.grab()
        resting._watch.tells = resting._watch.stirs = lambda *_: False  # type: ignore[method-assign,assignment]
        resting._resting = True  # whatever the sizes of a moving scene say
        for _ in range(6):
            plain.grab()
            resting.grab()
            assert not resting.fresh
        resting.rest(False)
        del resting._watch.tells, resting._watch.stirs
        assert resting.grab() == pytest.approx(plain.grab(), abs=1e-4)
        assert resting.fresh
        assert np.array_equal(resting.retrieve(), plain.retrieve())


class StillStream:
    """The packets of a scene where nothing moves, 10 a second, a keyframe every ``gop``; and a decoder that counts."""

    name, info = "still", Info("h264", 64, 48, 10.0)

    def __init__(self, gop: int, late_s: float = 0.0) -> None:
        self.gop, self.late_s, self.number = gop, late_s, -1
        self.sent: list[int] = []
        self._waiting: list[int] = []

    def grab(self) -> float:
        self.number += 1
        return self.number / 10 + (self.late_s if self._is_key else 0.0)

    def packet(self) -> tuple[bytes, bool]:
        return b"k" * 60_000 if self._is_key else b"p" * 2000, self._is_key

    def headers(self) -> bytes:
        return b""

    @property
    def _is_key(self) -> bool:
        return self.number % self.gop == 0

    def send(self, data: bytes | None, pts: int = 0) -> bool:
        if data is not None:
            self.sent.append(len(data))
            self._waiting.append(pts)
        return True

    def receive(self) -> int | None:
        return self._waiting.pop(0) if self._waiting else None

    def flush(self) -> None:
        self._waiting.clear()


@pytest.mark.parametrize(
    ("gop", "late_s", "every"), [(10, 0.0, 20), (5, 0.0, 20), (20, 0.0, 20), (20, 0.05, 20), (16, 0.0, 16)]
)
def test_a_resting_reader_decodes_one_keyframe_in_two_seconds(gop: int, late_s: float, every: int) -> None:
    """More frequent keyframes are not decoded, and one that comes a little late is waited for."""
    stream = StillStream(gop, late_s)
    reader = PacketReader(stream, stream)  # type: ignore[arg-type]
    for _ in range(41):
        reader.grab()
    reader.rest(True)
    assert reader.resting
    looked = []
    for _ in range(200):
        reader.grab()
        looked += [stream.number] if reader.fresh else []
    assert set(stream.sent[41:]) == {60_000}, "keyframes only"
    assert set(np.diff(looked)) == {every}
    reader.rest(False)
    reader.grab()
    assert reader.fresh
    assert len(stream.sent) - 41 - len(looked) <= gop + 1, "what was kept begins with the last keyframe"


def test_where_keyframes_are_rare_all_that_was_kept_is_decoded_in_time() -> None:
    """Nothing is older than two seconds and a little, however long the encoder waits."""
    stream = StillStream(100)
    reader = PacketReader(stream, stream)  # type: ignore[arg-type]
    for _ in range(110):
        reader.grab()
    reader.rest(True)
    looked = []
    for _ in range(80):
        reader.grab()
        looked += [stream.number] if reader.fresh else []
    assert max(np.diff(looked)) <= 22

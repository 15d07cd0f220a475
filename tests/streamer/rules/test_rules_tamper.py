"""The tamper rule and the measures behind it: each fault by its name, none without one, ends when it is over."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.streamer.rules.rule_scenes import phases
from vedette.streamer.capture.letterbox import draw_letterbox
from vedette.streamer.capture.picturemeter import PictureMeter
from vedette.streamer.rules.tamper import TamperConfig
from vedette.streamer.rules.view import Places, Signal, View
from vedette.streamer.types import Tracks

U8 = NDArray[np.uint8]
FPS = 5.0


@cache
def scene(number: int) -> U8:
    """A street-like picture with edges everywhere, somebody passing, and noise; 40 different ones."""
    picture = np.full((270, 480, 3), 120, np.uint8)
    generator = np.random.default_rng(7)
    for _ in range(60):
        x, y, w, h = (int(v) for v in generator.integers((0, 0, 10, 10), (440, 240, 80, 60)))
        cv2.rectangle(picture, (x, y), (x + w, y + h), [int(v) for v in generator.integers(20, 235, 3)], -1)
    x = 30 + number * 4 % 400
    cv2.rectangle(picture, (x, 150), (x + 25, 230), (30, 40, 50), -1)
    noise = np.random.default_rng(number).integers(-3, 4, picture.shape)
    return np.clip(picture.astype(np.int16) + noise, 0, 255).astype(np.uint8)


class Watched:
    """A camera, its meter and its rule."""

    def __init__(self, **rule: object) -> None:
        self.rule = TamperConfig.model_validate({"kind": "tamper", **rule}).rule(Places())
        self.meter = PictureMeter()
        self.canvas = np.zeros((256, 416, 3), np.uint8)
        self.number, self.now_s = 0, 0.0

    def see(
        self, seconds: float, change: Callable[[U8], U8] = lambda picture: picture, fps: float = FPS
    ) -> list[Signal]:
        """The signals of so many seconds of the scene, changed."""
        signals = []
        for _ in range(round(seconds * fps)):
            self.number, self.now_s = self.number + 1, self.now_s + 1 / fps
            box = draw_letterbox(change(scene(self.number % 40).copy()), self.canvas)
            stats = self.meter.measure(self.canvas, box, self.now_s)
            signals += self.rule.step(View(Tracks.empty(), (), self.now_s, picture=stats))
        return signals


def covered(picture: U8) -> U8:
    return np.full_like(picture, 70)


FAULTS: dict[str, Callable[[U8], U8]] = {
    "covered": covered,
    "dark": lambda p: (p * 0.04).astype(np.uint8),
    "bright": lambda p: np.clip(p.astype(np.int16) * 4 + 160, 0, 255).astype(np.uint8),
    "blurred": lambda p: np.asarray(cv2.GaussianBlur(p, (0, 0), 3.5), np.uint8),
    "moved": lambda p: np.roll(p, 90, axis=1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_told_by_its_name_and_ends_when_it_is_over(fault: str) -> None:
    """After the time, once, with the values; the end says for how long."""
    camera = Watched()
    assert camera.see(12) == []
    assert camera.see(2, FAULTS[fault]) == []
    (start,) = camera.see(8, FAULTS[fault])
    assert (start.phase, start.explain["fault"]) == ("start", fault)
    assert all(check["met"] for check in start.explain["checks"])
    assert 0.5 <= start.score <= 1.0
    (end,) = camera.see(5)
    assert (end.phase, end.explain["reason"]) == ("end", "as usual")
    assert end.explain["duration_s"] == pytest.approx(10, abs=1.5)


def test_what_happens_every_day_is_silent() -> None:
    """Passers-by, half the light, a flash, and something that hides a third of the view raise nothing."""
    camera = Watched()
    signals = camera.see(15)
    signals += camera.see(10, lambda p: (p * 0.5).astype(np.uint8))
    signals += camera.see(4) + camera.see(2, FAULTS["bright"]) + camera.see(4)

    def lorry(picture: U8) -> U8:
        picture[:, :160] = 90
        return picture

    signals += camera.see(15, lorry)
    assert signals == []


def test_only_the_wanted_faults_are_told() -> None:
    """``of`` chooses."""
    camera = Watched(of=["dark"])
    camera.see(10)
    assert camera.see(8, covered) == []
    assert phases(camera.see(8, FAULTS["dark"])) == ["start"]


def test_one_fault_that_becomes_another_is_an_update() -> None:
    """Covered and then dark is one incident."""
    camera = Watched()
    camera.see(10)
    signals = camera.see(6, covered) + camera.see(6, FAULTS["dark"]) + camera.see(6)
    assert phases(signals) == ["start", "update", "end"]
    assert signals[1].explain["fault"] == "dark"
    assert len({signal.key for signal in signals}) == 1


def test_a_cover_is_never_learned_as_the_usual_view() -> None:
    """Covered for quarter of an hour is still covered, and the uncovered view is as usual at once."""
    camera = Watched()
    camera.see(10)
    assert phases(camera.see(900, covered, fps=0.5)) == ["start"]
    assert phases(camera.see(5)) == ["end"]


def test_another_view_that_stays_becomes_the_usual_one() -> None:
    """A camera that was turned for good is told once, and judged by its new view after ten minutes."""
    camera = Watched()
    camera.see(10)
    signals = camera.see(5, FAULTS["moved"]) + camera.see(620, FAULTS["moved"], fps=0.5)
    assert phases(signals) == ["start", "end"]
    assert phases(camera.see(10)) == ["start"], "turning it back is a change of view again"


def test_without_measures_nothing_is_judged() -> None:
    """A rule that is given no measures raises nothing, ever."""
    rule = TamperConfig().rule(Places())
    assert [s for k in range(100) for s in rule.step(View(Tracks.empty(), (), k / 10))] == []


@pytest.mark.data
def test_a_real_clip_is_silent_until_its_camera_is_covered(data_dir: Path) -> None:
    """Pedestrians on a campus raise nothing; a hand over the lens does within four seconds."""
    reader = cv2.VideoCapture(str(data_dir / "clips" / "vtest.avi"))
    meter, rule = PictureMeter(), TamperConfig().rule(Places())
    canvas, signals = np.zeros((256, 416, 3), np.uint8), []
    for number in range(300):
        good, picture = reader.read()
        assert good
        if number >= 200:
            picture = covered(np.asarray(picture, np.uint8))
        box = draw_letterbox(np.asarray(picture, np.uint8), canvas)
        view = View(Tracks.empty(), (), number / 10, picture=meter.measure(canvas, box, number / 10))
        signals += [(number / 10, signal) for signal in rule.step(view)]
    ((at_s, start),) = signals
    assert start.explain["fault"] == "covered"
    assert 23.0 <= at_s <= 24.0

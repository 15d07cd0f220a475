"""An engine that does not look twice at the same picture: when it repeats, when it must not, and that nothing is missed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vedette.engines.api import Batch, Detections, EngineSpec, Letterbox, Perception
from vedette.streamer.cells import moved, shrink
from vedette.streamer.config.schema import CameraDefaults, EngineSection
from vedette.streamer.infer.engine import open_engine
from vedette.streamer.infer.stillness import SkipStill
from vedette.streamer.offline.process import Options, process_file

HW = (64, 96)
BOX = Letterbox.fit(HW, HW)


class CountingEngine:
    """Answers with one box whose score is the number of pictures it has seen, and remembers which slots it saw."""

    spec = EngineSpec("counting", HW, ("person",), None, "none", "fp32")

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self._count = 0

    def infer(self, batch: Batch) -> Perception:
        """One Detections and one scene token a picture."""
        self.seen.append(batch.slots.tolist())
        found, scene = [], []
        for _ in range(len(batch)):
            self._count += 1
            box = np.array([[0.1, 0.1, 0.2, 0.3]], np.float32)
            found.append(Detections(box, np.array([self._count / 1000], np.float32), np.zeros(1, np.int32)))
            scene.append(np.full((1, 4), self._count, np.float32))
        return Perception(tuple(found), np.stack(scene))

    def close(self) -> None:
        """Nothing to close."""


def batch_of(*pictures: tuple[int, NDArray[np.uint8], float], reset: bool = False) -> Batch:
    """A batch of (slot, pixels, time)."""
    return Batch(
        np.stack([pixels for _, pixels, _ in pictures]),
        (BOX,) * len(pictures),
        np.array([slot for slot, _, _ in pictures], np.int32),
        np.full(len(pictures), reset),
        np.array([time_s for _, _, time_s in pictures]),
    )


@pytest.fixture
def scene() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 200, (*HW, 3), np.uint8)


def test_a_still_picture_gets_the_last_answer_until_the_bound(scene: NDArray[np.uint8]) -> None:
    """Between two looks the very answer is repeated, detections and scene tokens, and counted; each bound is twice the
    last, as nothing moves and nothing is open."""
    engine = CountingEngine()
    eyes = SkipStill(engine, 1.0)
    answers = []
    for i in range(71):
        perception = eyes.infer(batch_of((0, scene + np.uint8(i % 3), i / 10)))
        eyes.settle(0, settled=True)
        assert perception.scene is not None
        answers.append((round(float(perception.detections[0].score[0]) * 1000), int(perception.scene[0, 0, 0])))
    assert answers == [(1, 1)] * 10 + [(2, 2)] * 20 + [(3, 3)] * 40 + [(4, 4)]
    assert (eyes.looked, eyes.skipped, len(engine.seen)) == (4, 67, 4)


@pytest.mark.parametrize(("most_s", "longest_s"), [(1.0, 8.0), (20.0, 20.0)])
def test_an_answer_stands_no_longer_than_the_longest_bound(
    most_s: float, longest_s: float, scene: NDArray[np.uint8]
) -> None:
    """However long nothing moves, the engine looks every 8 s, or as seldom as is configured."""
    eyes = SkipStill(CountingEngine(), most_s)
    looks = []
    for second in range(100):
        eyes.infer(batch_of((0, scene + np.uint8(second % 3), second)))
        eyes.settle(0, settled=True)
        looks += [second] if eyes.looked > len(looks) else []
    assert set(np.diff(looks)[5:] if most_s < 8 else np.diff(looks)) == {longest_s}


@pytest.mark.parametrize("why", ["moved", "unsettled", "reset"])
def test_the_first_answer_after_something_happened_stands_short(why: str, scene: NDArray[np.uint8]) -> None:
    """What was learned of a still scene is forgotten as soon as something moves, is open, or begins anew."""
    eyes = SkipStill(CountingEngine(), 1.0)
    for second in range(20):
        eyes.infer(batch_of((0, scene + np.uint8(second % 3), second)))
        eyes.settle(0, settled=not (why == "unsettled" and second == 19))
    shown = 220 - scene if why == "moved" else scene
    eyes.infer(batch_of((0, shown, 20.0), reset=why == "reset"))
    eyes.settle(0, settled=True)
    before = eyes.looked
    eyes.infer(batch_of((0, shown + np.uint8(1), 20.9)))
    assert eyes.looked == before
    eyes.infer(batch_of((0, shown + np.uint8(1), 21.1)))
    assert eyes.looked == before + 1


def test_the_very_same_picture_is_looked_at_once(scene: NDArray[np.uint8]) -> None:
    """What a camera sends again while it rests costs no look, however long it rests; one grey level more does."""
    engine = CountingEngine()
    eyes = SkipStill(engine, 1.0)
    for time_s in (0.0, 0.9, 1.8, 30.0):
        eyes.infer(batch_of((0, scene, time_s)))
        eyes.settle(0, settled=True)
    assert eyes.looked == 1
    eyes.infer(batch_of((0, scene + np.uint8(1), 30.1)))
    assert eyes.looked == 2


def test_sensor_noise_is_not_motion(scene: NDArray[np.uint8]) -> None:
    """Noise of 8 levels a pixel leaves the cells where they are."""
    rng = np.random.default_rng(4)
    for _ in range(20):
        noisy = np.clip(scene + rng.normal(0, 8, scene.shape), 0, 255).astype(np.uint8)
        assert moved(shrink(noisy), shrink(scene)) <= 3


def test_a_small_thing_that_appears_is_looked_at(scene: NDArray[np.uint8]) -> None:
    """Eight by eight pixels of another grey anywhere are enough, wherever the grid of cells lies."""
    engine = CountingEngine()
    rng = np.random.default_rng(5)
    for _ in range(50):
        eyes = SkipStill(engine, 60.0)
        eyes.infer(batch_of((0, scene, 0.0)))
        eyes.settle(0, settled=True)
        y, x = int(rng.integers(0, HW[0] - 8)), int(rng.integers(0, HW[1] - 8))
        changed = scene.copy()
        changed[y : y + 8, x : x + 8] = 255
        eyes.infer(batch_of((0, changed, 0.1)))
        assert eyes.skipped == 0


def test_slow_motion_adds_up() -> None:
    """A thing that moves by less than notices between two pictures is looked at as soon as it has come far enough."""
    eyes = SkipStill(CountingEngine(), 60.0)
    for i in range(60):
        picture = np.zeros((*HW, 3), np.uint8)
        column = 20 + i / 20  # a twentieth of a pixel at a time
        picture[20:40, int(column) : 40] = 120
        picture[20:40, int(column)] = round(120 * (1 - column % 1))
        eyes.infer(batch_of((0, picture, i / 10)))
        eyes.settle(0, settled=True)
    assert eyes.looked >= 3


def test_while_anything_is_open_every_picture_is_looked_at(scene: NDArray[np.uint8]) -> None:
    """Unsettled or untold, nothing is repeated: a ghost is not confirmed by repeats, nobody is lost to them."""
    engine = CountingEngine()
    eyes = SkipStill(engine, 1.0)
    for i in range(5):
        eyes.infer(batch_of((0, scene, i / 10)))
    for i in range(5, 10):
        eyes.infer(batch_of((0, scene, i / 10)))
        eyes.settle(0, settled=False)
    assert eyes.skipped == 0


@pytest.mark.parametrize(("time_s", "reset"), [(-1.0, False), (0.1, True), (float("nan"), False)])
def test_a_new_epoch_or_a_clock_that_is_wrong_is_looked_at(
    scene: NDArray[np.uint8], time_s: float, reset: bool
) -> None:
    """Nothing is carried over a reconnect, nor when the time since the last look is not known."""
    eyes = SkipStill(CountingEngine(), 1.0)
    eyes.infer(batch_of((0, scene, 0.0)))
    eyes.settle(0, settled=True)
    eyes.infer(batch_of((0, scene, time_s), reset=reset))
    assert eyes.skipped == 0


def test_in_a_batch_only_those_that_moved_are_looked_at(scene: NDArray[np.uint8]) -> None:
    """Every picture gets its own camera's answer, in the batch's order."""
    engine = CountingEngine()
    eyes = SkipStill(engine, 1.0)
    eyes.infer(batch_of((5, scene, 0.0), (2, scene, 0.0), (7, scene, 0.0)))
    for slot in (5, 2, 7):
        eyes.settle(slot, settled=True)
    perception = eyes.infer(batch_of((7, scene, 0.1), (2, 255 - scene, 0.1), (5, scene, 0.1)))
    assert engine.seen == [[5, 2, 7], [2]]
    assert [round(float(d.score[0]) * 1000) for d in perception.detections] == [3, 4, 1]
    assert perception.scene is not None
    assert perception.scene[:, 0, 0].tolist() == [3, 4, 1]


def test_zero_asks_the_engine_every_time(scene: NDArray[np.uint8]) -> None:
    """Switched off, the engine's own answers go through untouched."""
    engine = CountingEngine()
    eyes = SkipStill(engine, 0.0)
    for i in range(3):
        eyes.infer(batch_of((0, scene, i / 10)))
        eyes.settle(0, settled=True)
    assert (eyes.looked, eyes.skipped) == (3, 0)


@pytest.mark.slow
@pytest.mark.data
def test_no_alert_is_missed_on_a_real_road(data_dir: Path, tmp_path: Path) -> None:
    """Cars that come and go, the detector spared in between: the same alerts at the same times, with fewer looks."""
    section = CameraDefaults.model_validate(
        {
            "fps": 10,
            "zones": {"all": [[0, 0], [1, 0], [1, 1], [0, 1]], "low": [[0, 0.5], [1, 0.5], [1, 1], [0, 1]]},
            "rules": [
                {"kind": "zone", "zone": zone, "on": on, "name": zone + on}
                for zone in ("all", "low")
                for on in ("enter", "leave")
            ],
        }
    )
    engine = open_engine(EngineSection())
    told = {}
    try:
        for most_s in (0.0, 1.0):
            options = Options(section, fps=5.0, skip_still_s=most_s)
            folder = tmp_path / str(most_s)
            summary = process_file(
                data_dir / "clips" / "car-detection.mp4", folder, engine, options, lambda _done: None
            )
            lines = (folder / "alerts.jsonl").read_text().splitlines()
            told[most_s] = [(a["rule"], a["phase"], a["label"], a["time"]) for a in map(json.loads, lines)]
    finally:
        engine.close()
    assert told[1.0] == told[0.0]
    assert len(told[0.0]) >= 5
    assert summary["looked"] < 0.8 * summary["analysed"]

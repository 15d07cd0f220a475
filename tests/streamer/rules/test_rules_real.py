"""The behaviour rules on a real clip, through detector, tracker and measures: silent where nothing happens."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vedette.engines.api import Batch, Detections
from vedette.streamer.capture.letterbox import draw_letterbox
from vedette.streamer.capture.picturemeter import PictureMeter
from vedette.streamer.config.schema import CameraDefaults, EngineSection
from vedette.streamer.infer.engine import open_engine
from vedette.streamer.infer.incidents import Moment
from vedette.streamer.infer.pipeline import Pipeline
from vedette.streamer.types import Event

#: Every second picture of the clip's first sixteen seconds.
PICTURES, FPS = 80, 5.0
RULES = [{"kind": "run"}, {"kind": "abandoned", "seconds": 5}, {"kind": "tamper"}]


@pytest.fixture(scope="module")
def seen(data_dir: Path) -> list[tuple[np.ndarray, object, Detections]]:
    """Canvas, letterbox and detections of every picture."""
    reader, engine = cv2.VideoCapture(str(data_dir / "clips" / "vtest.avi")), open_engine(EngineSection())
    height, width = engine.spec.input_hw
    found = []
    for number in range(PICTURES):
        reader.grab()
        picture = np.asarray(reader.read()[1], np.uint8)
        canvas = np.zeros((height, width, 3), np.uint8)
        box = draw_letterbox(picture, canvas)
        batch = Batch(canvas[None], (box,), np.zeros(1, np.int32), np.array([number == 0]), np.array([number / FPS]))
        found.append((canvas, box, engine.infer(batch).detections[0]))
    engine.close()
    return found


def play(seen: list, *, faster: float = 1.0) -> list[Event]:
    """The events of the clip, its clock running so many times as fast."""
    pipeline, meter = Pipeline("s", "b", LABELS), PictureMeter()
    pipeline.configure("cam", CameraDefaults.model_validate({"rules": RULES}))
    events: list[Event] = []
    for number, (canvas, box, detections) in enumerate(seen):
        time_s = number / FPS / faster
        stats = meter.measure(canvas, box, time_s)
        moment = Moment("cam", 0, number, round(time_s * 1e9), time_s, time_s, 4 / 3, stats)
        events += pipeline.step([moment], [detections])[0].events
    return events


LABELS = ("person", "bicycle", "car", "motorcycle", "bus", "truck", "animal", "bag")


@pytest.mark.data
@pytest.mark.slow
def test_walkers_parked_cars_and_tripods_raise_nothing(seen: list) -> None:
    """A campus with pedestrians, a tripod, cones and dropped clothes: no run, nothing abandoned, no tamper."""
    assert play(seen) == []


@pytest.mark.data
@pytest.mark.slow
def test_the_same_people_at_two_and_a_half_times_the_speed_run(seen: list) -> None:
    """With the clock running faster walkers become runners, and nobody else is told of."""
    starts = [event for event in play(seen, faster=2.5) if event.phase == "start"]
    assert len(starts) >= 2
    assert {event.rule for event in starts} == {"run"}
    assert all(event.explain["checks"][0]["value"] >= 1.6 for event in starts)

"""What is counted, where, and how many there really are: clips, lines and true counts for ``tools/eval_counting.py``.

vtest.avi has ground truth (MOT15 PETS09-S2L1, the same pictures): its true counts are those of the very line
rule on the annotated boxes. For the traffic clips a person watched the frames and counted; nothing else is known of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from single_picture import batch_of

from vedette.engines.api import Detections
from vedette.streamer.config.schema import EngineSection
from vedette.streamer.infer.engine import open_engine
from vedette.streamer.offline.videofile import VideoFile

Line = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip and its lines. kinds: labels that count. truth: line -> (in, out) counted by eye; None: ``gt`` knows.

    fps: pictures a second that are real (vtest's header says 10).
    """

    file: str
    kinds: tuple[str, ...]
    lines: dict[str, Line]
    truth: dict[str, tuple[int, int]] | None = None
    gt: str | None = None
    fps: float | None = None
    note: str = ""


@dataclass(slots=True)
class Seen:
    """Detections of every picture of a clip: who made them, times, boxes, and what the labels are called."""

    detector: str
    aspect: float
    size_px: tuple[int, int]
    labels: tuple[str, ...]
    time_s: list[float] = field(default_factory=list)
    detections: list[Detections] = field(default_factory=list)


def detect(path: Path, cache: Path) -> Seen:
    """Every picture of a clip through the product's default detector; kept in ``cache`` as an .npz and read from there."""
    stored = cache / f"{path.stem}.npz"
    if not stored.is_file():
        _detect(path, stored)
    with np.load(stored, allow_pickle=False) as file:
        width, height = (int(v) for v in file["size_px"])
        seen = Seen(str(file["detector"]), width / height, (width, height), tuple(str(name) for name in file["labels"]))
        seen.time_s = [float(t) for t in file["time_s"]]
        cuts = np.cumsum(file["count"])[:-1]
        parts = (np.split(file[name], cuts) for name in ("xyxy", "score", "label"))
        seen.detections = [Detections(*part) for part in zip(*parts, strict=True)]
    return seen


def _detect(path: Path, stored: Path) -> None:
    engine = open_engine(EngineSection())
    video = VideoFile(path, engine.spec.input_hw)
    found: list[Detections] = []
    times: list[float] = []
    size = (0, 0)
    try:
        for picture in video.pictures():
            batch = batch_of(picture.canvas, picture.letterbox, picture.time_s, first=not found)
            found.append(engine.infer(batch).detections[0])
            times.append(picture.time_s)
            size = (picture.letterbox.source_w, picture.letterbox.source_h)
    finally:
        video.close()
        engine.close()
    stored.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        stored,
        detector=np.array(engine.spec.name),
        size_px=np.array(size),
        labels=np.array(engine.spec.labels),
        time_s=np.array(times),
        count=np.array([len(d) for d in found]),
        xyxy=np.concatenate([d.xyxy for d in found]),
        score=np.concatenate([d.score for d in found]),
        label=np.concatenate([d.label for d in found]),
    )


_UPRIGHT = {f"x{x:.2f}": ((x, 0.0), (x, 1.0)) for x in (0.3, 0.4, 0.5, 0.6, 0.7)}
_ACROSS = {f"y{y:.2f}": ((0.0, y), (1.0, y)) for y in (0.5, 0.6)}
_VEHICLES = ("car", "truck", "bus", "motorcycle")

CLIPS = (
    Clip("vtest.avi", ("person",), {**_UPRIGHT, **_ACROSS}, gt="MOT15/PETS09-S2L1", fps=7.0),
    Clip(
        "car-detection.mp4",
        _VEHICLES,
        {"y0.50": ((0.0, 0.5), (1.0, 0.5))},
        truth={"y0.50": (2, 2)},
        note="every 16th picture was looked at; a car is in view for at least 30",
    ),
    Clip(
        "video.avi",
        _VEHICLES,
        {"x0.55": ((0.55, 0.0), (0.55, 1.0))},
        truth={"x0.55": (0, 5)},
        note="every 16th picture was looked at; a car is in view for at least 60",
    ),
    Clip(
        "video02.avi",
        _VEHICLES,
        {"near": ((0.25, 0.55), (1.0, 0.55)), "far": ((0.25, 0.05), (0.25, 0.5))},
        truth={"near": (0, 22), "far": (20, 0)},
        note="counted on the picture of the line over time; a bicycle on the near side is not a vehicle",
    ),
)

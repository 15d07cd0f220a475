"""False detections an hour, label by label, on clips that show nobody: the part ``false`` of eval_detector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from detector_data import wear

from vedette.engines.api import LABELS

#: what a track needs by default, and what is more likely right than wrong
SCORES = (0.35, 0.5)
#: every n-th picture is looked at
EVERY = 3
#: how often each picture is worn (night, blur, rain, compression) for the harder set
WORN = 3


@dataclass(frozen=True, slots=True)
class Empty:
    """A clip without people. most: how many of its pictures (after that a hand reaches into tree.avi). shown: labels that are in it,
    or could be taken for what is; all others are false. All but tree.avi were training clips: an optimistic number."""

    file: str
    most: int
    shown: tuple[str, ...]


CLIPS = (
    Empty("clips/car-detection.mp4", 100_000, ("car", "truck", "bus")),
    Empty("clips/video.avi", 100_000, ("car", "truck", "bus")),
    Empty("hostile/tree.avi", 45, ()),
)


@dataclass(slots=True)
class Count:
    """hours: of video, a label. said: (label, score) -> pictures. begun: appearances, those that the picture before lacked."""

    hours: np.ndarray
    said: np.ndarray
    begun: np.ndarray
    pictures: int = 0

    @classmethod
    def none(cls) -> Count:
        shape = (len(LABELS), len(SCORES))
        return cls(np.zeros(len(LABELS)), np.zeros(shape, int), np.zeros(shape, int))

    def report(self) -> dict:
        """A row a label; below: the 95 % bound of the rate (Poisson) where nothing was seen, or its estimate."""
        rows = {}
        for i, label in enumerate(LABELS):
            rows[label] = {"hours": round(float(self.hours[i]), 4)}
            for j, score in enumerate(SCORES):
                n, per_hour = int(self.begun[i, j]), float(self.begun[i, j] / self.hours[i])
                rows[label][f"at {score}"] = {
                    "pictures": int(self.said[i, j]),
                    "appearances": n,
                    "per_hour": round(per_hour, 1),
                }
                if not n:
                    rows[label][f"at {score}"]["below_per_hour"] = round(3.0 / self.hours[i], 1)
        return {"pictures": self.pictures, "labels": rows}


def false_per_hour(named: dict, data: Path) -> dict:
    """Every detector on the clips as they were filmed, and worn; labels that are in a clip are not counted there."""
    out: dict = {"scores": SCORES, "clips": [c.file for c in CLIPS]}
    for name, detect in named.items():
        filmed, worn, r = Count.none(), Count.none(), np.random.default_rng(0)
        for clip in CLIPS:
            absent = np.array([label not in clip.shown for label in LABELS])
            for count, times in ((filmed, 0), (worn, WORN)):
                _count(detect, data / clip.file, clip.most, absent, count, times, r)
        out[name] = {"as filmed": filmed.report(), "worn": worn.report()}
    return out


def _count(detect, path: Path, most: int, absent: np.ndarray, count: Count, times: int, r: np.random.Generator) -> None:
    """Add a clip to ``count``; ``times``: how often each picture is worn, 0: as it is."""
    capture, k = cv2.VideoCapture(str(path)), 0
    before = np.zeros_like(count.said, bool)
    while k < most:
        ok, image = capture.read()
        if not ok:
            break
        k += 1
        if k % EVERY:
            continue
        for picture in [wear(image, r) for _ in range(times)] or [image]:
            _, scores, labels = detect(picture)
            said = np.array([[((labels == i) & (scores >= s)).any() for s in SCORES] for i in range(len(LABELS))])
            said &= absent[:, None]
            count.said += said
            count.begun += said & ~before
            count.pictures += 1
            before = said
    count.hours += absent * (k / (capture.get(cv2.CAP_PROP_FPS) or 25) / 3600 * max(1, times))

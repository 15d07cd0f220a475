"""Score thresholds of a detector for the tracker: the scores at which a detection is right with a given probability.

    python tools/calibrate_scores.py --images DIR [--detector vedette-nano] [--out scores.json]

DIR holds ``images/`` and YOLO ``labels/`` (80 COCO classes), in the same folders if there are any. People and vehicles are matched to the labels greedily by
score at IoU 0.5; the probability of being right as a function of the score is the isotonic fit (pool adjacent
violators) over all detections of both groups. ``score_low`` is where it reaches 0.1: more often wrong than that, a box
is no hint; ``score_high`` and ``score_new`` are where it reaches 0.5: more likely right than wrong. ByteTrack's own
0.1 and 0.6 are those very probabilities for the YOLOX it was made with (MOT17-val: 0.14 and 0.5).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from single_picture import detect_in, write_report

from vedette.engines.api import Engine, group_of
from vedette.kernels.nms import iou_matrix
from vedette.streamer.config.schema import EngineSection
from vedette.streamer.infer.engine import open_engine

F64 = NDArray[np.float64]
COCO = {0: "person", 1: "bicycle", 2: "car", 3: "motorcycle", 5: "bus", 7: "truck"}
GROUPS = ("person", "vehicle")


def isotonic(score: F64, right: F64) -> tuple[F64, F64]:
    """Levels of the best non-decreasing fit of ``right`` on ``score``: where each begins, and its value."""
    order = np.argsort(score, kind="stable")
    value: list[float] = []
    weight: list[float] = []
    start: list[float] = []
    for s, y in zip(score[order].tolist(), right[order].tolist(), strict=True):
        value.append(y)
        weight.append(1.0)
        start.append(s)
        while len(value) > 1 and value[-2] >= value[-1]:
            both = weight[-2] + weight[-1]
            value[-2:] = [(value[-2] * weight[-2] + value[-1] * weight[-1]) / both]
            weight[-2:] = [both]
            start.pop()
    return np.array(start), np.array(value)


def threshold(start: F64, value: F64, probability: float) -> float:
    """The least score whose fitted probability is at least ``probability``; 1 when none is."""
    reached = np.flatnonzero(value >= probability)
    return float(start[reached[0]]) if len(reached) else 1.0


def judge(boxes: NDArray[np.float32], score: NDArray[np.float32], truth: NDArray[np.float32]) -> F64:
    """1 for every detection that is the best of a labelled object at IoU 0.5, 0 for the others."""
    right = np.zeros(len(score))
    if not len(truth) or not len(boxes):
        return right
    overlap = iou_matrix(boxes, truth)
    for i in np.argsort(-score, kind="stable").tolist():
        j = int(overlap[i].argmax())
        if overlap[i, j] >= 0.5:
            right[i] = 1.0
            overlap[:, j] = 0.0
    return right


def judge_picture(engine: Engine, image: Path, labels: Path) -> list[tuple[F64, F64]]:
    """Scores of the people and vehicles found in a picture, and whether each is right."""
    pixels = cv2.imread(str(image))
    found = detect_in(engine, pixels)
    table = np.loadtxt(labels, ndmin=2) if labels.is_file() and labels.stat().st_size else np.zeros((0, 5))
    centre, half = table[:, 1:3], table[:, 3:5] / 2
    truth = np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)
    true_group = np.array([group_of(COCO[int(c)]) if int(c) in COCO else "" for c in table[:, 0]])
    group = np.array([group_of(engine.spec.labels[i]) for i in found.label.tolist()])
    out = []
    for name in GROUPS:
        mine = group == name
        right = judge(found.xyxy[mine], found.score[mine], truth[true_group == name])
        out.append((found.score[mine].astype(np.float64), right))
    return out


def main(argv: list[str] | None = None) -> int:
    """Calibrate; JSON to ``--out`` or stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder with images/ and labels/")
    parser.add_argument("--detector", default=EngineSection.model_fields["detector"].default)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    engine = open_engine(EngineSection(detector=args.detector))
    shelf = args.images / "images"
    pictures = sorted(shelf.rglob("*.jpg"))
    if not pictures:
        print(f"{args.images}/images: needs .jpg pictures, got none", file=sys.stderr)
        return 2
    parts = [
        judge_picture(engine, p, args.images / "labels" / p.relative_to(shelf).with_suffix(".txt")) for p in pictures
    ]
    engine.close()
    report: dict[str, Any] = {"detector": engine.spec.name, "pictures": len(pictures), "groups": {}}
    for name, which in (("both", range(len(GROUPS))), *((g, [i]) for i, g in enumerate(GROUPS))):
        score = np.concatenate([part[i][0] for part in parts for i in which])
        right = np.concatenate([part[i][1] for part in parts for i in which])
        start, value = isotonic(score, right)
        at = {f"{p:g}": round(threshold(start, value, p), 3) for p in (0.1, 0.3, 0.5, 0.7, 0.9)}
        report["groups"][name] = {"detections": len(score), "right": int(right.sum()), "score_at_probability": at}
    write_report(report, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

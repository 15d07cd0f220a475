"""Measure the shipped detector against published ones, all in one run; JSON on stdout (and --out).

    python tools/eval_detector.py --data ../shared/data --models ../shared/models --out report.json --sheet sheet.jpg

Nothing measured here was trained on, except the clips of the false-detection count (it says so). Confidence
intervals are 95 % bootstrap intervals over pictures. Latencies are medians and want a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from detector_data import read_yolo
from detector_false import false_per_hour
from detector_metrics import Matched, average_precision, interval, match, paired_difference, small_recall
from detector_peers import Found, NanoDet, YoloX, suppress
from eval_detector_extra import contact_sheet, latencies, reid_report
from single_picture import detect_in

from vedette.engines.api import LABELS, group_of
from vedette.engines.load import load

Detect = Callable[[np.ndarray], Found]
Set = list[tuple[np.ndarray, np.ndarray]]  # picture, rows [N,5] label x1 y1 x2 y2 px
VEHICLES = [i for i, label in enumerate(LABELS) if group_of(label) == "vehicle"]


class Ours:
    """A vedette engine, called with one picture as the daemon prepares it; answers in pixels."""

    def __init__(self, model: str, size: str | None, threads: int = 2, backend: str = "auto") -> None:
        self.engine = load(model, size=size, threads=threads, backend=backend)
        self.engine.score_floor = 0.03  # type: ignore[attr-defined]  # AP counts the weak ones too

    def detections(self, image: np.ndarray):
        return detect_in(self.engine, image)

    def __call__(self, image: np.ndarray) -> Found:
        d = self.detections(image)
        h, w = image.shape[:2]
        return d.xyxy * np.array([w, h, w, h], np.float32), d.score, d.label


def coco_people(data: Path) -> Set:
    folder = data / "images" / "coco_val_people"
    out = []
    for path in sorted((folder / "images").rglob("*.jpg")):
        image = cv2.imread(str(path))
        out.append((image, read_yolo(folder / "labels" / path.parent.name / f"{path.stem}.txt", image.shape[:2])))
    return out


def mot_truth(path: Path) -> dict[int, np.ndarray]:
    """Frame -> rows [N,5] id, x1, y1, x2, y2 of a MOTChallenge ground truth."""
    frames: dict[int, list[list[float]]] = {}
    for line in path.read_text().splitlines():
        f, who, x, y, w, h, active = (float(v) for v in line.split(",")[:7])
        if active:
            frames.setdefault(int(f), []).append([who, x, y, x + w, y + h])
    return {k: np.array(v, np.float32) for k, v in frames.items()}


def vtest(data: Path, every: int) -> Set:
    truth = mot_truth(data / "mot" / "MOT15" / "PETS09-S2L1" / "gt" / "gt.txt")
    capture, k, out = cv2.VideoCapture(str(data / "clips" / "vtest.avi")), 0, []
    while True:
        ok, image = capture.read()
        if not ok:
            return out
        k += 1
        if k % every == 0:
            rows = truth.get(k, np.zeros((0, 5), np.float32)).copy()
            rows[:, 0] = 0
            out.append((image, rows))


def matched(found: list[Found], pictures: Set, labels: list[int]) -> list[Matched]:
    out = []
    for (boxes, scores, got), (_, rows) in zip(found, pictures, strict=True):
        mine = np.isin(got, labels)
        out.append(match(boxes[mine], scores[mine], rows[np.isin(rows[:, 0], labels)][:, 1:5]))
    return out


def detectors(a: argparse.Namespace) -> dict[str, Detect]:
    """Name -> detector. The first is ours as shipped; peers get NMS at 0.5."""
    out: dict[str, Detect] = {"vedette-nano 416x256": Ours(a.model, "416x256")}
    for size in ("320x192", "640x384"):
        out[f"vedette-nano {size}"] = Ours(a.model, size)
    for extra in a.also:
        out[extra] = Ours(extra, None)
    if a.models:
        peers = {
            "nanodet-g untuned 416x256": NanoDet(a.models / "nanodet_g_coco.onnx", (256, 416), 2),
            "nanodet-g untuned 416x416": NanoDet(a.models / "nanodet_g_coco.onnx", (416, 416), 2),
            "yolox-nano 416x416": YoloX(a.models / "yolox_nano_416.onnx", threads=2),
            "nanodet-m 416x416": NanoDet(a.models / "nanodet_m_416.onnx", (416, 416), 2),
            "light-person 192x192": YoloX(a.models / "light_person_192.onnx", (192, 192), 2, person_only=True),
        }
        out |= {name: (lambda image, d=d: suppress(d(image, 0.03))) for name, d in peers.items()}
    return out


def accuracy(a: argparse.Namespace, named: dict[str, Detect]) -> tuple[dict, dict]:
    """The accuracy table, and the matched pictures of every model and set."""
    sets = {"coco_people": coco_people(a.data), "vtest": vtest(a.data, a.every)}
    table: dict = {"objects": {k: int(sum((r[:, 0] == 0).sum() for _, r in v)) for k, v in sets.items()}}
    table["objects"]["coco_vehicles"] = int(sum(np.isin(r[:, 0], VEHICLES).sum() for _, r in sets["coco_people"]))
    kept: dict = {}
    for name, detect in named.items():
        row = table[name] = {}
        for key, pictures in sets.items():
            found = [detect(image) for image, _ in pictures]
            people = kept[name, key] = matched(found, pictures, [0])
            row[f"{key}_person_ap50"] = interval(people, average_precision)
            row[f"{key}_recall_under_60px"] = interval(people, lambda p: small_recall(p, 60))
            if key == "coco_people":
                row["coco_vehicle_ap50"] = interval(matched(found, pictures, VEHICLES), average_precision)
                row["coco_bag_ap50"] = interval(matched(found, pictures, [7]), average_precision)
                row["coco_animal_ap50"] = interval(matched(found, pictures, [6]), average_precision)
        print(f"{name:28s}", {k: v["value"] for k, v in row.items()}, flush=True)
    ours = next(iter(named))
    table["ahead_of_yolox_nano"] = {
        key: paired_difference(kept[ours, key], kept["yolox-nano 416x416", key], average_precision)
        for key in sets
        if ("yolox-nano 416x416", key) in kept
    }
    table["ahead_of_start_weights"] = {
        key: paired_difference(kept[ours, key], kept["nanodet-g untuned 416x256", key], average_precision)
        for key in sets
        if ("nanodet-g untuned 416x256", key) in kept
    }
    if a.sheet:
        pictures = sets["coco_people"] + sets["vtest"]
        contact_sheet(named[ours], pictures, kept[ours, "coco_people"] + kept[ours, "vtest"], a.sheet)
    return table, kept


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="vedette-nano", help="name or ONNX file")
    p.add_argument("--also", nargs="*", default=[], help="further vedette ONNX files, e.g. the INT8 one")
    p.add_argument("--data", type=Path, default=Path("../shared/data"))
    p.add_argument("--models", type=Path, help="folder of the peers; without it only ours is measured")
    p.add_argument("--every", type=int, default=5, help="every n-th frame of vtest")
    p.add_argument("--parts", nargs="*", default=["accuracy", "reid", "latency", "false"])
    p.add_argument("--sheet", type=Path, help="write a contact sheet of the best and worst pictures")
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    cv2.setNumThreads(1)
    started = time.perf_counter()
    named = detectors(a)
    report: dict = {"model": a.model, "sha256": named["vedette-nano 416x256"].engine.spec.sha256}  # type: ignore[attr-defined]
    if "accuracy" in a.parts:
        report["accuracy"], _ = accuracy(a, named)
    if "reid" in a.parts:
        truth = mot_truth(a.data / "mot" / "MOT15" / "PETS09-S2L1" / "gt" / "gt.txt")
        report["reid"] = reid_report(named["vedette-nano 416x256"], a.data / "clips" / "vtest.avi", truth, a.models)
    if "latency" in a.parts:
        report["latency_ms"] = latencies(a.model, a.also, a.models)
    if "false" in a.parts:
        report["false_per_hour"] = false_per_hour(named, a.data)
    report["seconds"] = round(time.perf_counter() - started, 1)
    text = json.dumps(report, indent=1)
    if a.out:
        a.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

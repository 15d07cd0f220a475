"""Run PyPI ``trackers`` (SORT, ByteTrack, OC-SORT, BoT-SORT) and ``norfair`` on MOTChallenge detections.

Runs in an interpreter of its own (the peers pull OpenCV builds and numpy versions that the product must
not see): JSON job on stdin, JSON timings on stdout. Job: ``{"peers": [names], "out": DIR, "sequences":
[{"name", "det", "frame_rate", "length"}], "variants": {name: {"base": peer, option: value}}}``; writes
``DIR/<peer>/data/<name>.txt``. Default settings, or those of a variant; what a peer takes as frame rate is the real
one. BoT-SORT runs without pictures (``enable_cmc=False``).
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

#: (boxes [N,4] pixels xyxy, score [N]) -> rows (id, x1, y1, x2, y2, score) of tracks with an id
Step = Callable[[np.ndarray, np.ndarray], "list[tuple[float, ...]]"]
TRACKERS = {
    "sort": ("SORTTracker", {}),
    "bytetrack": ("ByteTrackTracker", {}),
    "ocsort": ("OCSORTTracker", {}),
    "botsort": ("BoTSORTTracker", {"enable_cmc": False}),
}
NAMES = (*TRACKERS, "norfair")


def trackers_step(name: str, frame_rate: float, variant: dict[str, Any]) -> Step:
    """A fresh tracker of the package ``trackers``. variant: options that are not the defaults, or {}."""
    import supervision as sv
    import trackers

    cls, options = TRACKERS[variant.get("base", name)]
    asked = {key: value for key, value in variant.items() if key != "base"}
    tracker = getattr(trackers, cls)(frame_rate=frame_rate, **options, **asked)

    def step(xyxy: np.ndarray, score: np.ndarray) -> list[tuple[float, ...]]:
        found = tracker.update(sv.Detections(xyxy=xyxy, confidence=score, class_id=np.zeros(len(score), int)))
        if found.tracker_id is None or not len(found):
            return []
        kept = found[found.tracker_id >= 0]
        return [(i, *b, s) for i, b, s in zip(kept.tracker_id, kept.xyxy, kept.confidence, strict=True)]

    return step


def norfair_step(frame_rate: float) -> Step:
    """A fresh norfair tracker with its README's IoU distance."""
    import norfair

    tracker = norfair.Tracker(
        distance_function="iou", distance_threshold=0.7, hit_counter_max=max(2, round(frame_rate))
    )

    def step(xyxy: np.ndarray, score: np.ndarray) -> list[tuple[float, ...]]:
        sure = score >= 0.5
        detections = [
            norfair.Detection(points=b.reshape(2, 2), scores=np.array([s, s]))
            for b, s in zip(xyxy[sure], score[sure], strict=True)
        ]
        found = tracker.update(detections=detections)
        fresh = [t for t in found if any(t.last_detection is d for d in detections)]
        return [(t.id, *t.last_detection.points.ravel(), float(t.last_detection.scores[0])) for t in fresh]

    return step


def read_detections(path: Path, length: int) -> list[np.ndarray]:
    """[M,5] x1, y1, x2, y2, score of every frame."""
    rows = np.loadtxt(path, delimiter=",", ndmin=2, usecols=range(7)) if path.stat().st_size else np.zeros((0, 7))
    boxes = np.column_stack([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6], rows[:, 6]]) if len(rows) else np.zeros((0, 5))
    frame = rows[:, 0].astype(int)
    last = length or int(frame.max(initial=0))
    return [boxes[frame == k] for k in range(1, last + 1)]


def run_sequence(peer: str, sequence: dict[str, Any], out: Path, variant: dict[str, Any]) -> dict[str, float]:
    """Track one sequence into ``out/<peer>/data/<name>.txt``; frames and milliseconds a frame."""
    rate = float(sequence["frame_rate"])
    frames = read_detections(Path(sequence["det"]), int(sequence.get("length", 0)))
    step = norfair_step(rate) if peer == "norfair" else trackers_step(peer, rate, variant)
    path = out / peer / "data" / f"{sequence['name']}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    spent = 0.0
    with path.open("w", encoding="utf-8") as file:
        for number, rows in enumerate(frames, 1):
            began = time.perf_counter()
            found = step(rows[:, :4].astype(np.float64), rows[:, 4].astype(np.float64))
            spent += time.perf_counter() - began
            for i, x1, y1, x2, y2, s in found:
                file.write(f"{number},{int(i) + 1},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{s:.4f},-1,-1,-1\n")
    return {"frames": len(frames), "ms_per_frame": 1e3 * spent / max(1, len(frames))}


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """All peers over all sequences; {"versions": .., "timing": {peer: {sequence: ..}}}."""
    warnings.filterwarnings("ignore")
    variants, out = job.get("variants", {}), Path(job["out"])
    timing = {
        peer: {s["name"]: run_sequence(peer, s, out, variants.get(peer, {})) for s in job["sequences"]}
        for peer in job["peers"]
    }
    packages = ("trackers", "norfair", "trackeval", "numpy", "scipy")
    versions = {p: importlib.metadata.version(p) for p in packages if _installed(p)}
    return {"versions": versions, "timing": timing}


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    json.dump(run_job(json.load(sys.stdin)), sys.stdout)

"""Times PyPI ``trackers`` and ``norfair``; run as a script by their own interpreter, needs numpy and them only.

JSON job on stdin (peers, scenes as .npz files, seconds, rate_hz), JSON medians on stdout.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np


def step_of(name: str, rate_hz: float) -> Callable[[Any], object]:
    """A function that feeds one picture's [M,5] boxes and scores to a fresh tracker with default settings."""
    if name == "norfair":
        import norfair

        tracker = norfair.Tracker(distance_function="iou", distance_threshold=0.7)
        return lambda rows: tracker.update(
            [norfair.Detection(points=r[:4].reshape(2, 2), scores=np.array([r[4], r[4]])) for r in rows]
        )
    import supervision as sv
    import trackers

    cls = {
        "sort": "SORTTracker",
        "bytetrack": "ByteTrackTracker",
        "ocsort": "OCSORTTracker",
        "botsort": "BoTSORTTracker",
    }[name]
    options = {"enable_cmc": False} if name == "botsort" else {}
    peer = getattr(trackers, cls)(frame_rate=rate_hz, **options)
    return lambda rows: peer.update(
        sv.Detections(xyxy=rows[:, :4], confidence=rows[:, 4], class_id=np.zeros(len(rows), int))
    )


def median_ms(name: str, pictures: list[Any], seconds: float, rate_hz: float) -> float:
    """Median milliseconds a picture; the scene plays forth and back as it does for ours."""
    step = step_of(name, rate_hz)
    order = [*range(len(pictures)), *range(len(pictures) - 2, 0, -1)]
    scale = np.array([1920.0, 1080.0, 1920.0, 1080.0, 1.0])
    spent: list[float] = []
    began, k = time.perf_counter(), 0
    while time.perf_counter() - began < seconds or len(spent) < 30:
        rows = pictures[order[k % len(order)]].astype(np.float64) * scale
        start = time.perf_counter()
        step(rows)
        spent.append(1e3 * (time.perf_counter() - start))
        k += 1
    return float(np.median(spent[10:]))


def main() -> None:
    """Read the job, measure, answer."""
    warnings.filterwarnings("ignore")
    job = json.load(sys.stdin)
    found: dict[str, dict[str, float]] = {}
    missing: dict[str, str] = {}
    for name in job["peers"]:
        for objects, path in job["scenes"].items():
            with np.load(path, allow_pickle=False) as file:
                pictures = [file[str(k)] for k in range(len(file.files))]
            try:
                found.setdefault(name, {})[objects] = round(
                    median_ms(name, pictures, job["seconds"], job["rate_hz"]), 4
                )
            except ImportError as error:
                missing[name] = str(error)
                break
    found = {name: rows for name, rows in found.items() if rows}
    json.dump({"ms_per_frame_p50": found, "not_installed": missing}, sys.stdout)


if __name__ == "__main__":
    main()

"""Run the tracker for millions of simulated frames: ids stay unique, memory stays flat, speed stays the same.

    python tools/soak_tracker.py --frames 10000000      # 6 minutes of CPU

Many cameras of a few people who come, walk, are missed, and leave. Checked at every frame: an id that is
new is greater than every id its camera ever had, so none is used twice. Watched over the run: tracks alive,
resident memory and CPU milliseconds a frame, a line every tenth. Exit 1 when a check fails; JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from typing import Any

import numpy as np

from vedette.engines.api import Detections
from vedette.streamer.tracking.tracker import Tracker
from vedette.streamer.types import Tracks

RATE_HZ = 10.0


class Crowd:
    """``people`` walkers in each of ``cameras`` pictures; who leaves or has been long enough is somebody new elsewhere."""

    def __init__(self, cameras: int, people: int, embedding: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.shape = (cameras, people)
        self.centre = self.rng.uniform(0, 1, (*self.shape, 2))
        self.rate = self.rng.normal(0, 0.05, (*self.shape, 2))
        self.look = self._looks(self.shape, embedding) if embedding else None
        self.width = embedding

    def _looks(self, shape: tuple[int, ...], width: int) -> np.ndarray:
        look = self.rng.normal(size=(*shape, width))
        return (look / np.linalg.norm(look, axis=-1, keepdims=True)).astype(np.float32)

    def step(self) -> list[Detections]:
        """What the detectors see 1 / RATE_HZ later."""
        r = self.rng
        self.centre += self.rate / RATE_HZ
        gone = ((self.centre < 0) | (self.centre > 1)).any(-1) | (r.random(self.shape) < 0.002)
        n = int(gone.sum())
        self.centre[gone], self.rate[gone] = r.uniform(0, 1, (n, 2)), r.normal(0, 0.05, (n, 2))
        if self.look is not None:
            self.look[gone] = self._looks((n,), self.width)
        half = np.array([0.02, 0.1])
        xyxy = np.concatenate([self.centre - half, self.centre + half], axis=-1) + r.normal(0, 0.002, (*self.shape, 4))
        boxes, score = xyxy.astype(np.float32), np.clip(r.normal(0.85, 0.1, self.shape), 0, 1).astype(np.float32)
        seen = r.random(self.shape) > 0.05
        label = np.zeros(self.shape[1], np.int32)
        return [
            Detections(boxes[c][k], score[c][k], label[: int(k.sum())], None if self.look is None else self.look[c][k])
            for c, k in enumerate(seen)
        ]


def resident_mib() -> float:
    """Memory of this process now, MiB (Linux; elsewhere its peak)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def check_ids(answers: list[Tracks], highest: np.ndarray, call: int) -> None:
    """Every id alive once, every newborn's id above all its camera had (``highest``, updated); else AssertionError."""
    camera = np.repeat(np.arange(len(answers)), [len(a) for a in answers])
    ids = np.concatenate([a.id for a in answers])
    newborn = np.concatenate([a.age_s for a in answers]) == 0
    key = camera * 2**40 + ids
    twice = len(np.unique(key)) != len(key)
    if twice or (ids[newborn] <= highest[camera[newborn]]).any():
        raise AssertionError(f"call {call}: an id was used twice, got {sorted(key.tolist())}")
    np.maximum.at(highest, camera, ids)


def soak(frames: int, cameras: int, people: int, embedding: int) -> dict[str, Any]:
    """Run ``frames`` camera-frames; what was seen, a row every tenth. Raises AssertionError on an id used twice."""
    tracker, crowd = Tracker(), Crowd(cameras, people, embedding)
    names = [f"camera-{c}" for c in range(cameras)]
    highest = np.zeros(cameras, np.int64)
    rows: list[dict[str, float]] = []
    calls = max(10, frames // cameras)
    spent, began = 0.0, time.monotonic()
    for call in range(calls):
        detections = crowd.step()
        if call % 997 == 500:
            tracker.reset(names[call % cameras])
        start = time.process_time()
        answers = tracker.update(names, [call / RATE_HZ] * cameras, detections)
        spent += time.process_time() - start
        check_ids(answers, highest, call)
        if (call + 1) % (calls // 10) == 0:
            row = {
                "camera_frames": (call + 1) * cameras,
                "tracks": len(tracker),
                "resident_mib": round(resident_mib(), 1),
                "ms_per_camera_frame": round(1e3 * spent / (calls // 10) / cameras, 4),
            }
            rows.append(row)
            spent = 0.0
            print(f"{time.monotonic() - began:7.0f} s  {row}", file=sys.stderr)
    return {"ids_given": int(highest.sum()), "rejected": dict(tracker.rejected), "rows": rows}


def main(argv: list[str] | None = None) -> int:
    """Soak and judge: memory of the last tenth may exceed the second's by 5 % and 8 MiB."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000_000, help="camera-frames in all")
    parser.add_argument("--cameras", type=int, default=256)
    parser.add_argument("--people", type=int, default=2, help="people in every picture")
    parser.add_argument("--embedding", type=int, default=0, help="width of appearance embeddings, 0 for none")
    args = parser.parse_args(argv)
    report = soak(args.frames, args.cameras, args.people, args.embedding)
    early, late = report["rows"][1]["resident_mib"], report["rows"][-1]["resident_mib"]
    report["flat"] = late <= 1.05 * early + 8
    print(json.dumps(report))
    return 0 if report["flat"] else 1


if __name__ == "__main__":
    raise SystemExit(main())

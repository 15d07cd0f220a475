"""``vedette bench tracker``: milliseconds a camera-frame, ours and PyPI ``trackers`` / ``norfair`` on the same scenes.

Scenes are simulated: people that walk, turn, cross and are missed now and then, seen by a noisy detector.
Ours runs with the default config, the one that is scored. Peers run in ``--peers-python`` (a virtual
environment of their own) on one camera at a time: they know no batches.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import Detections
from vedette.streamer.tracking.tracker import Tracker

PEERS = ("sort", "bytetrack", "ocsort", "botsort", "norfair")
RATE_HZ = 30.0
F32 = NDArray[np.float32]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette bench tracker`` takes."""
    parser.add_argument("--objects", type=int, nargs="+", default=[10, 50, 100, 300], help="objects in every picture")
    parser.add_argument("--cameras", type=int, nargs="+", default=[1, 16, 64], help="cameras in one call")
    parser.add_argument("--seconds", type=float, default=2.0, help="least measuring time a row")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has trackers and norfair")
    parser.add_argument("--no-peers", action="store_true", help="only ours")


class Scene:
    """Walking boxes of one camera; ``step`` gives the next picture's noisy detections. Same seed, same scene."""

    def __init__(self, objects: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        r = self._rng
        self._height = r.uniform(0.1, 0.3, objects) * min(1.0, (50 / objects) ** 0.5)
        self._centre = r.uniform(0.0, 1.0, (objects, 2))
        self._rate = r.normal(0.0, 0.5, (objects, 2)) * self._height[:, None]

    def step(self, dt_s: float) -> tuple[F32, F32]:
        """Boxes [M,4] normalised and scores [M] after ``dt_s`` more seconds; 5 % of the objects are missed."""
        r, n = self._rng, len(self._height)
        self._rate += r.normal(0.0, 0.3 * dt_s**0.5, (n, 2)) * self._height[:, None]
        self._centre += self._rate * dt_s
        bounce = (self._centre < 0) | (self._centre > 1)
        self._rate[bounce] *= -1
        self._centre = np.clip(self._centre, 0, 1)
        half = np.column_stack([self._height * 0.4 * 9 / 16, self._height]) / 2
        noise = r.normal(0.0, 0.02, (n, 4)) * self._height[:, None]
        xyxy = np.concatenate([self._centre - half, self._centre + half], axis=1) + noise
        score = np.clip(r.normal(0.85, 0.1, n), 0.15, 0.99)
        seen = r.random(n) > 0.05
        return xyxy[seen].astype(np.float32), score[seen].astype(np.float32)


def frames_of(objects: int, seed: int, frames: int) -> list[tuple[F32, F32]]:
    """The first ``frames`` pictures of a scene."""
    scene = Scene(objects, seed)
    return [scene.step(1 / RATE_HZ) for _ in range(frames)]


def measure_ours(objects: int, cameras: int, seconds: float) -> dict[str, float]:
    """p50 and p95 over calls of milliseconds per camera-frame, all cameras in one call."""
    names = [f"camera-{i}" for i in range(cameras)]
    length = 60
    scenes = [frames_of(objects, seed, length) for seed in range(cameras)]
    detections = [
        [Detections(xyxy, score, np.zeros(len(score), np.int32)) for xyxy, score in (scene[k] for scene in scenes)]
        for k in range(length)
    ]
    tracker, k = Tracker(), 0
    spent: list[float] = []
    began = time.perf_counter()
    # the scene plays forth and back, so that it goes on without a jump
    order = [*range(length), *range(length - 2, 0, -1)]
    while time.perf_counter() - began < seconds or len(spent) < 50:
        frame = detections[order[k % len(order)]]
        start = time.perf_counter()
        tracker.update(names, [k / RATE_HZ] * cameras, frame)
        spent.append(1e3 * (time.perf_counter() - start) / cameras)
        k += 1
    warm = np.array(spent[10:])
    return {
        "objects": objects,
        "cameras": cameras,
        "frames": len(warm) * cameras,
        "ms_per_camera_frame_p50": round(float(np.percentile(warm, 50)), 4),
        "ms_per_camera_frame_p95": round(float(np.percentile(warm, 95)), 4),
    }


def measure_peers(objects: list[int], seconds: float, python: str) -> dict[str, Any]:
    """The same figures of the peers that ``python`` has; {"error": why} where it cannot run."""
    script = Path(__file__).with_name("tracker_peers.py")
    with tempfile.TemporaryDirectory() as folder:
        scenes = {}
        for n in objects:
            path = Path(folder) / f"{n}.npz"
            pictures = frames_of(n, 0, 60)
            arrays: dict[str, Any] = {str(k): np.column_stack(picture) for k, picture in enumerate(pictures)}
            np.savez(path, **arrays)
            scenes[str(n)] = str(path)
        job = {"peers": PEERS, "scenes": scenes, "seconds": seconds, "rate_hz": RATE_HZ}
        done = subprocess.run([python, str(script)], input=json.dumps(job), capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": f"{python}: {done.stderr.strip().splitlines()[-1:] or done.returncode}"}
    answer: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return answer


def run(args: argparse.Namespace) -> int:
    """Measure, then print one JSON object on stdout."""
    ours = []
    for objects in args.objects:
        for cameras in args.cameras:
            ours.append(measure_ours(objects, cameras, args.seconds))
            row = ours[-1]
            print(f"{objects} objects, {cameras} cameras: {row['ms_per_camera_frame_p50']} ms", file=sys.stderr)
    peers = {} if args.no_peers else measure_peers(args.objects, args.seconds, args.peers_python)
    ratio: dict[str, dict[str, float]] = {}
    for row in ours:
        for name, rows in peers.get("ms_per_frame_p50", {}).items():
            if (theirs := rows.get(str(row["objects"]))) is not None:
                key = f"{row['objects']}x{row['cameras']}"
                ratio.setdefault(name, {})[key] = round(theirs / row["ms_per_camera_frame_p50"], 2)
    report = {
        "schema": "vedette.bench.tracker/1",
        "machine": {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()},
        "ours": ours,
        "peers": peers,
        "times_faster_objects_x_cameras": ratio,
    }
    print(json.dumps(report))
    return 0

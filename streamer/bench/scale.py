"""What 1 to 64 cameras cost: processor and memory of the whole daemon, and the exponent by which its cost grows.

Scenes: ``synthetic``, a drawn square that crosses a noisy wall; ``recorded``, of which ``--busy`` of the cameras play the clip
and the others show its first picture under a sensor's fresh noise; ``still``, the others alone. ``--scenes still recorded --busy 1
--fps 15 --warm 20 --rest`` says what a static scene costs of a busy one (``still_of_recorded``). A scene plays at ``--fps``,
low enough for many cameras on few cores. A row whose cameras were not all read at that rate is not ``held``: what a machine
costs that has no more to give says nothing, and the exponent is fitted without it. 1 is linear, less is better.
JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vedette.streamer.bench._daemonload import Load, measure
from vedette.streamer.bench._mixture import NOISE_LEVELS, SIZE_WH, mixture, prepare
from vedette.streamer.bench._protocol import machine, say
from vedette.streamer.offline.sample import find_clip

SCHEMA = "vedette.bench.scale/1"
SCENES = ("synthetic", "recorded", "still")
#: Held means that so much of what was due was read, of all cameras together.
HELD = 0.9
#: Seconds of the drawn scene: once across the wall.
DRAWN_S = 10.0

Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette bench scale`` takes."""
    parser.add_argument("--cameras", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64], help="default: 1 2 ... 64")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=["synthetic", "recorded"], help="(default both)")
    parser.add_argument("--video", type=Path, help="clip that is recorded (default: the demo's)")
    parser.add_argument("--busy", type=float, default=0.25, help="share of the recorded cameras that play it (0.25)")
    parser.add_argument("--fps", type=float, default=1.0, help="pictures a second and camera (default: 1)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement (default: 10)")
    parser.add_argument("--warm", type=float, default=5.0, help="seconds before each measurement (default: 5)")
    parser.add_argument("--most-s", type=float, default=420.0, help="begin no row after so many seconds (default: 420)")
    parser.add_argument("--rest", action="store_true", help="with engine.rest")
    parser.add_argument("--peers-python", help="interpreter with PyAV, which makes the clips H.264 (default: MPEG-4)")


def run(args: argparse.Namespace) -> int:
    """Measure; JSON goes to standard output, progress to standard error."""
    began_s = time.monotonic()
    scenes: dict[str, Row] = {}
    load = Load(args.fps, args.seconds, args.warm, rest=args.rest)
    with tempfile.TemporaryDirectory(prefix="vedette-bench-") as name:
        folder = Path(name)
        clips = {scene: clips_of(scene, args, folder) for scene in args.scenes}
        rows: dict[str, list[Row]] = {scene: [] for scene in args.scenes}
        left_out = []
        for count in sorted(args.cameras):  # scenes in turn: what else the machine does meets all alike
            for scene in args.scenes:
                if time.monotonic() - began_s > args.most_s:
                    left_out.append({"scene": scene, "cameras": count})
                    continue
                rows[scene].append(row_of(measure(clips[scene][:count], load, folder), args.fps))
                say(f"{scene} {rows[scene][-1]}")
    for scene, found in rows.items():
        scenes[scene] = {
            "cost_exponent": exponent([row for row in found if row["held"]], "cores"),
            "memory_exponent": exponent(found, "memory_mb"),
            "memory_mb_per_camera": slope(found, "memory_mb"),
            "rows": found,
        }
    document = {
        "schema": SCHEMA,
        "machine": machine(),
        "fps": args.fps, "seconds": args.seconds, "busy_share": args.busy, "rest": args.rest,
        "size": f"{SIZE_WH[0]}x{SIZE_WH[1]}", "not_run": left_out, "scenes": scenes,
        "still_of_recorded": still_of_recorded(rows),
    }  # fmt: skip
    print(json.dumps(document, indent=2))
    return 0


def clips_of(scene: str, args: argparse.Namespace, folder: Path) -> list[Path]:
    """The clips of as many cameras as anybody asks for."""
    if scene == "synthetic":
        return [drawn(folder / "drawn.avi", args.fps)] * max(args.cameras)
    source = find_clip(args.video, say)
    still = folder / "still.mp4"
    if not still.exists():
        prepare(source, still, args.fps, still=True, python=args.peers_python)
    if scene == "still":
        return [still] * max(args.cameras)
    busy = folder / "busy.mp4"
    prepare(source, busy, args.fps, still=False, python=args.peers_python)
    return mixture(busy, still, args.busy)


def drawn(target: Path, fps: float) -> Path:
    """A square that crosses a wall, each picture with a sensor's noise of its own."""
    wide, high = SIZE_WH
    rng = np.random.default_rng(1)
    wall = cv2.resize(rng.integers(60, 180, (9, 16, 3), np.uint8), SIZE_WH, interpolation=cv2.INTER_CUBIC)
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"MJPG"), fps, SIZE_WH)
    count = max(2, round(DRAWN_S * fps))
    for k in range(count):
        picture = wall + rng.normal(0, NOISE_LEVELS, wall.shape)
        left = (wide - high // 4) * k // (count - 1)
        picture[high // 2 : high * 3 // 4, left : left + high // 4] = (40, 60, 200)
        writer.write(np.clip(picture, 0, 255).astype(np.uint8))
    writer.release()
    return target


def row_of(measured: Row, fps: float) -> Row:
    """What a row is made of: the sum over all processes, and each camera's part of it."""
    count, processes = measured["cameras"], measured["processes"]
    by_role: dict[str, float] = {}
    for process in processes:
        by_role[process["role"]] = round(by_role.get(process["role"], 0.0) + process["cpu_percent"] / 100, 4)
    memory_mb = sum(process["pss_mb"] for process in processes)
    return {
        "cameras": count,
        "held": measured["fps_total"] >= HELD * count * fps,
        "fps_total": measured["fps_total"],
        "cores": round(sum(by_role.values()), 4),
        "cores_by_role": by_role,
        "cpu_s_per_camera_hour": measured["cpu_s_per_camera_hour"],
        "memory_mb": round(memory_mb, 1),
        "latency_ms": measured["latency_ms"],
    }


def still_of_recorded(rows: dict[str, list[Row]]) -> dict[int, float]:
    """What still cameras cost of as many recorded ones, by their number, where both were held."""
    held = {scene: {row["cameras"]: row["cores"] for row in rows.get(scene, []) if row["held"]} for scene in SCENES}
    both = held["still"].keys() & held["recorded"].keys()
    return {count: round(held["still"][count] / held["recorded"][count], 4) for count in sorted(both)}


def exponent(rows: list[Row], key: str) -> float | None:
    """b of ``key = a * cameras ** b``, by least squares of the logarithms; None with fewer than two numbers of cameras."""
    points = [(row["cameras"], row[key]) for row in rows if row[key] > 0]
    if len({count for count, _ in points}) < 2:
        return None
    counts, values = np.log(np.array(points, np.float64)).T
    return round(float(np.polyfit(counts, values, 1)[0]), 3)


def slope(rows: list[Row], key: str) -> float | None:
    """What one camera more adds, by least squares."""
    if len({row["cameras"] for row in rows}) < 2:
        return None
    return round(float(np.polyfit([row["cameras"] for row in rows], [row[key] for row in rows], 1)[0]), 2)

"""How many cameras this machine sustains, how late its subscribers hear, and what users' own loops do instead.

Every contender gets the same 720p clips, paced in real time, and the same detector. N grows until one camera loses more
than 1 % of its pictures; then 80 % of what was sustained is measured in interleaved rounds: decoded picture to result,
CPU, memory. Contenders: the daemon as it comes, with ``engine.rest``, and without adaptive inference, and under ``--peers-python``
(needs onnxruntime, opencv, supervision, trackers; PyAV makes the clips H.264) threads of OpenCV with ONNX Runtime, the
same with supervision and ByteTrack of trackers, and Roboflow's inference pipeline where it is installed. Peers are tuned
first: threads of the session, workers, batch.

Of the cameras ``--busy`` plays the clip; the others see its first picture under a sensor's fresh noise, as most cameras do
most of the time. With ``--most-s`` the searches share the time; who was not done stands in ``at_least``. JSON on standard
output.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vedette.engines.load import resolve
from vedette.streamer.bench._daemonload import Load, measure
from vedette.streamer.bench._mixture import ask_peer, mixture, prepare
from vedette.streamer.bench._physical import limits_of, share_of_limits
from vedette.streamer.bench._protocol import in_turn, say
from vedette.streamer.errors import VedetteError
from vedette.streamer.offline.sample import find_clip

SCHEMA = "vedette.bench.pipeline/2"
#: Sustained means that no camera loses more than this share of its pictures.
LOST_MOST = 0.01
#: The load whose latency is reported.
SHARE = 0.8
#: The part of ``--most-s`` that may go into the search; the rest is for the rounds.
SEARCH_PART = 0.7
PEERS = ("opencv", "supervision", "inference")

Row = dict[str, Any]
Contender = Callable[[int], Row]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette bench pipeline`` takes."""
    parser.add_argument("--video", type=Path, help="clip that busy cameras play (default: the demo's)")
    parser.add_argument("--busy", type=float, default=0.25, help="share of the cameras that play it (default: 0.25)")
    parser.add_argument("--fps", type=float, default=15.0, help="pictures a second and camera (default: 15)")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of each measurement (default: 15)")
    parser.add_argument("--warm", type=float, default=4.0, help="seconds before each measurement (default: 4)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds at 80 %% of the load (default: 3)")
    parser.add_argument("--most", type=int, default=64, help="cameras to end with (default: 64)")
    parser.add_argument("--peers-python", help="interpreter that has the peers (default: only ours)")
    parser.add_argument("--only", nargs="+", help="contenders to run (default: all that are installed)")
    parser.add_argument("--most-s", type=float, help="begin no measurement after so many seconds (default: no end)")


def run(args: argparse.Namespace) -> int:
    """Measure; JSON goes to standard output, progress to standard error."""
    began_s, most_s = time.monotonic(), args.most_s or float("inf")
    with tempfile.TemporaryDirectory(prefix="vedette-bench-") as name:
        folder = Path(name)
        source = find_clip(args.video, say)
        busy, still = folder / "busy.mp4", folder / "still.mp4"
        codec = prepare(source, busy, args.fps, still=False, python=args.peers_python)
        prepare(source, still, args.fps, still=True, python=args.peers_python)
        clips = mixture(busy, still, args.busy)
        limits = limits_of(busy, still)
        contenders, tuned, missing = contenders_of(clips, args, folder)
        steps: dict[str, list[Row]] = {}
        for name, contender in contenders.items():  # each gets its share of the time that is left
            now_s = time.monotonic()
            share_s = (began_s + SEARCH_PART * most_s - now_s) / (len(contenders) - len(steps))
            steps[name] = search(name, contender, args.most, until_s=now_s + share_s)
        sustained = {name: _sustained(rows) for name, rows in steps.items()}
        unfinished = [name for name, rows in steps.items() if not _finished(rows, args.most)]
        rounds: dict[str, list[Row]] = {name: [] for name in contenders}
        for number in range(args.rounds):
            for name in in_turn(contenders, number):
                if sustained[name] and time.monotonic() - began_s < most_s:
                    rounds[name].append(contenders[name](max(1, int(sustained[name] * SHARE))))
                    say(f"round {number + 1} {name}: {_short(rounds[name][-1])}")
    best = max((sustained[peer] for peer in PEERS if peer in sustained), default=0)
    document = {
        "schema": SCHEMA,
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "processor": _processor()},
        "clips": {"source": source.name, "codec": codec, "size": "1280x720", "fps": args.fps, "busy_share": args.busy},
        "seconds": args.seconds,
        "peers": {"tuned": tuned, "not_run": missing, "versions": _versions(args.peers_python)},
        "limits": limits,
        "cameras_sustained": sustained,
        "at_least": unfinished,
        "times_best_peer": {n: round(s / best, 2) for n, s in sustained.items() if best and n not in PEERS},
        "at_80_percent": {n: summary(rows, limits, args) for n, rows in rounds.items() if rows},
        "steps": steps,
    }
    print(json.dumps(document, indent=2))
    return 0


def contenders_of(
    clips: list[Path], args: argparse.Namespace, folder: Path
) -> tuple[dict[str, Contender], dict[str, Row], dict[str, str]]:
    """Who takes part, how the peers were tuned, and who does not and why."""
    ours: dict[str, tuple[float | None, bool]] = {
        "vedette": (None, False), "vedette-rest": (None, True), "vedette-no-skip": (0.0, False),
    }  # fmt: skip
    contenders: dict[str, Contender] = {}
    for name, (skip, rest) in ours.items():
        load = Load(args.fps, args.seconds, args.warm, skip, rest)
        contenders[name] = lambda n, load=load: measure(clips[:n], load, folder)  # type: ignore[misc]
    tuned: dict[str, Row] = {}
    missing: dict[str, str] = {}
    for name in PEERS:
        if args.peers_python is None:
            missing[name] = "no --peers-python"
            continue
        if args.only and name not in args.only:
            continue
        try:
            tuned[name] = tune(name, clips, args)
        except VedetteError as error:
            missing[name] = str(error)
            continue
        job = {**_job(name, args), **tuned[name]}
        contenders[name] = lambda n, job=job: _ask(job, clips[:n], args)  # type: ignore[misc]
    return {n: c for n, c in contenders.items() if not args.only or n in args.only}, tuned, missing


def tune(name: str, clips: list[Path], args: argparse.Namespace) -> Row:
    """The settings of a peer with the most pictures a second when there is too much to do."""
    cores = len(os.sched_getaffinity(0))
    choices: list[Row] = [
        {"threads": cores, "workers": 1, "batch": 1},
        {"threads": 1, "workers": cores, "batch": 1},
        {"threads": cores, "workers": 1, "batch": 4},
    ]
    if name == "inference":  # its own threads and its own batches
        choices = choices[:1]
    found = []
    for choice in choices:
        row = _ask({**_job(name, args), **choice, "seconds": min(8.0, args.seconds)}, clips[: 4 * cores], args)
        say(f"tuning {name} {choice}: {_short(row)}")
        found.append((row["fps_total"], choice))
    return max(found, key=lambda item: item[0])[1]


def _job(name: str, args: argparse.Namespace) -> Row:
    model = str(Path(resolve("vedette-nano")).absolute())
    return {"loop": name, "model": model, "fps": args.fps, "seconds": args.seconds, "warm": args.warm}


def _ask(job: Row, clips: list[Path], args: argparse.Namespace) -> Row:
    return ask_peer(args.peers_python, {**job, "clips": [str(clip) for clip in clips]})


def search(name: str, contender: Contender, most: int, until_s: float = float("inf")) -> list[Row]:
    """Measure until the most cameras that are sustained is known, or it is ``until_s`` (monotonic, and one was measured)."""
    rows: list[Row] = []
    good, bad, n = 0, most + 1, 1
    while good < n < bad and (not rows or time.monotonic() < until_s):
        rows.append(contender(n))
        say(f"{name} {_short(rows[-1])}")
        if rows[-1]["lost_most"] <= LOST_MOST:
            good = n
        else:
            bad = n
        n = _more(rows[-1], most) if bad > most else (good + bad) // 2
    return rows


def _more(row: Row, most: int) -> int:
    """How many cameras to try after so many were sustained: what the processors have room for, between a quarter more
    and four times as many."""
    count: int = row["cameras"]
    cost_s: float = row["cpu_s_per_camera_hour"]
    room = int((os.cpu_count() or 1) * 3600 / cost_s) if cost_s > 0 else 2 * count
    return min(most, max(count + max(1, count // 4), min(4 * count, room)))


def _finished(rows: list[Row], most: int) -> bool:
    """Whether one camera more than was sustained was seen to be too many."""
    good = _sustained(rows)
    return good == most or any(row["cameras"] == good + 1 for row in rows)


def _sustained(rows: list[Row]) -> int:
    return max((row["cameras"] for row in rows if row["lost_most"] <= LOST_MOST), default=0)


def summary(rows: list[Row], limits: Row, args: argparse.Namespace) -> Row:
    """Medians of the rounds, and their least and most."""
    cameras = rows[0]["cameras"]
    cost = [row["cpu_s_per_camera_hour"] for row in rows]
    p95 = [row["latency_ms"]["p95"] for row in rows if row["latency_ms"]]
    return {
        "cameras": cameras,
        "latency_p95_ms": round(statistics.median(p95), 1) if p95 else None,
        "latency_p95_ms_spread": [min(p95), max(p95)] if p95 else None,
        "cpu_s_per_camera_hour": round(statistics.median(cost), 1),
        "cpu_s_per_camera_hour_spread": [min(cost), max(cost)],
        "lost_most": max(row["lost_most"] for row in rows),
        "share_of_limit": share_of_limits(statistics.median(cost), limits, args.fps, args.busy),
    }


def _short(row: Row) -> str:
    return (
        f"{row['cameras']} cameras: {row['fps_total']:.1f} fps, lost {row['lost_most']:.1%}, {row['latency_ms']}, "
        f"{row['cpu_s_per_camera_hour']:.0f} CPU-s/h"
    )


def _versions(python: str | None) -> Row:
    try:
        return {} if python is None else ask_peer(python, {"loop": "versions"})
    except VedetteError as error:
        return {"error": str(error)}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.processor()

"""From nothing to the first decoded picture, the first detection and the first alert, in interleaved rounds.

Each round starts every contender once on the same clip and ends it: the daemon with one camera, the daemon with
``--cameras`` of them (the last one's firsts count), and under ``--peers-python`` users' own loops, which have no alerts. Time
runs from just before the process is started. Files are in the page cache after the rounds of ``--warm``, which do not count.
JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import zmq

from vedette.engines.load import resolve
from vedette.streamer.bench._daemonload import cameras_of
from vedette.streamer.bench._mixture import SIZE_WH, ask_peer, recode
from vedette.streamer.bench._protocol import in_turn, machine, say
from vedette.streamer.demodaemon import Daemon
from vedette.streamer.errors import VedetteError
from vedette.streamer.offline.sample import find_clip

SCHEMA = "vedette.bench.startup/1"
STEPS = ("first_decoded_s", "first_detection_s", "first_alert_s")
PEERS = ("opencv", "supervision")
#: What a start may take, seconds, and more for every camera.
PATIENCE_S, PATIENCE_EACH_S = 60.0, 5.0

Row = dict[str, float | None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette bench startup`` takes."""
    parser.add_argument("--video", type=Path, help="clip that the cameras play (default: the demo's)")
    parser.add_argument("--cameras", type=int, default=4, help="cameras of the larger daemon (default: 4)")
    parser.add_argument("--fps", type=float, default=10.0, help="pictures a second and camera (default: 10)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; the median counts (default: 5)")
    parser.add_argument("--warm", type=int, default=1, help="rounds before that do not count (default: 1)")
    parser.add_argument("--peers-python", help="interpreter that has the peers (default: only ours)")


def run(args: argparse.Namespace) -> int:
    """Measure; JSON goes to standard output, progress to standard error."""
    with tempfile.TemporaryDirectory(prefix="vedette-bench-") as name:
        folder = Path(name)
        clip = recode(find_clip(args.video, say), folder / "clip.mp4", args.fps, size_wh=SIZE_WH)
        contenders: dict[str, Callable[[], Row]] = {
            f"vedette, {count} camera{'s' * (count > 1)}": lambda count=count: start_daemon(  # type: ignore[misc]
                [clip] * count, args.fps, folder
            )
            for count in sorted({1, args.cameras})
        }
        for peer in PEERS if args.peers_python else ():
            contenders[peer] = lambda peer=peer: start_peer(peer, clip, args)  # type: ignore[misc]
        rows, missing = rounds_of(contenders, args.warm, args.rounds)
    document = {
        "schema": SCHEMA,
        "machine": machine(),
        "rounds": args.rounds,
        "steps": STEPS,
        "not_run": missing,
        "contenders": {
            contender: {"median": median_of(found), "rounds": found} for contender, found in rows.items() if found
        },
    }
    print(json.dumps(document, indent=2))
    return 0


def rounds_of(
    contenders: dict[str, Callable[[], Row]], warm: int, rounds: int
) -> tuple[dict[str, list[Row]], dict[str, str]]:
    """The rows of each contender, each round another one first; and who cannot run, and why."""
    rows: dict[str, list[Row]] = {name: [] for name in contenders}
    missing: dict[str, str] = {}
    for number in range(warm + rounds):
        for name in in_turn(contenders, number):
            if name in missing:
                continue
            try:
                row = contenders[name]()
            except VedetteError as error:
                if number >= warm:
                    raise
                missing[name] = str(error)
                continue
            say(f"{'warm-up' if number < warm else f'round {number - warm + 1}'} {name}: {row}")
            if number >= warm:
                rows[name].append(row)
    return rows, missing


def median_of(rows: list[Row]) -> Row:
    """The median of every step; None where there is none."""
    found: Row = {}
    for step in STEPS:
        known = [value for row in rows if (value := row[step]) is not None]
        found[step] = round(statistics.median(known), 3) if known else None
    return found


def start_daemon(clips: list[Path], fps: float, folder: Path) -> Row:
    """One start of the daemon with a camera a clip; when the last of the cameras had each of its firsts, seconds."""
    sections = cameras_of(clips, fps)
    decoded: dict[str, float] = {}
    detected: dict[str, float] = {}
    alerted: dict[str, float] = {}
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        for prefix in ("track.", "alert."):
            socket.subscribe(prefix)
        began_s = time.monotonic()
        with Daemon(sections, folder / "daemon.log") as daemon:
            socket.setsockopt(zmq.RECONNECT_IVL, 5)
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, 20)
            socket.connect(daemon.publish)
            until_s = began_s + PATIENCE_S + PATIENCE_EACH_S * len(clips)
            while len(alerted) < len(clips):
                if time.monotonic() > until_s:
                    raise VedetteError(f"bench startup: no alert of {sections.keys() - alerted.keys()} in time")
                daemon.check()
                if not socket.poll(200):
                    continue
                topic, raw = socket.recv_multipart()
                now_s, message = time.monotonic(), json.loads(raw)
                camera = message["camera"]
                if topic.startswith(b"alert."):
                    alerted.setdefault(camera, now_s)
                    continue
                decoded.setdefault(camera, message["mono_ns"] / 1e9)
                if message["tracks"]:
                    detected.setdefault(camera, now_s)
    firsts = (decoded, detected, alerted)
    return {step: round(max(at.values()) - began_s, 3) for step, at in zip(STEPS, firsts, strict=True)}


def start_peer(loop: str, clip: Path, args: argparse.Namespace) -> Row:
    """One start of a user's own loop. Raises VedetteError with its last words."""
    model = str(Path(resolve("vedette-nano")).absolute())
    job = {"loop": "startup", "sort": loop, "model": model, "clip": str(clip), "threads": len(os.sched_getaffinity(0))}
    began_s = time.monotonic()
    answer = ask_peer(args.peers_python, {**job, "fps": args.fps})
    return {
        "first_decoded_s": round(answer["decoded_s"] - began_s, 3),
        "first_detection_s": round(answer["detected_s"] - began_s, 3),
        "first_alert_s": None,
    }

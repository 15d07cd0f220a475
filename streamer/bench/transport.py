"""``vedette bench transport``: frames between two processes, ours against imageZMQ and plain pyzmq, in one run.

Flat out and paced at 30 pictures a second, at 1080p and at the engine's size; rounds are interleaved and the median
round counts, so that a noisy machine treats all alike. Only frames that arrive with the right checksum count. Every
picture is written once by its producer, into the memory that the transport offers; latency runs from its completion.

For ``vedette`` that memory is the slot of the ring, because this is what the capture process does: it resizes the
decoded picture into the slot itself (`vedette.streamer.capture.letterbox.draw_letterbox`, ``cv2.resize(dst=...)``). Who has the
picture elsewhere already pays one copy more: ``vedette-copied``, reported beside it with a ratio of its own. The other
transports' users hold an array, and an array they get. ``cpu_ms`` is the processor time of both processes, all their
threads, for a delivered frame, the picture's making and its checksum included.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from vedette.streamer.bench import transport_peers
from vedette.streamer.bench._protocol import in_turn, say
from vedette.streamer.bus.ring import create_ring

#: name -> height, width
SIZES = {"1080p": (1080, 1920), "416x256": (256, 416)}
TRANSPORTS = ("vedette", "vedette-copied", "imagezmq", "pyzmq-copy", "pyzmq-zerocopy")
#: Slots of the ring under test: one is written while one is read; flat out, a third would only be superseded.
SLOTS = 2
PACED_FPS = 30.0

Result = dict[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette bench transport`` takes."""
    parser.add_argument("--seconds", type=float, default=2.0, help="measured time of each run (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds; the median counts (default 3)")
    parser.add_argument("--size", action="append", choices=SIZES, help="only this size; may be repeated")
    parser.add_argument("--peers-python", default=sys.executable, help="a Python that has imagezmq (default: this one)")


def run(args: argparse.Namespace) -> int:
    """Print one JSON document. Exit 1 when any transport delivered a wrong frame, or ours delivered none."""
    found = [name for name in TRANSPORTS if name != "imagezmq" or _has_imagezmq(args.peers_python)]
    if "imagezmq" not in found:
        say("imagezmq is not installed in --peers-python; it is left out")
    sizes = {size: _measure_size(size, found, args) for size in args.size or SIZES}
    document = {
        "benchmark": "transport",
        "cpus": os.cpu_count(),
        "seconds": args.seconds,
        "rounds": args.rounds,
        "ratio_vs_imagezmq": {size: entry["ratio_vs_imagezmq"] for size, entry in sizes.items()},
        "copied_ratio_vs_imagezmq": {size: entry["copied_ratio_vs_imagezmq"] for size, entry in sizes.items()},
        "p50_ms": {size: entry["p50_ms"] for size, entry in sizes.items()},
        "sizes": sizes,
    }
    print(json.dumps(document, indent=2))
    wrong = sum(r["wrong"] for entry in sizes.values() for kind in entry["transports"].values() for r in kind.values())
    return 1 if wrong else 0


def _measure_size(size: str, names: list[str], args: argparse.Namespace) -> dict[str, Any]:
    rounds: dict[tuple[str, str], list[Result]] = {}
    for number in range(args.rounds):
        for pace, fps in (("flat_out", 0.0), ("paced_30_fps", PACED_FPS)):
            # each round another one goes first
            for name in in_turn(names, number):
                say(f"{size} round {number + 1}/{args.rounds} {pace} {name}")
                rounds.setdefault((name, pace), []).append(_measure(name, SIZES[size], fps, args))
    entry: dict[str, Any] = {
        name: {pace: _median(rounds[name, pace]) for pace in ("flat_out", "paced_30_fps")} for name in names
    }
    return {
        "ratio_vs_imagezmq": _ratio(entry, "vedette", "fps"),
        "copied_ratio_vs_imagezmq": _ratio(entry, "vedette-copied", "fps"),
        "ratio_of_each_round": [
            ours["fps"] / peer["fps"]
            for ours, peer in zip(rounds["vedette", "flat_out"], rounds.get(("imagezmq", "flat_out"), []), strict=False)
        ],
        "cpu_ratio_vs_imagezmq": _ratio(entry, "vedette", "cpu_ms"),
        "p50_ms": entry["vedette"]["paced_30_fps"]["p50_ms"],
        "transports": entry,
    }


def _ratio(entry: dict[str, Any], ours: str, figure: str) -> float | None:
    """Ours to imageZMQ's, flat out; None without imageZMQ."""
    peer = entry.get("imagezmq")
    return entry[ours]["flat_out"][figure] / peer["flat_out"][figure] if peer else None


def _median(results: list[Result]) -> Result:
    """The median of each figure; wrong frames add up."""
    middle = {key: statistics.median(result[key] for result in results) for key in results[0]}
    return middle | {"wrong": sum(result["wrong"] for result in results)}


def _measure(name: str, size: tuple[int, int], fps: float, args: argparse.Namespace) -> Result:
    """One run: a receiver, a sender, and what the receiver saw."""
    place = Path(tempfile.mkdtemp(prefix="vedette-bench-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    script = Path(transport_peers.__file__)
    python = args.peers_python if name == "imagezmq" else sys.executable
    (place / "port").write_text(str(_free_port()))
    create_ring(place / transport_peers.RING, SLOTS, size[0] * size[1] * 3)
    tail = [name, str(place), *map(str, (*size, fps, args.seconds))]
    receiver = subprocess.Popen([python, str(script), "recv", *tail], stdout=subprocess.PIPE, text=True)
    sender = None
    try:
        assert receiver.stdout is not None
        if not receiver.stdout.readline():
            raise RuntimeError(f"bench transport: the {name} receiver did not start")
        sender = subprocess.Popen([python, str(script), "send", *tail])
        receiver.stdout.readline()  # the warm-up is over
        before_s = _cpu_s(sender.pid) + _cpu_s(receiver.pid)
        line = receiver.stdout.readline()
        if not line:
            raise RuntimeError(f"bench transport: the {name} receiver ended without a result")
        result: Result = json.loads(line)
        after_s = _cpu_s(sender.pid) + _cpu_s(receiver.pid)
        return result | {"cpu_ms": (after_s - before_s) * 1e3 / max(1.0, result["delivered"])}
    finally:
        for process in (sender, receiver):
            if process is not None:
                process.kill()
                process.wait()
        if receiver.stdout is not None:
            receiver.stdout.close()
        shutil.rmtree(place, ignore_errors=True)


def _cpu_s(pid: int) -> float:
    """Processor time of a process and all its threads so far, seconds: its clock as the kernel names it."""
    return time.clock_gettime((~pid << 3) | 2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _has_imagezmq(python: str) -> bool:
    return subprocess.run([python, "-c", "import imagezmq"], capture_output=True, check=False).returncode == 0

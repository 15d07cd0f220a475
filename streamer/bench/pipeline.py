"""How many cameras this machine sustains, and how late its subscribers hear: the real daemon on N file cameras.

N grows until pictures are dropped (gaps in ``seq`` tell exactly which), then 80 % of the sustained load is measured:
decoded picture to subscriber, CPU and memory of every process. JSON on standard output. Compare a run of
``--skip-still 0`` with one without, and both with ``--still``, to see what adaptive inference saves.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from vedette.streamer.demodaemon import Daemon
from vedette.streamer.errors import SourceError, VedetteError
from vedette.streamer.offline.sample import find_clip
from vedette.streamer.sources import file
from vedette.streamer.sources.base import EndOfStream, Want

SCHEMA = "vedette.bench.pipeline/1"
#: Sustained means that no camera loses more than this share of its pictures.
LOST_MOST = 0.01
#: The load whose latency is reported.
SHARE = 0.8
#: Seconds of clip that are played in a loop, at most.
CLIP_S = 20.0
#: Noise of a sensor by day, grey levels.
NOISE_LEVELS = 3.0
WHOLE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette bench pipeline`` takes."""
    parser.add_argument("--video", type=Path, help="clip that every camera plays (default: the demo's)")
    parser.add_argument("--fps", type=float, default=15.0, help="pictures a second and camera (default: 15)")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of each measurement (default: 15)")
    parser.add_argument("--warm", type=float, default=4.0, help="seconds before each measurement (default: 4)")
    parser.add_argument("--first", type=int, default=1, help="cameras to begin with (default: 1)")
    parser.add_argument("--still", action="store_true", help="nothing moves: the clip's first picture and fresh noise")
    parser.add_argument("--skip-still", type=float, help="engine.skip_still, 0 for never (default: the daemon's)")
    parser.add_argument("--most", type=int, default=64, help="cameras to end with (default: 64)")


def run(args: argparse.Namespace) -> int:
    """Measure; JSON goes to standard output, progress to standard error."""
    with tempfile.TemporaryDirectory(prefix="vedette-bench-") as folder:
        clip = recode(find_clip(args.video, _say), Path(folder) / "clip.mp4", args.fps, still=args.still)
        steps: list[dict[str, Any]] = []
        sustained, cameras = 0, args.first
        while cameras <= args.most:
            step = measure(clip, cameras, args, Path(folder))
            steps.append(step)
            _say(f"{cameras} cameras: {step['fps_total']:.1f} fps, lost {step['lost_most']:.1%}, {step['latency_ms']}")
            if step["lost_most"] > LOST_MOST:
                break
            sustained, cameras = cameras, max(cameras + 1, round(cameras * 1.25))
        at = max(1, int(sustained * SHARE))
        result = {
            "schema": SCHEMA,
            "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "processor": _processor()},
            "fps": args.fps,
            "still": args.still,
            "skip_still": args.skip_still,
            "seconds": args.seconds,
            "cameras_sustained": sustained,
            "lost_most": LOST_MOST,
            "steps": steps,
            "at_80_percent": measure(clip, at, args, Path(folder)) if sustained else None,
        }
    print(json.dumps(result, indent=2))
    return 0


def recode(source: Path, target: Path, fps: float, *, still: bool = False) -> Path:
    """At most `CLIP_S` of ``source`` as MPEG-4 whose header says ``fps``, so that each picture is one of the load.

    still: its first picture all the time, each time with `NOISE_LEVELS` of a sensor's noise.
    """
    import cv2

    reader = file.KIND.open(str(source), Want())
    writer: cv2.VideoWriter | None = None
    first: NDArray[np.uint8] | None = None
    rng = np.random.default_rng(1)
    count = 0
    try:
        while count < CLIP_S * fps:
            if still and first is not None:
                picture = np.clip(first + rng.normal(0, NOISE_LEVELS, first.shape), 0, 255).astype(np.uint8)
            else:
                try:
                    reader.grab()
                except EndOfStream:
                    break
                picture = reader.retrieve()
                first = picture.copy() if first is None else first
            if writer is None:
                size = (picture.shape[1], picture.shape[0])
                writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
            writer.write(picture)
            count += 1
    finally:
        reader.close()
        if writer is not None:
            writer.release()
    if count == 0:
        raise SourceError(f"{source}: holds no picture that can be decoded")
    return target


def measure(clip: Path, cameras: int, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One daemon with so many cameras, from start to stop."""
    section = {
        "source": str(clip), "loop": True, "pace": "realtime", "fps": args.fps,
        "zones": {"all": WHOLE}, "rules": [{"kind": "zone", "zone": "all"}],
    }  # fmt: skip
    names = [f"camera-{i + 1}" for i in range(cameras)]
    extra = {} if args.skip_still is None else {"engine": {"skip_still": args.skip_still}}
    with Daemon(dict.fromkeys(names, section), folder / "daemon.log", http="127.0.0.1:0", extra=extra) as daemon:
        meter = _Meter(daemon, names)
        try:
            meter.wait(60.0 + 5.0 * cameras)
            meter.listen(args.warm)
            before = meter.usage()
            meter.forget()
            began_s = time.monotonic()
            meter.listen(args.seconds)
            wall_s = time.monotonic() - began_s
            processes = meter.between(before, wall_s)
            return {
                "cameras": cameras,
                **meter.result(wall_s),
                "cpu_s_per_camera_hour": round(sum(row["cpu_percent"] for row in processes) * 36 / cameras, 1),
                "processes": processes,
            }
        finally:
            meter.close()


class _Meter:
    """An ordinary subscriber that looks at its clock."""

    def __init__(self, daemon: Daemon, names: list[str]) -> None:
        self._daemon, self._names = daemon, names
        self._http: str | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, 100_000)
        for topic in ("track.", "alert.", "status.hub"):
            self._socket.subscribe(topic)
        self._socket.connect(daemon.publish)
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._latency_ms: list[float] = []
        self._alert_ms: list[float] = []
        self._count: dict[str, int] = defaultdict(int)
        self._lost: dict[str, int] = defaultdict(int)
        self._last: dict[str, tuple[int, int]] = {}

    def wait(self, timeout_s: float) -> None:
        """Until every camera was heard and the hub told its HTTP address."""
        deadline = time.monotonic() + timeout_s
        while self._http is None or any(self._count[name] < 3 for name in self._names):
            self._daemon.check()
            if time.monotonic() > deadline:
                missing = [name for name in self._names if self._count[name] < 3]
                raise VedetteError(f"bench pipeline: nothing from {', '.join(missing)} within {timeout_s:.0f} s")
            self._hear(0.2)

    def listen(self, seconds: float) -> None:
        """Take in what comes for so long."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self._hear(left_s)
        self._daemon.check()

    def _hear(self, wait_s: float) -> None:
        if not self._socket.poll(max(1, int(wait_s * 1000))):
            return
        topic, raw = self._socket.recv_multipart()
        now_ns = time.monotonic_ns()
        message = json.loads(raw)
        if topic == b"status.hub":
            self._http = message.get("http") or self._http
        elif topic.startswith(b"alert."):
            total = message["latency_ms"]["total"]
            if message["phase"] == "start" and total is not None:
                self._alert_ms.append(total)
        else:
            self._take(message, now_ns)

    def _take(self, message: dict[str, Any], now_ns: int) -> None:
        camera, at = message["camera"], (message["epoch"], message["seq"])
        self._latency_ms.append((now_ns - message["mono_ns"]) / 1e6)
        self._count[camera] += 1
        epoch, seq = self._last.get(camera, at)
        # the first picture of a loop is number 0: what is missing before it was lost as well
        self._lost[camera] += at[1] if epoch != at[0] else max(0, at[1] - seq - 1)
        self._last[camera] = at

    def result(self, wall_s: float) -> dict[str, Any]:
        """What was heard."""
        share = {n: self._lost[n] / max(1, self._lost[n] + self._count[n]) for n in self._names}
        silent = any(self._count[name] == 0 for name in self._names)
        return {
            "fps_total": round(sum(self._count.values()) / wall_s, 2),
            "fps_least": round(min(self._count[name] for name in self._names) / wall_s, 2),
            "lost_most": 1.0 if silent else round(max(share.values()), 4),
            "latency_ms": _percentiles(self._latency_ms),
            "alert_commit_ms": _percentiles(self._alert_ms),
        }

    def usage(self) -> dict[int, dict[str, Any]]:
        """CPU seconds and memory of every process of the daemon, the supervisor included."""
        with urllib.request.urlopen(f"http://{self._http}/api/v1/processes", timeout=5) as answer:
            rows = json.load(answer)["processes"]
        found = {row["pid"]: {"role": row["role"], "name": row["name"]} for row in rows if row["pid"]}
        found[self._daemon.process.pid] = {"role": "supervisor", "name": "supervisor"}
        return {pid: {**row, **_proc(pid)} for pid, row in found.items()}

    def between(self, before: dict[int, dict[str, Any]], wall_s: float) -> list[dict[str, Any]]:
        """CPU in percent of one core over the measurement, and memory at its end."""
        after = self.usage()
        return [
            {
                "role": row["role"],
                "name": row["name"],
                "cpu_percent": round(100 * (row["cpu_s"] - before.get(pid, row)["cpu_s"]) / wall_s, 1),
                "rss_mb": round(row["rss_mb"], 1),
            }
            for pid, row in sorted(after.items(), key=lambda item: (item[1]["role"], item[1]["name"]))
        ]

    def close(self) -> None:
        """Leave."""
        self._context.destroy(linger=0)


def _percentiles(samples: list[float]) -> dict[str, float] | None:
    if not samples:
        return None
    p50, p95, p99 = np.percentile(samples, [50, 95, 99]).tolist()
    return {"p50": round(p50, 1), "p95": round(p95, 1), "p99": round(p99, 1)}


def _proc(pid: int) -> dict[str, float]:
    """CPU seconds and resident memory of a process, from /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return {"cpu_s": ticks / os.sysconf("SC_CLK_TCK"), "rss_mb": int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.processor()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

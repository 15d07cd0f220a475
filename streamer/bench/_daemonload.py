"""The real daemon on N file cameras and an ordinary subscriber that looks at its clock, for ``vedette bench``."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from vedette.streamer.demodaemon import Daemon
from vedette.streamer.errors import VedetteError

WHOLE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]


@dataclass(frozen=True, slots=True)
class Load:
    """How long is measured, at how many pictures a second. skip_still, rest: of ``engine``; None for the daemon's own."""

    fps: float
    seconds: float
    warm_s: float
    skip_still: float | None = None
    rest: bool = False


def cameras_of(clips: Sequence[Path], fps: float) -> dict[str, Any]:
    """The configuration of a camera a clip, which asks for an alert as soon as anybody is there."""
    return {
        f"camera-{i + 1}": {
            "source": str(clip), "loop": True, "pace": "realtime", "fps": fps,
            "zones": {"all": WHOLE}, "rules": [{"kind": "zone", "zone": "all"}],
        }
        for i, clip in enumerate(clips)
    }  # fmt: skip


def measure(clips: Sequence[Path], load: Load, folder: Path) -> dict[str, Any]:
    """One daemon with a camera a clip, from start to stop."""
    cameras = len(clips)
    sections = cameras_of(clips, load.fps)
    names = list(sections)
    engine = {"rest": load.rest} | ({} if load.skip_still is None else {"skip_still": load.skip_still})
    with Daemon(sections, folder / "daemon.log", http="127.0.0.1:0", extra={"engine": engine}) as daemon:
        meter = Meter(daemon, names)
        try:
            meter.wait(60.0 + 5.0 * cameras)
            meter.listen(load.warm_s)
            before = meter.usage()
            meter.forget()
            began_s = time.monotonic()
            meter.listen(load.seconds)
            wall_s = time.monotonic() - began_s
            processes = meter.between(before, wall_s)
            return {
                "cameras": cameras,
                **meter.result(wall_s, load.fps, meter.pace()),
                "cpu_s_per_camera_hour": round(sum(row["cpu_percent"] for row in processes) * 36 / cameras, 1),
                "processes": processes,
            }
        finally:
            meter.close()


class Meter:
    """An ordinary subscriber that looks at its clock."""

    def __init__(self, daemon: Daemon, names: list[str]) -> None:
        self._daemon, self._names = daemon, names
        self._http: str | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, 100_000)
        for topic in ("track.", "alert.", "status."):
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
        self._read: dict[str, list[float]] = defaultdict(list)

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
        elif topic.startswith(b"status."):
            self._read[message["camera"]].append(float(message["fps"]))
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

    def result(self, wall_s: float, fps: float = 0.0, pace: Mapping[str, float] | None = None) -> dict[str, Any]:
        """What was heard. fps: what each camera should have given, pace: what it read; who falls behind loses, too."""
        share = {n: self._lost[n] / max(1, self._lost[n] + self._count[n]) for n in self._names}
        for name, read in (pace or {}).items():
            share[name] = max(share[name], 1 - read / fps)
        silent = any(self._count[name] == 0 for name in self._names)
        return {
            "fps_total": round(sum(pace.values() if pace else self._count.values()) * (1 if pace else 1 / wall_s), 2),
            "fps_told": round(sum(self._count.values()) / wall_s, 2),
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

    def pace(self) -> dict[str, float]:
        """Pictures a second that each camera read, as its status said every second; a camera that rests reads, too."""
        return {name: sum(told) / len(told) for name, told in self._read.items()}

    def between(self, before: dict[int, dict[str, Any]], wall_s: float) -> list[dict[str, Any]]:
        """CPU in percent of one core over the measurement, and memory at its end."""
        after = self.usage()
        return [
            {
                "role": row["role"],
                "name": row["name"],
                "cpu_percent": round(100 * (row["cpu_s"] - before.get(pid, row)["cpu_s"]) / wall_s, 1),
                "rss_mb": round(row["rss_mb"], 1),
                "pss_mb": round(row["pss_mb"], 1),
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
    """CPU seconds and memory of a process, from /proc: resident, and with its part of what it shares."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    shared = dict(line.split()[:2] for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return {
        "cpu_s": ticks / os.sysconf("SC_CLK_TCK"),
        "rss_mb": int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6,
        "pss_mb": int(shared["Pss:"]) * 1024 / 1e6,
    }

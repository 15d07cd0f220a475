#!/usr/bin/env python3
"""Let a whole daemon run for a chosen time with cameras that behave badly, and say what grows.

Eight cameras: four RTSP, two files, one RTSP camera whose connection is cut again and again, one that is frozen. Sampled
every two seconds: memory, descriptors and threads of each process; from the subscriber's side each picture's latency.

    python tools/soak.py --minutes 30 --out soak-out

writes ``soak.json`` and ``soak.png`` and prints the JSON without its samples. Exit 1 when alerts were lost or doubled, a
process other than the flapping camera's was replaced, descriptors or threads grew, the daemon did not stop cleanly, or
memory grew: of one process by more than 2 MB an hour, of all together by more than 6, with 95 % certainty in the last half
of the run (tools/soak_judge.py). From 20 minutes on memory is judged; a verdict that cannot be given is told as such.
Without ``--fps`` so many pictures are analysed that the machine is loaded to about 60 %.
Needs the RTSP server's packages (tools/install_system_packages) and a clip with people (``--clip``, else the shared test data, else what `vedette demo` plays).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from soak_judge import MOST_ALL, MOST_EACH, slope, told

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.faults.cameras import live_camera, server_options  # noqa: E402
from tests.faults.daemon import Daemon, Listener  # noqa: E402
from tests.faults.frames import FrameWatch  # noqa: E402
from tests.faults.leaks import run_dir_of  # noqa: E402
from tests.faults.load import measure  # noqa: E402
from tests.faults.proxy import Proxy  # noqa: E402
from tests.streamer.rtsp import RtspServer  # noqa: E402
from vedette.streamer.bench._hub import numbered_event  # noqa: E402
from vedette.streamer.errors import SourceError  # noqa: E402
from vedette.streamer.eventlink import EventLink  # noqa: E402
from vedette.streamer.offline.sample import find_clip  # noqa: E402
from vedette.streamer.wire import EVENTS, ipc  # noqa: E402

STEADY = ("rtsp0", "rtsp1", "rtsp2", "rtsp3", "file0", "file1")
FLAPPING, FROZEN = "flapping", "frozen"
SAMPLE_S = 2.0
#: Cut the flapping camera's connection so often, seconds.
FLAP_S = 7.0
#: Alerts in the store before the run begins: the hub's database cache (16 MB) is full then, and its memory level. In
#: isolation the hub grew by 20 MB over its first 30,000 alerts and by nothing over the next 70,000 (2026-11).
PREFILL = 40_000
#: Descriptors and threads a process may have more at the end.
SLACK = 4


class Soak:
    """The daemon, its cameras and its subscriber. Use as a context."""

    def __init__(self, clip: Path, fps: float) -> None:
        self.fps = fps
        self._stack = contextlib.ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="vd-soak-")))
        self._servers = [
            RtspServer(*server_options(clip, 4)),
            RtspServer(*server_options(clip, 1)),
            RtspServer(*server_options(clip, 1), "--freeze-after", "30"),
        ]
        self.proxy = Proxy(self._servers[1].port)
        # a small evidence ring is full, and memory level, before the warm-up is over
        each: dict[str, Any] = {"fps": fps, "evidence": {"ring_mb": 8}}
        cameras = {f"rtsp{i}": live_camera(clip, self._servers[0].url(i), **each) for i in range(4)}
        cameras |= {f"file{i}": live_camera(clip, str(clip), loop=True, **each) for i in range(2)}
        cameras[FLAPPING] = live_camera(clip, f"rtsp://127.0.0.1:{self.proxy.port}/cam0", **each)
        cameras[FROZEN] = live_camera(clip, self._servers[2].url(), frozen_after=5, **each)
        self.daemon = Daemon(folder, cameras)

    def __enter__(self) -> Soak:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start(self) -> None:
        closing = self._stack.callback
        closing(self.proxy.close)
        for server in self._servers:
            closing(server.kill)
            server.start()
        closing(self.daemon.close)
        self.daemon.start()
        self.daemon.wait_ready(300)
        self._prefill()
        self.listener, self.watch = Listener(self.daemon), FrameWatch(self.daemon.publish)
        closing(self.watch.close)
        self.daemon.wait_streaming(*STEADY, timeout_s=300)

    def _prefill(self) -> None:
        with EventLink(ipc(run_dir_of(self.daemon), EVENTS), "soak", "soak-1") as link:
            for number in range(1, PREFILL + 1):
                while link.waiting > 1000:
                    link.work()
                    time.sleep(0.001)
                link.send(numbered_event(number, producer="soak", boot="soak-1"))
            if not link.drain(120):
                raise RuntimeError("soak: the hub did not take what fills its store")

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def sample(self) -> dict[str, Any]:
        """Memory, descriptors and threads of every process, and CPU of all, now."""
        processes: dict[str, dict[str, float]] = {}
        assert self.daemon.process is not None
        parent = psutil.Process(self.daemon.process.pid)
        for process in [parent, *parent.children()]:
            with contextlib.suppress(psutil.NoSuchProcess), process.oneshot():
                name = "supervisor" if process == parent else process.name().removeprefix("vd-")
                processes[name] = {
                    "pid": process.pid,
                    "rss_mb": process.memory_info().rss / 1e6,
                    "fds": process.num_fds(),
                    "threads": process.num_threads(),
                    "cpu_s": sum(process.cpu_times()[:2]),
                }
        return {"at_s": time.monotonic(), "processes": processes}

    def run(self, seconds: float) -> list[dict[str, Any]]:
        """Sample for so long."""
        samples = [self.sample()]
        began_s = time.monotonic()
        show = sys.stderr.isatty()
        with self.proxy.flapping(FLAP_S):
            while (elapsed_s := time.monotonic() - began_s) < seconds:
                time.sleep(SAMPLE_S)
                samples.append(self.sample())
                if show:
                    print(f"\r{elapsed_s:5.0f} of {seconds:.0f} s", end="", file=sys.stderr, flush=True)
        return samples


def account(soak: Soak, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """What the samples and the pictures say."""
    first, last = samples[0], samples[-1]
    span_s = last["at_s"] - first["at_s"]
    names = sorted(first["processes"])
    times_s = [s["at_s"] for s in samples]
    whole = [s for s in samples if set(s["processes"]) == set(names)]
    processes = {}
    for name in names:
        rows = [(s["at_s"], s["processes"][name]) for s in samples if name in s["processes"]]
        processes[name] = {
            "lives": len({row["pid"] for _, row in rows}),
            "rss_mb": told(slope([t for t, _ in rows], [row["rss_mb"] for _, row in rows]), MOST_EACH),
            "fds": [rows[0][1]["fds"], max(row["fds"] for _, row in rows), rows[-1][1]["fds"]],
            "threads": [rows[0][1]["threads"], max(row["threads"] for _, row in rows), rows[-1][1]["threads"]],
        }
    pictures = {
        camera: round(
            sum(first["at_s"] < s <= last["at_s"] for s in soak.watch.stamps_s[camera]) / (soak.fps * span_s), 3
        )
        for camera in (*STEADY, FLAPPING, FROZEN)
    }
    cpu = sum(last["processes"][n]["cpu_s"] - first["processes"][n]["cpu_s"] for n in names if n in last["processes"])
    return {
        "minutes": round(span_s / 60, 2),
        "cameras": len(STEADY) + 2,
        "fps": soak.fps,
        "load": round(cpu / span_s / (os.cpu_count() or 1), 3),
        "rss_mb": told(slope([s["at_s"] for s in whole], [_rss_mb(s) for s in whole]), MOST_ALL),
        "latency_ms": latency(soak, times_s),
        "pictures_of_fps": pictures,
        "processes": processes,
    }


def _rss_mb(sample: dict[str, Any]) -> float:
    return float(sum(row["rss_mb"] for row in sample["processes"].values()))


def latency(soak: Soak, times_s: Sequence[float]) -> dict[str, Any]:
    """Decoded picture to subscriber, of the steady cameras: percentiles, and how the median drifts."""
    pairs = sorted(
        (stamp, wait)
        for camera in STEADY
        for stamp, wait in zip(soak.watch.stamps_s[camera], soak.watch.latency_s[camera], strict=False)
        if times_s[0] < stamp <= times_s[-1]
    )
    waits_ms = [wait * 1000 for _, wait in pairs]
    p50, p95, p99 = (round(float(np.percentile(waits_ms, q)), 1) for q in (50, 95, 99))
    edges = np.arange(times_s[0], times_s[-1], SAMPLE_S * 3)
    which = np.digitize([stamp for stamp, _ in pairs], edges)
    medians = [(edges[i - 1], float(np.median(np.asarray(waits_ms)[which == i]))) for i in np.unique(which)]
    drift = slope([t for t, _ in medians], [m for _, m in medians])
    return {"p50": p50, "p95": p95, "p99": p99, "drift_of_p50": drift and asdict(drift), "medians": medians}


def faults_of(report: dict[str, Any]) -> list[str]:
    """What must not be."""
    found = []
    for name, row in report["processes"].items():
        if row["lives"] > 1 and name != FLAPPING:
            found.append(f"{name} was replaced {row['lives'] - 1} times")
        found += [
            f"{name}: {what} grew from {row[what][0]} to {row[what][2]}"
            for what in ("fds", "threads")
            if row[what][2] > row[what][0] + SLACK
        ]
    memory = {"the daemon": report, **{n: row for n, row in report["processes"].items() if row["lives"] == 1}}
    for name, row in memory.items():
        if (rss := row["rss_mb"])["verdict"] == "grows":
            found.append(f"{name}: memory grows by {rss['per_hour']} MB an hour ({rss['low']}..{rss['high']})")
    return found


def chosen_fps(clip: Path) -> float:
    """Pictures a second of each of the eight cameras that load this machine as the promise says."""
    with tempfile.TemporaryDirectory(prefix="vd-soak-") as folder:
        return measure(Path(folder), clip).fps(len(STEADY) + 2)


def soak(clip: Path, minutes: float, fps: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The whole run: its report, with ``faults``, and the samples."""
    with Soak(clip, fps) as running:
        samples = running.run(minutes * 60)
        report = account(running, samples)
        faults = faults_of(report)
        try:
            report["alerts"] = running.listener.agrees_with(running.daemon)
        except AssertionError as error:
            faults.append(f"alerts: {error}"[:500])
        code = running.daemon.stop()
        if code != 0:
            faults.append(f"the daemon ended with exit {code}")
        return {**report, "faults": faults}, samples


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3.0, help="how long (default 3)")
    parser.add_argument("--fps", type=float, help="pictures a second of each camera (default: by the load, see above)")
    parser.add_argument(
        "--clip", type=Path, help="a clip with people (default: the shared test data, else the demo clip)"
    )
    parser.add_argument("--out", type=Path, default=Path("soak-out"), help="folder of soak.json and soak.png")
    args = parser.parse_args()
    shared = Path(os.environ.get("VEDETTE_TEST_DATA", ROOT.parent / "shared" / "data")) / "clips" / "vtest.avi"
    try:
        clip = find_clip(args.clip or (shared if shared.is_file() else None), lambda text: print(text, file=sys.stderr))
    except SourceError as error:
        parser.error(str(error))
    report, samples = soak(clip, args.minutes, args.fps or chosen_fps(clip))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "soak.json").write_text(json.dumps({**report, "samples": samples}))
    from soak_plot import draw

    draw(samples, report["latency_ms"].pop("medians"), args.out / "soak.png")
    print(json.dumps(report, indent=1))
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())

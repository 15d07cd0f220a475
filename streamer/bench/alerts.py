"""Alerts a second through a real hub with fsync, and how long one takes; the disk's own limit in the same run.

For each number of subscribers: ``flat_out`` sends as fast as the hub and the slowest subscriber take them, with at most
``--window`` on the way, so what it reports is held, not buffered; ``tenth`` sends at a tenth of that rate. ack is
send -> committed, delivery is send -> the subscriber that is given it last; when paced, send is the moment it was due.
Every subscriber's sequence is checked; a figure without `gapless` true does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from vedette.streamer.bench._hub import HubProcess, numbered_event
from vedette.streamer.bench._listeners import Listeners
from vedette.streamer.bench._protocol import machine
from vedette.streamer.eventlink import EventLink

#: The goal, alerts a second; where one fsync takes longer than its share of a second, the disk's limit is.
GOAL_PER_S = 5000.0
#: No machine at hand comes near it; it bounds what the subscribers note down.
MOST_PER_S = 30_000

F64 = NDArray[np.float64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette bench alerts`` takes."""
    parser.add_argument("--subscribers", type=int, nargs="+", default=[1, 10], help="default: 1 10")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement (default 5)")
    parser.add_argument("--rate", type=float, help="alerts a second when paced (default: a tenth of flat out)")
    parser.add_argument("--window", type=int, default=1000, help="alerts on the way when flat out (default 1000)")
    parser.add_argument("--snapshot-kb", type=int, default=0, help="a picture of so many kB with every alert")
    parser.add_argument("--store", type=Path, help="measure on the disk of this folder (default: the temporary one)")


def run(args: argparse.Namespace) -> int:
    """Measure; JSON goes to standard output. Exit 1 when a subscriber missed an alert."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="vedette-bench-", dir=args.store) as folder:
        store = Path(folder)
        before = raw_fsync(store, min(args.seconds, 3.0))
        for count in args.subscribers:
            flat_out = measure(store / f"flat-{count}", "flat_out", count, None, args)
            rate = args.rate or max(1.0, flat_out["alerts_per_s"] / 10)
            rows += [flat_out, measure(store / f"tenth-{count}", "tenth", count, rate, args)]
        after = raw_fsync(store, min(args.seconds, 3.0))
    fsyncs_per_s = (before["per_s"] + after["per_s"]) / 2
    for row in rows:
        row["share_of_fsync_limit"] = round(row["commits_per_s"] / fsyncs_per_s, 3)
    report = {
        "bench": "alerts",
        "machine": machine(),
        "snapshot_kb": args.snapshot_kb,
        "raw_fsync": {"before": before, "after": after},
        "asked_alerts_per_s": round(min(GOAL_PER_S, fsyncs_per_s), 1),
        "results": rows,
    }
    json.dump(report, sys.stdout, indent=2)
    print()
    return 0 if all(row["gapless"] for row in rows) else 1


def raw_fsync(folder: Path, seconds: float) -> dict[str, float]:
    """What the disk can do: append 4 KiB and fsync, one after the other."""
    times: list[float] = []
    with (folder / "raw").open("wb", buffering=0) as file:
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            file.write(b"\0" * 4096)
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    (folder / "raw").unlink()
    return {"per_s": round(len(times) / sum(times), 1), **_percentiles("", np.array(times))}


@dataclass(slots=True)
class _Produced:
    """sent_s, acked_s: f64 [N], monotonic seconds. cpu_s: of this process, the bench's own bookkeeping included."""

    sent_s: F64
    acked_s: F64
    cpu_s: float


def measure(
    store: Path, mode: str, subscribers: int, rate_hz: float | None, args: argparse.Namespace
) -> dict[str, Any]:
    """One row. rate_hz: None for flat out."""
    most = int(args.seconds * (MOST_PER_S if rate_hz is None else rate_hz)) + args.window + 1
    with HubProcess(store) as hub, Listeners(hub.publish, subscribers, most) as listeners:
        hub_cpu_s, commits = _cpu_s(hub.process.pid), _commits(hub)
        produced = _produce(hub, rate_hz, listeners, args)
        count = len(produced.sent_s)
        heard = listeners.finish(count)
        hub_cpu_s, commits = _cpu_s(hub.process.pid) - hub_cpu_s, _commits(hub) - commits
    wall_s = float(max(produced.acked_s.max(), heard.last_s.max()) - produced.sent_s[0])
    cpu_us = {"hub": hub_cpu_s, "producer": produced.cpu_s, "subscribers": heard.cpu_s}
    return {
        "mode": mode,
        "subscribers": subscribers,
        "seconds": round(wall_s, 2),
        "alerts": count,
        "alerts_per_s": round(count / wall_s, 1),
        **_percentiles("ack_", produced.acked_s - produced.sent_s),
        **_percentiles("delivery_", heard.last_s - produced.sent_s),
        "commits_per_s": round(commits / wall_s, 1),
        "alerts_per_commit": round(count / max(1, commits), 1),
        "cpu_us_per_alert": {who: round(cpu_s / count * 1e6, 1) for who, cpu_s in cpu_us.items()},
        "replays_after_start": heard.replays - subscribers,
        "gapless": heard.gapless,
    }


def _produce(hub: HubProcess, rate_hz: float | None, listeners: Listeners, args: argparse.Namespace) -> _Produced:
    """Send for a while."""
    jpeg = b"\xff\xd8\xff" + os.urandom(args.snapshot_kb * 1024) + b"\xff\xd9" if args.snapshot_kb else b""
    sent: list[float] = []
    acked: dict[int, float] = {}
    with EventLink(hub.events, "infer", "bench") as link:
        link.on_ack = lambda key: acked.__setitem__(int(key[0][1:]), time.monotonic())
        while not link.connected:
            link.work()
            link.socket.poll(5)
        cpu_s, began = time.process_time(), time.monotonic()
        while (now := time.monotonic()) < began + args.seconds:
            due = now if rate_hz is None else began + len(sent) / rate_hz
            on_the_way = len(sent) - min(len(acked), listeners.given()) if rate_hz is None else link.waiting
            if now >= due and on_the_way < args.window:
                sent.append(due)
                link.send(numbered_event(len(sent) - 1), jpeg)
            else:
                link.socket.poll(1 if rate_hz is None else max(0, int((due - now) * 1000)))
                link.work()
        if not link.drain(60):
            raise RuntimeError("the hub did not acknowledge everything within 60 s")
        cpu_s = time.process_time() - cpu_s
    return _Produced(np.array(sent), np.array([acked[number] for number in range(len(sent))]), cpu_s)


def _cpu_s(pid: int) -> float:
    """Processor seconds of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _commits(hub: HubProcess) -> int:
    """Transactions so far, as the hub's next status says."""
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.RCVTIMEO, 10_000)
        socket.subscribe("status.hub")
        socket.connect(hub.publish)
        return int(json.loads(socket.recv_multipart()[1])["counters"].get("commits", 0))


def _percentiles(prefix: str, times_s: F64) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    return {
        f"{prefix}p{p}_ms": round(float(value) * 1000, 3)
        for p, value in zip((50, 95, 99), np.percentile(times_s, (50, 95, 99)), strict=True)
    }

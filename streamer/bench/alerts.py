"""Alerts a second through a real hub with fsync, and how long one takes; the disk's own limit beside it.

For each number of subscribers: `flat_out` sends as fast as the hub takes them (group commit), `paced` sends at a
fixed rate. ack is send -> committed, delivery is send -> the subscriber process that hears it last. Every
subscriber's sequence is checked; a figure without `gapless` true does not count.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vedette.streamer.bench._hub import HubProcess, numbered_event
from vedette.streamer.eventlink import EventLink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette bench alerts`` takes."""
    parser.add_argument("--subscribers", type=int, nargs="+", default=[1, 10], help="default: 1 10")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement (default 5)")
    parser.add_argument("--rate", type=float, default=100.0, help="alerts a second when paced (default 100)")
    parser.add_argument("--snapshot-kb", type=int, default=0, help="a picture of so many kB with every alert")
    parser.add_argument("--store", type=Path, help="measure on the disk of this folder (default: the temporary one)")


def run(args: argparse.Namespace) -> int:
    """Measure; JSON goes to standard output. Exit 1 when a subscriber missed an alert."""
    with tempfile.TemporaryDirectory(prefix="vedette-bench-", dir=args.store) as folder:
        store = Path(folder)
        fsync = raw_fsync(store, min(args.seconds, 3.0))
        rows = [
            measure(store / f"{mode}-{count}", mode, count, args)
            for count in args.subscribers
            for mode in ("flat_out", "paced")
        ]
    report = {
        "bench": "alerts",
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "snapshot_kb": args.snapshot_kb,
        "raw_fsync": fsync,
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
    return {"per_s": round(len(times) / sum(times), 1), **_percentiles("", times)}


def measure(store: Path, mode: str, subscribers: int, args: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    spawn = multiprocessing.get_context("spawn")
    with HubProcess(store) as hub:
        pipes, readers = [], []
        for _ in range(subscribers):
            ours, theirs = spawn.Pipe()
            reader = spawn.Process(target=_listen, args=(hub.publish, theirs), daemon=True)
            reader.start()
            pipes.append(ours)
            readers.append(reader)
        for pipe in pipes:
            assert pipe.recv() == "ready"
        sent, acked, wall_s = _produce(hub, mode, args)
        for pipe in pipes:
            pipe.send(len(sent))
        heard = [pipe.recv() for pipe in pipes]
        for reader in readers:
            reader.join(10)
    last = [max(arrivals) for arrivals in zip(*(times for _, times in heard), strict=True)] if heard else []
    return {
        "mode": mode,
        "subscribers": subscribers,
        "alerts": len(sent),
        "alerts_per_s": round(len(sent) / wall_s, 1),
        **_percentiles("ack_", [acked[number] - at for number, at in enumerate(sent)]),
        **_percentiles("delivery_", [heard_s - at for at, heard_s in zip(sent, last, strict=True)] if last else []),
        "gapless": all(gapless for gapless, _ in heard) and len(acked) == len(sent),
    }


def _produce(hub: HubProcess, mode: str, args: argparse.Namespace) -> tuple[list[float], dict[int, float], float]:
    """Send for a while; when each event was sent and acknowledged (monotonic seconds), and how long all took."""
    jpeg = b"\xff\xd8\xff" + os.urandom(args.snapshot_kb * 1024) + b"\xff\xd9" if args.snapshot_kb else b""
    sent: list[float] = []
    acked: dict[int, float] = {}
    with EventLink(hub.events, "infer", "bench") as link:
        link.on_ack = lambda key: acked.__setitem__(int(key[0][1:]), time.monotonic())
        while not link.connected:
            link.work()
            link.socket.poll(5)
        began = time.monotonic()
        end = began + args.seconds
        while (now := time.monotonic()) < end:
            due = began + len(sent) / args.rate if mode == "paced" else now
            if now >= due and link.waiting < 2000:
                sent.append(time.monotonic())
                link.send(numbered_event(len(sent) - 1), jpeg)
            else:
                link.socket.poll(1 if mode == "flat_out" else max(0, int((due - now) * 1000)))
                link.work()
        if not link.drain(60):
            raise RuntimeError("the hub did not acknowledge everything within 60 s")
        return sent, acked, time.monotonic() - began


def _listen(endpoint: str, pipe: Connection) -> None:
    """A subscriber process: when it was given each alert, and whether none was missing."""
    from vedette.streamer.client import subscribe

    with subscribe(endpoint) as subscription:
        while subscription.stream is None:
            subscription.next(0.05)
        pipe.send("ready")
        times: list[float] = []
        gapless, expected = True, None
        while expected is None or len(times) < expected:
            alert = subscription.next(0.2)
            if alert is not None:
                gapless = gapless and alert["seq"] == len(times) + 1
                times.append(time.monotonic())
            elif expected is None and pipe.poll():
                expected = int(pipe.recv())
        pipe.send((gapless, times))


def _percentiles(prefix: str, times: list[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    ordered = sorted(times)
    if not ordered:
        return {}
    return {
        f"{prefix}p{p}_ms": round(ordered[min(len(ordered) - 1, len(ordered) * p // 100)] * 1000, 3)
        for p in (50, 95, 99)
    }

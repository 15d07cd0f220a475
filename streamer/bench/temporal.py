"""One temporal step against recomputing the window, continual-inference and a GRU of equal FLOPs, in one run."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from vedette.streamer.errors import EngineError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette bench temporal`` takes; lists are comma-separated."""
    parser.add_argument("--windows", type=_integers, default=[16, 64, 256], help="ring slots T (default 16,64,256)")
    parser.add_argument("--batches", type=_integers, default=[1, 16, 64], help="streams B (default 1,16,64)")
    parser.add_argument("--threads", type=_integers, default=[1, 2], help="(default 1,2)")
    parser.add_argument("--rounds", type=int, default=7, help="every case in turn, this often (default 7)")
    parser.add_argument("--cameras", type=_integers, default=[1, 16], help="cameras of the shipped RIFT (default 1,16)")
    parser.add_argument(
        "--stream", type=int, default=0, metavar="STEPS", help="also one stream of that many steps, e.g. 1000000"
    )
    parser.add_argument("--only", choices=("rift", "rows", "stream"), help="measure nothing else")


def run(args: argparse.Namespace) -> int:
    """Measure; one JSON object on standard output, progress on standard error."""
    try:
        bench, long = (
            importlib.import_module(f"vedette.engines.{name}") for name in ("temporal_bench", "temporal_stream")
        )
    except ImportError as e:
        raise EngineError(f"bench temporal: needs the build extra, got {e}; pip install 'vedette[build]'") from e
    print("bench temporal: measuring, minutes", file=sys.stderr, flush=True)
    result: dict[str, Any] = {
        "machine": {"cpu": platform.processor() or platform.machine(), "python": platform.python_version()},
        "versions": {n: _version(n) for n in ("torch", "onnxruntime", "continual-inference")},
    }
    if args.only in (None, "rift"):
        result["rift"] = bench.rift(args.cameras, args.threads, args.rounds)
    if args.only in (None, "rows"):
        result["rows"] = bench.compare(args.windows, args.batches, args.threads, args.rounds)
    if args.stream or args.only == "stream":
        result["stream"] = long.stream(args.stream or 1_000_000)
    json.dump(result, sys.stdout, indent=1)
    print()
    return 0


def _integers(text: str) -> list[int]:
    values = [int(v) for v in text.split(",")]
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"needs positive integers, got {text!r}")
    return values


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

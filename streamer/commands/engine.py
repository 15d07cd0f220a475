"""``vedette engine``: export, build, verify, show or measure an engine. Needs the build extra; the daemon does not."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from vedette.engines.api import EngineFault
from vedette.streamer.errors import EngineError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette engine`` takes."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="export|build|verify|show|bench")
    export = verbs.add_parser("export", help="PyTorch weights -> ONNX graph and sidecar of the temporal engine")
    export.add_argument("out", type=Path, metavar="OUT.onnx")
    export.add_argument(
        "--weights", type=Path, metavar="NPZ", help="trained parameters; without, random ones (marked untrained)"
    )
    export.add_argument("--config", type=json.loads, default={}, metavar="JSON", help='e.g. {"window": 128}')
    export.add_argument("--flavour", choices=("kvu", "portable"), default="kvu")
    export.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32")
    build = verbs.add_parser("build", help="ONNX -> TensorRT plan, without a GPU for tensorrt_rtx")
    build.add_argument("graph", type=Path, metavar="GRAPH.onnx")
    build.add_argument("--out", type=Path, default=Path("plans"), metavar="DIR", help="plan cache (default plans)")
    build.add_argument("--targets", default="SM86,SM89,SM120", help="compute capabilities for tensorrt_rtx")
    build.add_argument("--cameras", type=int, default=16, help="most cameras of one call")
    verify = verbs.add_parser("verify", help="error of a graph on every backend here; exit 1 beyond the limits")
    verify.add_argument("graph", type=Path, nargs="*", metavar="GRAPH.onnx", help="default: every shipped graph")
    verify.add_argument(
        "--pictures", type=Path, metavar="DIR", help="compare detectors on these pictures (default: synthetic ones)"
    )
    show = verbs.add_parser("show", help="inputs, outputs, operators, aliases")
    show.add_argument("graph", type=Path, metavar="GRAPH.onnx")
    bench = verbs.add_parser("bench", help="latency in ONNX Runtime")
    bench.add_argument("graph", type=Path, metavar="GRAPH.onnx")
    bench.add_argument("--cameras", type=int, default=1)
    bench.add_argument("--threads", type=int, default=1)


def run(args: argparse.Namespace) -> int:
    """Do it; JSON on standard output. Exit 1 when ``verify`` found an error beyond its limit."""
    verb = {"export": _export, "build": _build, "verify": _verify, "show": _show, "bench": _bench}[args.verb]
    try:
        answer, status = verb(args)
    except ImportError as e:
        raise EngineError(f"engine {args.verb}: needs the build extra, got {e}; pip install 'vedette[build]'") from e
    except (EngineFault, ValueError, TypeError) as e:
        raise EngineError(f"engine {args.verb}: {e}") from e
    json.dump(answer, sys.stdout, indent=1)
    print()
    return status


def _tool(name: str) -> Any:
    return importlib.import_module(f"vedette.engines.{name}")


def _export(args: argparse.Namespace) -> tuple[Any, int]:
    spec = _tool("temporal_weights").export_file(args.out, args.weights, args.config, args.flavour, args.precision)
    return {"graph": str(args.out), "sha256": spec.sha256, "trained": spec.trained, "state_key": spec.state_key()}, 0


def _build(args: argparse.Namespace) -> tuple[Any, int]:
    build, temporal = _tool("build"), _tool("temporal_spec")
    if temporal.is_temporal(args.graph):
        graph, spec = temporal.load_graph(args.graph)
        profile = build.temporal_profile(spec, args.cameras)
    else:
        graph = build.for_tensorrt(args.graph.read_bytes())
        profile = build.plain_profile(graph, args.cameras)
    targets = tuple(args.targets.split(","))
    key, cache = build.plan_key(graph, profile, targets), build.PlanCache(args.out)
    cached = cache.get(key) is not None
    path = cache.path(key) if cached else cache.put(key, build.build_plan(graph, profile, targets))
    return {
        "plan": str(path),
        "bytes": path.stat().st_size,
        "cached": cached,
        "tensorrt": key.tensorrt,
        "flavour": key.flavour,
    }, 0


def _verify(args: argparse.Namespace) -> tuple[Any, int]:
    graphs = args.graph or _tool("zoo").shipped()
    rows = [row for graph in graphs for row in _tool("verify").verify_graph(graph, args.pictures)]
    return rows, 0 if all(r["ok"] for r in rows) else 1


def _show(args: argparse.Namespace) -> tuple[Any, int]:
    return _tool("temporal_verify").show(args.graph), 0


def _bench(args: argparse.Namespace) -> tuple[Any, int]:
    return _tool("temporal_verify").latency(args.graph, cameras=args.cameras, threads=args.threads), 0

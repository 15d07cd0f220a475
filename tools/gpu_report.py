"""Everything about a GPU at once: kernels right (T10), bandwidth, PyTorch's own ways, TensorRT; JSON on stdout.

    python tools/gpu_report.py > gpu.json          where there is a GPU, torch with CUDA and Triton
    python tools/gpu_report.py --dry-run           the same code in Triton's interpreter on the CPU, tiny; no figure means anything

Exit 1 when a part failed. Times are of a cold cache: rings are taken in turn from a pool larger than the L2.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
#: Bytes that no L2 holds; a pool of states at least so large is gone through before one comes back.
COLD_BYTES = 512 << 20
#: The goal of the fused step at 64 cameras: share of the measured copy bandwidth.
GOAL = 0.8


def main() -> int:
    """Run every part; one that fails says why and the others go on."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dry-run", action="store_true")
    p.add_argument("--cameras", type=int, default=64)
    p.add_argument("--streams", type=int, default=16, help="of one camera")
    p.add_argument("--slots", type=int, default=64)
    a = p.parse_args()
    if a.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"
    sys.path.insert(0, str(ROOT))
    import torch

    if not a.dry_run and not torch.cuda.is_available():
        print("gpu_report: needs a CUDA device that PyTorch can use, got none; try --dry-run", file=sys.stderr)
        return 1
    bench = Bench(dry=a.dry_run, rows=2 if a.dry_run else a.cameras * a.streams, slots=4 if a.dry_run else a.slots)
    parts: dict[str, Callable[[], Any]] = {
        "device": bench.name,
        "t10": lambda: right(bench.device, few=a.dry_run),
        "copy": bench.copy,
        "step": bench.step,
        "attention": bench.rivals,
        "fatbins": fatbins,
        "tensorrt": tensorrt,
        "tests": lambda: "not in a dry run" if a.dry_run else gpu_tests(),
    }
    report: dict[str, Any] = {"dry_run": a.dry_run}
    failed = False
    for name, part in parts.items():
        try:
            report[name] = part()
        except Exception as error:  # noqa: BLE001 - the other parts still tell something, and the report says what broke
            report[name] = {"error": f"{type(error).__name__}: {error}"[:500]}
            failed = True
        print(f"gpu_report: {name}", file=sys.stderr, flush=True)
    if isinstance(report["copy"], dict) and "gb_s" in report["copy"] and "gb_s" in report["step"]:
        report["share_of_copy"] = round(report["step"]["gb_s"] / report["copy"]["gb_s"], 3)
        report["goal_met"] = report["share_of_copy"] >= GOAL
    print(json.dumps(report, indent=1))
    return 1 if failed or report["t10"].get("ok") is False else 0


def right(device: str, *, few: bool) -> dict[str, Any]:
    """T10: the fused step in half precision against the float64 reference, awkward shapes: cosine and relative L2."""
    import torch

    from tests.kernels.test_ring_attention import SHAPES, Shape, expected, random_case
    from vedette.kernels.ring_triton import ring_step

    rows = []
    for numbers in SHAPES[:2] if few else SHAPES:
        shape = Shape(*numbers)
        case = random_case(shape, np.float16)
        want = expected(shape, case)
        case.pop("out")
        tensors = {k: torch.from_numpy(v.copy()).to(device) for k, v in case.items()}
        out = ring_step(*tensors.values())
        seen = np.repeat((want["ring_k"][..., -1] > 0).any(-1), shape.heads // shape.kv_heads, 1)
        a, b = out.cpu().numpy().astype(np.float64)[seen], want["out"][seen]
        cosine = float((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30)) if a.size else 1.0
        rel = float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))
        rows.append({"shape": list(numbers), "cosine": cosine, "rel_l2": rel, "ok": cosine > 0.9995 and rel < 1e-2})
    return {"rows": rows, "ok": all(r["ok"] for r in rows)}


class Bench:
    """Times on one device; ``rows`` streams of 8 heads of 32 channels, half precision."""

    heads, width = 8, 32

    def __init__(self, *, dry: bool, rows: int, slots: int) -> None:
        self.device, self.dry = ("cpu" if dry else "cuda"), dry
        self.rows, self.slots, self.rounds = rows, slots, 3 if dry else 200

    def name(self) -> str:
        """What the device calls itself."""
        import torch

        return "the CPU, dry run" if self.dry else str(torch.cuda.get_device_name())

    def pool(self) -> int:
        """How many states are gone through so that none is in the cache."""
        each = 2 * self.rows * self.heads * self.slots * self.width * 2
        return 2 if self.dry else max(2, -(-COLD_BYTES // each))

    def us(self, call: Callable[[int], Any]) -> float:
        """Median microseconds of ``call(i)``, i counting up."""
        import torch

        found = []
        for i in range(self.rounds + 5):
            if self.dry:
                start = time.perf_counter()
                call(i)
                took = (time.perf_counter() - start) * 1e6
            else:
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                call(i)
                end.record()
                end.synchronize()
                took = begin.elapsed_time(end) * 1e3
            if i >= 5:  # the first calls compile
                found.append(took)
        return statistics.median(found)

    def copy(self) -> dict[str, float]:
        """The bandwidth that a plain copy reaches, counting bytes read and written."""
        import torch

        source = torch.zeros((1 << 12 if self.dry else COLD_BYTES), dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        us = self.us(lambda _i: target.copy_(source))
        return {"us": us, "gb_s": round(2 * source.numel() / us / 1e3, 1)}

    def step(self) -> dict[str, Any]:
        """The fused step: time, bytes it must move, FLOPs, bandwidth."""
        import torch

        from tests.kernels.test_ring_attention import Shape, random_case
        from vedette.kernels.ring_triton import ring_step

        case = random_case(Shape(self.rows, self.heads, self.heads, self.slots, self.width, 16, 4), np.float16)
        case.pop("out")
        base = {k: torch.from_numpy(v).to(self.device) for k, v in case.items()}
        state = ("ring_k", "ring_v", "fold_k", "fold_v", "fold_d")
        states = [{k: base[k].clone() for k in state} for _ in range(self.pool())]
        us = self.us(lambda i: ring_step(*(base | states[i % len(states)]).values()))
        rings = base["ring_k"].numel() * 2 * base["ring_k"].element_size()
        folds = 2 * sum(base[k].numel() * base[k].element_size() for k in state[2:])
        rows = 4 * base["q"].numel() * base["q"].element_size()
        moved, flops = rings + folds + rows, 4 * self.rows * self.heads * self.slots * self.width
        return {
            "us": us,
            "bytes": moved,
            "flops": flops,
            "gb_s": round(moved / us / 1e3, 1),
            "states": len(states),
        }

    def rivals(self) -> dict[str, Any]:
        """The attention alone by PyTorch: eager SDPA, compiled, in a CUDA graph."""
        import torch
        from torch.nn import functional as F

        shape = (self.rows, self.heads, self.slots, self.width)
        dtype = torch.float32 if self.dry else torch.float16
        q = torch.randn(self.rows, self.heads, 1, self.width, device=self.device, dtype=dtype)
        rings = [torch.randn(2, *shape, device=self.device, dtype=dtype) for _ in range(self.pool())]

        def attend(kv: Any) -> Any:
            return F.scaled_dot_product_attention(q, kv[0], kv[1], scale=1.0)

        table = {"eager": self.us(lambda i: attend(rings[i % len(rings)]))}
        if self.dry:
            return table
        compiled = torch.compile(attend)
        table["torch.compile"] = self.us(lambda i: compiled(rings[i % len(rings)]))
        graph, kept = torch.cuda.CUDAGraph(), torch.empty_like(rings[0])
        attend(kept)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            attend(kept)
        table["CUDA graph, warm cache"] = self.us(lambda _i: graph.replay())
        return table


def fatbins() -> dict[str, int]:
    """Bytes of every fatbin that nvcc makes of the CUDA sources here."""
    import tempfile

    from vedette.kernels.compile import SOURCES, compile_fatbin

    with tempfile.TemporaryDirectory() as folder:
        return {n: compile_fatbin(n, Path(folder, n)).stat().st_size for n in SOURCES}


def tensorrt() -> dict[str, Any]:
    """A plan of the default RIFT: built, and whether this GPU takes it (on Hopper the verdict about TensorRT-RTX)."""
    import torch

    from vedette.engines import build
    from vedette.engines.models.rift import RIFT
    from vedette.engines.models.rift_export import export_rift
    from vedette.engines.temporal_spec import RiftConfig

    trt, flavour = build.load_tensorrt()
    torch.manual_seed(0)
    config = RiftConfig()
    graph, spec = export_rift(config, RIFT(config).weights(), "kvu", "fp16")
    plan = build.build_plan(graph, build.temporal_profile(spec, 16))
    log = build.logger_of(trt)
    engine = trt.Runtime(log).deserialize_cuda_engine(plan)
    verdict = "runs here" if engine is not None else f"is refused here: {log.last}"
    return {"flavour": flavour, "version": trt.__version__, "plan_bytes": len(plan), "verdict": verdict}


def gpu_tests() -> dict[str, Any]:
    """The tests that are the real thing on a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/engines", "tests/kernels"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "VEDETTE_REQUIRE_GPU": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError("\n".join(done.stdout.splitlines()[-8:]))
    return {"passed": done.stdout.strip().splitlines()[-1]}


if __name__ == "__main__":
    raise SystemExit(main())

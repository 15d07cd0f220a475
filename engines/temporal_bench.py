"""What ``vedette bench temporal`` measures: a RIFT step against everything else that could answer the same frame.

All cases of one size run in turn, round after round, so that a busy minute hurts all alike; medians and minima of wall and CPU time.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from vedette.engines.models.rift import RIFT
from vedette.engines.models.rift_export import export_rift, quantise_weights
from vedette.engines.models.window import (
    WindowEncoder,
    gru_graph,
    gru_hidden_for,
    prototype_feeds,
    prototype_graph,
    ring_flops,
    window_graph,
)
from vedette.engines.runtimes.ringstate import RingSession
from vedette.engines.temporal import Timeline
from vedette.engines.temporal_spec import RiftConfig
from vedette.kernels.reference import rotary_frequencies, rotary_tables

#: The plain ring of the comparison: one stream a camera, no folds, no scene, as many key heads as query heads.
RING = RiftConfig(
    d_model=256, heads=8, kv_heads=8, layers=2, ffn=1024, half_lives_s=(), latents=0, tracks=1, context=0, token_dim=0
)
ROUND_S = 0.1
OURS = {
    "fp32": "ring step, ONNX Runtime in place, fp32",
    "int8": "ring step, ONNX Runtime in place, int8 weights",
}


@dataclass
class Case:
    """One way to answer a frame; ``call`` does it once for the whole batch."""

    name: str
    call: Callable[[], Any]
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        return {
            "case": self.name,
            "wall_ms": round(statistics.median(self.wall_ms), 4),
            "wall_ms_min": round(min(self.wall_ms), 4),
            "cpu_ms": round(statistics.median(self.cpu_ms), 4),
            "cpu_ms_min": round(min(self.cpu_ms), 4),
        }


def measure(cases: Sequence[Case], rounds: int) -> list[dict[str, Any]]:
    """Every case in turn, ``rounds`` times, each long enough for the clock."""
    calls = []
    with torch.inference_mode():
        for case in cases:
            case.call()
            start = time.perf_counter()
            case.call()
            calls.append(max(1, min(2000, int(ROUND_S / max(time.perf_counter() - start, 1e-6)))))
        for _ in range(rounds):
            for case, n in zip(cases, calls, strict=True):
                wall, cpu = time.perf_counter(), time.process_time()
                for _ in range(n):
                    case.call()
                case.wall_ms.append((time.perf_counter() - wall) / n * 1e3)
                case.cpu_ms.append((time.process_time() - cpu) / n * 1e3)
    return [case.row() for case in cases]


def ring_case(name: str, config: RiftConfig, cameras: int, threads: int, precision: str, flavour: str = "kvu") -> Case:
    """A step of ``cameras`` cameras with everything present; angles, decays and slots are made anew each time, as in the daemon."""
    torch.manual_seed(0)
    session = RingSession(*export_rift(config, RIFT(config).weights(), flavour, precision), cameras, threads=threads)
    timeline, rng = Timeline(config, cameras), np.random.default_rng(0)
    present = np.ones((cameras, config.streams), np.bool_)
    tokens = {
        "det": rng.normal(size=(cameras, config.tracks, config.token_dim or config.d_model)).astype(np.float32),
        "ctx": rng.normal(size=(cameras, config.context, config.context_dim)).astype(np.float32),
    }
    clock = [0.0]

    def call() -> None:
        time_s = np.full(cameras, clock[0])
        session.run(0, cameras, timeline.feeds(0, present, time_s, None) | tokens)
        timeline.advance(0, present, time_s)
        clock[0] += 0.1

    for _ in range(config.window + 1):
        call()
    return Case(name, call)


def ort_case(name: str, model: Any, feeds: dict[str, np.ndarray], threads: int) -> Case:
    """Any graph, its inputs bound once; outputs called n_<input> replace it in place."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for key, array in feeds.items():
        binding.bind_input(key, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    for out in session.get_outputs():
        kept = feeds.get(out.name.removeprefix("n_"))
        if kept is None:
            binding.bind_output(out.name, "cpu")
        else:
            binding.bind_output(out.name, "cpu", 0, kept.dtype.type, kept.shape, kept.ctypes.data)

    def call() -> Any:
        return session.run_with_iobinding(binding), feeds  # the binding holds pointers into feeds

    return Case(name, call)


def window_cases(config: RiftConfig, batch: int, threads: int) -> list[Case]:
    """The recompute of the whole window: torch, and ONNX Runtime in float and int8."""
    torch.manual_seed(0)
    model = WindowEncoder(config.d_model, config.heads, config.layers, config.window, config.ffn).eval()
    x = torch.randn(batch, config.window, config.d_model)
    graph, feeds = window_graph(model), {"x": x.numpy()}
    return [
        Case("window recompute, torch SDPA, fp32", lambda: model(x)),
        ort_case("window recompute, ONNX Runtime, fp32", graph, feeds, threads),
        ort_case("window recompute, ONNX Runtime, int8", quantise_weights(graph), feeds, threads),
    ]


def prototype_case(config: RiftConfig, batch: int, threads: int) -> Case:
    """The research note's plain ring step; token, angles and slot are made anew each time, as ours are."""
    feeds = prototype_feeds(config.d_model, config.heads, config.layers, config.window, batch)
    graph = prototype_graph(config.d_model, config.heads, config.layers, config.window, config.ffn)
    case = ort_case("prototype: the note's plain ring step, ONNX Runtime in place, fp32", graph, feeds, threads)
    width, token, run, count = config.d_model // config.heads, feeds["x"].copy(), case.call, iter(range(1 << 62))
    speeds = rotary_frequencies(width, config.min_period_s, config.max_period_s)

    def call() -> None:
        now = next(count)
        cos, sin = rotary_tables(np.full(batch, now * 0.1), speeds)
        for name, value in (("x", token), ("cos", cos[:, None]), ("sin", sin[:, None])):
            np.copyto(feeds[name], value, casting="same_kind")
        feeds["slot"][:] = now % config.window
        run()

    return Case(case.name, call)


def gru_case(config: RiftConfig, batch: int, threads: int) -> Case:
    """Two GRUs whose step costs as many FLOPs as ours."""
    hidden = gru_hidden_for(ring_flops(config.d_model, config.layers, config.window, config.ffn), config.d_model, 2)
    rng = np.random.default_rng(0)
    feeds = {"x": rng.normal(size=(1, batch, config.d_model)).astype(np.float32)}
    feeds |= {f"h{i}": np.zeros((1, batch, hidden), np.float32) for i in range(2)}
    return ort_case(
        f"2 GRUs of {hidden} (equal FLOPs), ONNX Runtime, fp32", gru_graph(config.d_model, hidden, 2), feeds, threads
    )


def continual_cases(config: RiftConfig, batch: int) -> list[Case]:
    """continual-inference's two-layer encoder and two single-output layers, where the package is installed."""
    if importlib.util.find_spec("continual") is None:
        return []
    co = importlib.import_module("continual")
    d, h, ff, t = config.d_model, config.heads, config.ffn, config.window
    layer = co.TransformerEncoderLayerFactory(
        d_model=d, nhead=h, dim_feedforward=ff, dropout=0.0, sequence_len=t, activation="relu"
    )
    encoder = co.TransformerEncoder(layer, num_layers=2).eval()
    x = torch.randn(batch, d)
    with torch.inference_mode():
        for _ in range(2 * t + 2):
            encoder.forward_step(x)
    return [Case("continual-inference, 2-layer encoder", lambda: encoder.forward_step(x))]


def compare(
    windows: Sequence[int], batches: Sequence[int], threads: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """One block of rows a (threads, T, B).

    times_ours: how many times longer a case takes than our fp32 step; times_equal_precision: than our step at the case's own
    precision. Wall clock, and processor time, which a busy machine disturbs less.
    """
    rows = []
    for n in threads:
        torch.set_num_threads(n)
        for t in windows:
            config = replace(RING, window=t)
            for b in batches:
                cases = [
                    *(ring_case(name, config, b, n, precision) for precision, name in OURS.items()),
                    prototype_case(config, b, n),
                    *window_cases(config, b, n),
                    gru_case(config, b, n),
                    *continual_cases(config, b),
                ]
                measured = measure(cases, rounds)
                rows += [{"threads": n, "T": t, "B": b, **r, **_ratios(r, measured)} for r in measured]
    return rows


def _ratios(row: dict[str, Any], measured: list[dict[str, Any]]) -> dict[str, float]:
    equal = measured[list(OURS).index("int8" if "int8" in row["case"] else "fp32")]
    return {
        "times_ours": round(row["wall_ms"] / measured[0]["wall_ms"], 2),
        "times_equal_precision": round(row["wall_ms"] / equal["wall_ms"], 2),
        "times_equal_precision_cpu": round(row["cpu_ms"] / equal["cpu_ms"], 2),
    }


def rift(cameras: Sequence[int], threads: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """The shipped RIFT, 20 streams and 51 context tokens a camera: CPU milliseconds a camera-frame."""
    rows, config = [], RiftConfig()
    for n in threads:
        for c in cameras:
            cases = [ring_case(f"RIFT {p}", config, c, n, p) for p in ("fp32", "int8")]
            for r in measure(cases, rounds):
                per = {f"{k}_per_camera": round(r[k] / c, 4) for k in ("cpu_ms", "cpu_ms_min", "wall_ms")}
                rows.append({"threads": n, "cameras": c, **r, **per})
    return rows

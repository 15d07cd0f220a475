"""How far a graph on a backend is from the truth, and what a graph holds: tables for ``vedette engine verify`` and ``show``."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import EngineFault
from vedette.engines.runtimes.ringstate import RingSession, init_state
from vedette.engines.temporal import Timeline
from vedette.engines.temporal_spec import RiftConfig, TemporalSpec, is_temporal, load_graph
from vedette.kernels import reference

Array = NDArray[Any]

#: precision -> (largest relative L2 error, smallest cosine) a shipped graph may have
LIMITS = {"fp32": (1e-5, 0.999999), "fp16": (1e-2, 0.9995), "int8": (6e-2, 0.998)}


def errors(got: Array, want: Array) -> dict[str, float]:
    """Largest absolute difference, relative L2 and cosine, in float64."""
    a, b = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return {
        "max_abs": float(np.abs(a - b).max()),
        "rel_l2": float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-30)),
        "cosine": float(a @ b / norms) if norms else 1.0,
    }


def troubled_feeds(config: RiftConfig, frames: int, cameras: int, seed: int = 0) -> list[dict[str, Array]]:
    """Feeds of a stream with 20 % dropped tokens, a jittered clock and context that comes and goes, float64."""
    rng, timeline = np.random.default_rng(seed), Timeline(config, cameras)
    feeds, clock = [], np.zeros(cameras)
    for t in range(frames):
        present = (rng.random((cameras, config.streams)) > 0.2) | (t == 0)
        present[:, : config.latents] = True
        clock = clock + rng.random(cameras) * 0.2
        step = timeline.feeds(0, present, clock, rng.random((cameras, config.context)) > 0.3)
        step["det"] = rng.normal(size=(cameras, config.tracks, config.token_dim or config.d_model))
        step["ctx"] = rng.normal(size=(cameras, config.context, config.context_dim))
        timeline.advance(0, present, clock)
        feeds.append(step)
    return feeds


def reference_answers(spec: TemporalSpec, weights: Mapping[str, Array], feeds: list[dict[str, Array]]) -> Array:
    """y of every frame by the float64 reference."""
    state = {k: v.astype(np.float64) for k, v in init_state(spec, len(feeds[0]["det"])).items()}
    out = []
    for step in feeds:
        y, state = reference.rift_step(weights, spec.config, step, state)
        out.append(y)
    return np.stack(out)


def verify_temporal(
    graph: bytes, spec: TemporalSpec, weights: Mapping[str, Array], frames: int = 40
) -> list[dict[str, Any]]:
    """A row a way of running the graph: its error against the float64 reference, and whether it is within LIMITS."""
    feeds = troubled_feeds(spec.config, frames, 2)
    want = reference_answers(spec, {k: v.astype(np.float64) for k, v in weights.items()}, feeds)
    rows = []
    for in_place in (True, False) if spec.in_place else (False,):
        session = RingSession(graph, spec, 2, in_place=in_place)
        got = np.stack([session.run(0, 2, step)["y"].copy() for step in feeds])
        rows.append(
            judged(
                {"backend": "onnxruntime", "state": "in place" if in_place else "copied"},
                spec.precision,
                errors(got, want),
            )
        )
    return rows


def verify_stateless(model: Path, seed: int = 0) -> list[dict[str, Any]]:
    """Any other graph: ONNX Runtime with every optimisation against ONNX Runtime with none, an output a row."""
    import onnxruntime as ort

    answers = []
    for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
        options = ort.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 3
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        answers.append(session.run(None, random_inputs(session, seed)))
        names = [o.name for o in session.get_outputs()]
    return [
        judged({"backend": "onnxruntime", "output": n}, "fp32", errors(np.asarray(b), np.asarray(a)))
        for n, a, b in zip(names, *answers, strict=True)
    ]


def judged(row: dict[str, Any], precision: str, found: dict[str, float]) -> dict[str, Any]:
    """A row of the table with its error and whether that is within LIMITS."""
    rel, cosine = LIMITS[precision]
    return {**row, "precision": precision, **found, "ok": bool(found["rel_l2"] <= rel and found["cosine"] >= cosine)}


def random_inputs(session: Any, seed: int) -> dict[str, Array]:
    """One input of each kind; free sizes become 1 for the batch and 256 for a side of a picture."""
    rng, feeds = np.random.default_rng(seed), {}
    for i in session.get_inputs():
        shape = [s if isinstance(s, int) else (1 if axis == 0 else 256) for axis, s in enumerate(i.shape)]
        kind = i.type.removeprefix("tensor(").removesuffix(")")
        if kind == "uint8":
            feeds[i.name] = rng.integers(0, 256, shape, np.uint8)
        elif kind.startswith("int"):
            feeds[i.name] = np.zeros(shape, np.dtype(kind))
        else:
            feeds[i.name] = rng.normal(size=shape).astype(
                {"float": np.float32, "float16": np.float16}.get(kind, np.float32)
            )
    return feeds


def show(model: Path) -> dict[str, Any]:
    """What a graph file holds: size, hash, opset, inputs, outputs, operators, and its sidecar's facts where it has one."""
    import onnx

    try:
        proto = onnx.load(str(model))
    except Exception as e:
        raise EngineFault(f"{model}: not an ONNX graph, got {e}; name a .onnx file") from e
    weights = sum(int(np.prod(t.dims)) for t in proto.graph.initializer)
    facts: dict[str, Any] = {
        "file": model.name,
        "bytes": model.stat().st_size,
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "opset": {o.domain or "ai.onnx": o.version for o in proto.opset_import},
        "parameters": weights,
        "inputs": {i.name: _shape(i) for i in proto.graph.input},
        "outputs": {o.name: _shape(o) for o in proto.graph.output},
        "operators": dict(Counter(n.op_type for n in proto.graph.node).most_common()),
    }
    if is_temporal(model):
        _, spec = load_graph(model)
        facts |= {
            "flavour": spec.flavour,
            "precision": spec.precision,
            "in_place": spec.in_place,
            "aliases": spec.aliases,
        }
        facts |= {
            "trained": spec.trained,
            "receptive_field_frames": spec.config.receptive_field,
            "state_key": spec.state_key(),
        }
    return facts


def _shape(value: Any) -> list[Any]:
    return [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]


def latency(model: Path, *, cameras: int, threads: int, rounds: int = 5, seconds: float = 0.2) -> dict[str, Any]:
    """Median and best wall and CPU milliseconds a call in ONNX Runtime; temporal graphs are stepped with their state in place."""
    if not model.exists():
        raise EngineFault(f"{model}: does not exist; name an .onnx file")
    if is_temporal(model):
        graph, spec = load_graph(model)
        session = RingSession(graph, spec, cameras, threads=threads)
        feeds = troubled_feeds(spec.config, 8, cameras)
        steps = iter(range(1 << 62))

        def call() -> Any:
            return session.run(0, cameras, feeds[next(steps) % 8])
    else:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        plain = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        inputs = random_inputs(plain, 0)

        def call() -> Any:
            return plain.run(None, inputs)

    call()
    walls, cpus = [], []
    for _ in range(rounds):
        n, wall, cpu = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - wall < seconds:
            call()
            n += 1
        walls.append((time.perf_counter() - wall) / n * 1e3)
        cpus.append((time.process_time() - cpu) / n * 1e3)
    return {
        "file": model.name,
        "backend": "onnxruntime",
        "cameras": cameras,
        "threads": threads,
        "wall_ms": round(float(np.median(walls)), 4),
        "wall_ms_min": round(min(walls), 4),
        "cpu_ms": round(float(np.median(cpus)), 4),
    }

"""Open a temporal graph on the best backend there is, and say in one line why."""

from __future__ import annotations

import logging
from pathlib import Path

from vedette.engines.api import EngineFault
from vedette.engines.build import PlanCache, build_plan, plan_key, temporal_profile
from vedette.engines.events import SCHEMA as EVENTS
from vedette.engines.events import EventEvidence, schema_of
from vedette.engines.runtimes.cuda import probe_driver
from vedette.engines.runtimes.ringstate import RingSession
from vedette.engines.runtimes.trt import TrtRing
from vedette.engines.temporal import Runner, TemporalEngine
from vedette.engines.temporal_spec import TemporalSpec, load_graph, sidecar_path
from vedette.engines.temporal_tracks import Evidence, TrackEvidence

#: Models of learned evidence that come with the package lie here, each with its sidecar.
WEIGHTS = Path(__file__).parent / "weights"
#: The one that rules use unless the configuration names another.
DEFAULT_MODEL = "vedette-events"
BACKENDS = ("auto", "tensorrt", "onnxruntime")

logger = logging.getLogger(__name__)


def resolve_temporal(name_or_path: str) -> Path:
    """The graph of a shipped name or a path. EngineFault says what there is."""
    if name_or_path.endswith(".onnx") or "/" in name_or_path:
        return Path(name_or_path)
    path = WEIGHTS / f"{name_or_path}.onnx"
    if path.exists() and sidecar_path(path).exists():
        return path
    known = sorted(p.stem for p in WEIGHTS.glob("*.onnx") if sidecar_path(p).exists())
    raise EngineFault(
        f"engine.temporal: no model of learned evidence is called {name_or_path!r}, shipped are {known or 'none'}; "
        "give the path of an .onnx with its sidecar, or take out the rules that need learned evidence"
    )


def open_evidence(
    model: Path, cameras: int, *, backend: str = "auto", threads: int = 1, window: int | None = None
) -> Evidence:
    """What judges the tracks and scenes of that many cameras. EngineFault when the model is broken or was not trained."""
    if schema_of(model) == EVENTS:
        logger.info("temporal engine %s: folds, ONNX Runtime on the CPU: too small for anything else", model.stem)
        return EventEvidence(model)
    engine, reason = open_temporal(model, cameras, backend=backend, threads=threads, window=window)
    if not engine.spec.trained:
        raise EngineFault(
            f"{model}: its heads were not trained, got a graph of random weights; train it or name another"
        )
    logger.info("temporal engine %s for %d cameras: %s", model.stem, cameras, reason)
    return TrackEvidence(engine)


def open_temporal(
    model: Path,
    cameras: int,
    *,
    backend: str = "auto",
    threads: int = 1,
    plans: Path | None = None,
    window: int | None = None,
) -> tuple[TemporalEngine, str]:
    """The engine and why its backend was taken. ``plans`` is the cache; without a cached plan the CPU serves while one is built.

    Raises EngineFault for an unknown backend, a broken model, or when ``tensorrt`` was demanded and cannot be had.
    """
    if backend not in BACKENDS:
        raise EngineFault(f"engine.backend: needs one of {list(BACKENDS)}, got {backend!r}")
    graph, spec = load_graph(model)
    if backend == "onnxruntime":
        return _on_cpu(graph, spec, cameras, threads, window), "onnxruntime: asked for by the configuration"
    try:
        runner, reason = _on_tensorrt(*_for_tensorrt(model, graph, spec), cameras, plans, wait=backend == "tensorrt")
    except EngineFault as e:
        if backend == "tensorrt":
            raise
        return _on_cpu(graph, spec, cameras, threads, window), f"onnxruntime on the CPU: TensorRT cannot be had ({e})"
    if runner is None:
        return _on_cpu(graph, spec, cameras, threads, window), reason
    return TemporalEngine(runner, window=window), reason


def _on_cpu(graph: bytes, spec: TemporalSpec, cameras: int, threads: int, window: int | None) -> TemporalEngine:
    return TemporalEngine(RingSession(graph, spec, cameras, threads=threads), window=window)


def _for_tensorrt(model: Path, graph: bytes, spec: TemporalSpec) -> tuple[bytes, TemporalSpec]:
    """The fp16 twin of a model where it lies beside it (``x-fp16.onnx``), else the model itself unless its numbers are the CPU's."""
    twin = model.with_name(f"{model.stem}-fp16.onnx")
    if twin.exists():
        return load_graph(twin)
    if spec.precision == "int8":
        raise EngineFault(f"tensorrt: {model.name} is int8 for the CPU, got no {twin.name} beside it; export one")
    return graph, spec


def _on_tensorrt(
    graph: bytes, spec: TemporalSpec, cameras: int, plans: Path | None, *, wait: bool
) -> tuple[Runner | None, str]:
    count, why = probe_driver()
    if not count:
        raise EngineFault(f"tensorrt: {why}")
    profile = temporal_profile(spec, cameras)
    key = plan_key(graph, profile, ())
    cache = PlanCache(plans or Path.home() / ".cache" / "vedette" / "plans")
    plan = cache.get(key)
    if plan is None and not wait:
        cache.build_in_background(
            key,
            lambda: build_plan(graph, profile),
            lambda path: logger.info("temporal plan built: %s; used from the next start", path),
        )
        return None, "onnxruntime on the CPU: the TensorRT plan is being built and serves from the next start"
    if plan is None:
        plan = build_plan(graph, profile)
        cache.put(key, plan)
    return TrtRing(plan, spec, cameras), f"{key.flavour} {key.tensorrt}: {why} and a plan under key {key.digest()}"

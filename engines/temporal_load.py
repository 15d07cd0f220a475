"""Open a temporal graph on the best backend there is, and say in one line why."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from vedette.engines.api import EngineFault
from vedette.engines.build import PlanCache, build_plan, load_tensorrt, plan_key, temporal_profile
from vedette.engines.events import SCHEMA as EVENTS
from vedette.engines.events import EventEvidence, schema_of
from vedette.engines.runtimes.cuda import probe_driver
from vedette.engines.runtimes.ringdevice import DeviceRing, cuda_provider
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


def backend_here() -> str:
    """What ``auto`` would take for the temporal engine on this machine and why, in one line, without opening a model."""
    try:
        count, why = probe_driver()
        if not count:
            raise EngineFault(why)
        trt, flavour = load_tensorrt()
        return f"{flavour} {trt.__version__}: {why}"
    except EngineFault as no_tensorrt:
        try:
            return f"onnxruntime's CUDA provider: {cuda_provider()}; no TensorRT ({no_tensorrt})"
        except EngineFault as no_cuda:
            return f"onnxruntime on the CPU: no CUDA provider ({no_cuda}); no TensorRT ({no_tensorrt})"


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
    """The engine and, in one line, why its backend was taken: ``auto`` tries TensorRT, ONNX Runtime's CUDA provider, its CPU.

    plans: the cache of plans. Where there is none for this model and machine, the next backend serves while one is built in the
    background; then TensorRT takes over between two steps, with empty memory. Raises EngineFault for an unknown backend, a broken
    model, or when ``tensorrt`` was demanded and cannot be had.
    """
    if backend not in BACKENDS:
        raise EngineFault(f"engine.backend: needs one of {list(BACKENDS)}, got {backend!r}")
    graph, spec = load_graph(model)

    def on_cpu() -> TemporalEngine:
        return TemporalEngine(RingSession(graph, spec, cameras, threads=threads), window=window)

    if backend == "onnxruntime":
        return on_cpu(), "onnxruntime: asked for by the configuration"
    try:
        tensorrt = _TensorRT(model, graph, spec, cameras, plans)
        runner = tensorrt.runner(wait=backend == "tensorrt")
    except EngineFault as e:
        if backend == "tensorrt":
            raise
        engine, reason = _without_tensorrt(model, graph, spec, cameras, window, on_cpu)
        return engine, f"{reason}; no TensorRT ({e})"
    if runner is not None:
        return TemporalEngine(runner, window=window), tensorrt.reason
    engine, reason = _without_tensorrt(model, graph, spec, cameras, window, on_cpu)
    tensorrt.build_for(engine)
    return engine, f"{reason}; a TensorRT plan is being built and takes over when it is there"


def _without_tensorrt(
    model: Path,
    graph: bytes,
    spec: TemporalSpec,
    cameras: int,
    window: int | None,
    on_cpu: Callable[[], TemporalEngine],
) -> tuple[TemporalEngine, str]:
    """ONNX Runtime, on a GPU where it can."""
    try:
        why = cuda_provider()
        runner = DeviceRing(*_for_gpu(model, graph, spec), cameras)
    except EngineFault as e:
        return on_cpu(), f"onnxruntime on the CPU: no CUDA provider ({e})"
    return TemporalEngine(runner, window=window), f"onnxruntime's CUDA provider: {why}"


def _for_gpu(model: Path, graph: bytes, spec: TemporalSpec) -> tuple[bytes, TemporalSpec]:
    """The fp16 twin of a model where it lies beside it (``x-fp16.onnx``), else the model itself unless its numbers are the CPU's."""
    twin = model.with_name(f"{model.stem}-fp16.onnx")
    if twin.exists():
        return load_graph(twin)
    if spec.precision == "int8":
        raise EngineFault(f"{model.name} is int8 for the CPU, got no {twin.name} beside it; export one")
    return graph, spec


class _TensorRT:
    """A model's plan for this machine: out of the cache, built now, or built beside a running engine."""

    def __init__(self, model: Path, graph: bytes, spec: TemporalSpec, cameras: int, plans: Path | None) -> None:
        count, why = probe_driver()
        if not count:
            raise EngineFault(f"tensorrt: {why}")
        self._graph, self._spec = _for_gpu(model, graph, spec)
        self._cameras = cameras
        self._profile = temporal_profile(self._spec, cameras)
        self._key = plan_key(self._graph, self._profile, ())
        self._cache = PlanCache(plans or Path.home() / ".cache" / "vedette" / "plans")
        self.reason = f"{self._key.flavour} {self._key.tensorrt}: {why} and a plan under key {self._key.digest()}"

    def runner(self, *, wait: bool) -> Runner | None:
        """The plan at work, or None where there is none yet and nobody waits."""
        plan = self._cache.get(self._key)
        if plan is None and wait:
            plan = build_plan(self._graph, self._profile)
            self._cache.put(self._key, plan)
        return None if plan is None else TrtRing(plan, self._spec, self._cameras)

    def build_for(self, engine: TemporalEngine) -> None:
        """Build in a thread, open there, and hand the runner to the engine; a fault leaves the engine as it is and is logged."""

        def build() -> bytes:
            try:
                return build_plan(self._graph, self._profile)
            except EngineFault as e:
                logger.warning("temporal plan: %s; %s serves on", e, engine.runner.backend)
                raise

        def done(path: Path) -> None:
            plan = self._cache.get(self._key)
            if plan is None:
                raise EngineFault(f"{path}: was written and cannot be read back; free space in the plan cache")
            try:
                engine.swap(TrtRing(plan, self._spec, self._cameras))
            except EngineFault as e:
                logger.warning("temporal plan %s: %s; %s serves on", path, e, engine.runner.backend)
                raise
            logger.info("temporal plan built: %s; TensorRT takes over", path)

        self._cache.build_in_background(self._key, build, done)

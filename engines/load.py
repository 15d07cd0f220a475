"""`load` turns a name or a file into an `Engine`; the only place that knows which backends there are."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vedette.engines import zoo
from vedette.engines.api import LABELS, Engine, EngineFault, EngineSpec
from vedette.engines.canvas import DEFAULT_SIZE, parse_size
from vedette.engines.detector import Detector
from vedette.engines.runtimes.onnxruntime import OrtRuntime, sha256_of
from vedette.engines.runtimes.ringdevice import CUDA, cuda_provider
from vedette.engines.strictjson import load_json

#: backend -> "module:function", called as f(source, name=, size=, threads=) -> (Runtime, (height, width), precision)
BACKENDS = {
    "onnxruntime": "vedette.engines.load:open_onnxruntime",
    "onnxruntime-cuda": "vedette.engines.load:open_cuda",
}


def load(
    name_or_path: str,
    *,
    size: str | None = None,
    backend: str = "auto",
    threads: int | None = None,
    family: str | None = None,
    labels: Sequence[str] | None = None,
) -> Engine:
    """An engine ready to `infer`. Raises EngineFault with what was found and the fix.

    name_or_path: ``vedette-nano`` (shipped), a name of ``vedette models list``, or an ONNX file. size: canvas as
    "WIDTHxHEIGHT" in multiples of 32, or fast | default | quality; more pixels find smaller people and cost
    time in proportion; None is 416x256, or the graph's own size where it is fixed. backend: see `choose_backend`.
    family, labels: for foreign graphs, see `vedette.engines.adapt`.
    """
    path = resolve(name_or_path)
    if family is None and name_or_path in zoo.MODELS:
        family = zoo.MODELS[name_or_path].family
    if family is not None:
        from vedette.engines.adapt import adapt

        source: Path | bytes = adapt(path, family, labels, size)
    else:
        source = path
    chosen, reason = choose_backend(backend)
    # an adapted graph has its size inside, and its labels
    opened = _imported(BACKENDS[chosen])(source, name=str(path), size=None if family else size, threads=threads)
    runtime, hw, precision = opened
    spec = _spec(runtime, path, hw, labels, chosen, precision, reason)
    batch = runtime.inputs["pixels"].shape[0]
    engine = Detector(runtime, spec, max_batch=batch if isinstance(batch, int) else None)
    try:
        engine.warm_up()
    except EngineFault as e:  # it names the model by the name inside, a person knows the file
        raise e if str(e).startswith(str(path)) else EngineFault(f"{path}: {e}") from e
    return engine


def resolve(name_or_path: str) -> Path:
    """The model file of a shipped name, a pulled name, or a path."""
    if name_or_path.endswith(".onnx") or "/" in name_or_path:
        return Path(name_or_path)
    names = {p.stem: p for p in zoo.shipped()}
    if name_or_path in names:
        return zoo.check_shipped(names[name_or_path])
    if name_or_path in zoo.MODELS:
        return zoo.verify(zoo.MODELS[name_or_path])
    raise EngineFault(
        f"engine.detector: no model is called {name_or_path!r}; shipped are {sorted(names)}, "
        f"`vedette models pull` fetches {sorted(zoo.MODELS)}; or give the path of an .onnx file"
    )


def choose_backend(backend: str) -> tuple[str, str]:
    """The backend of the detector, and why, in one sentence. ``auto`` and ``tensorrt`` try TensorRT, ONNX Runtime's CUDA
    provider, and its CPU: the detector has no TensorRT runtime yet, the temporal engine has (`vedette.engines.temporal_load`).
    """
    if backend in ("auto", "tensorrt"):
        why = "TensorRT runs the temporal engine only"
        try:
            return "onnxruntime-cuda", f"ONNX Runtime's CUDA provider ({cuda_provider()}); {why}"
        except EngineFault as e:
            return "onnxruntime", f"ONNX Runtime on the CPU: no CUDA provider ({e}); {why}"
    if backend not in BACKENDS:
        raise EngineFault(f"engine.backend: needs one of {['auto', 'tensorrt', *BACKENDS]}, got {backend!r}")
    return backend, f"{backend}: asked for by the configuration"


def open_onnxruntime(
    source: Path | bytes, *, name: str, size: str | None, threads: int | None
) -> tuple[OrtRuntime, tuple[int, int], str]:
    """The CPU backend: runtime, canvas (height, width) and precision."""
    return _opened(OrtRuntime(source, name=name, threads=threads), name, size)


def open_cuda(
    source: Path | bytes, *, name: str, size: str | None, threads: int | None
) -> tuple[OrtRuntime, tuple[int, int], str]:
    """ONNX Runtime's CUDA provider: runtime, canvas (height, width) and precision."""
    return _opened(OrtRuntime(source, name=name, threads=threads, provider=CUDA), name, size)


def _opened(runtime: OrtRuntime, name: str, size: str | None) -> tuple[OrtRuntime, tuple[int, int], str]:
    """A runtime that holds a detector, with the canvas it is to be given."""
    if "pixels" not in runtime.inputs or len(runtime.inputs["pixels"].shape) != 4:
        found = {k: list(p.shape) for k, p in runtime.inputs.items()}
        raise EngineFault(
            f"{name}: a detector takes one input pixels u8 [B,H,W,3], got {found}; "
            "name its `family` (yolox, nanodet, detr, yolo-e2e ...) and `labels`"
        )
    _, h, w, _ = runtime.inputs["pixels"].shape
    if isinstance(h, int) and isinstance(w, int):
        if size is not None and parse_size(size) != (h, w):
            raise EngineFault(f"{name}: its canvas is fixed at {w}x{h}, got engine.size {size!r}; leave size out")
        return runtime, (h, w), runtime.metadata.get("vedette.precision", "fp32")
    return runtime, parse_size(size or DEFAULT_SIZE), runtime.metadata.get("vedette.precision", "fp32")


def _spec(
    runtime: Any, path: Path, hw: tuple[int, int], labels: Sequence[str] | None, backend: str, precision: str, why: str
) -> EngineSpec:
    meta = getattr(runtime, "metadata", {})
    own = _own_labels(meta.get("vedette.labels", "null"), path)
    names = tuple(labels or own)
    if "vedette.labels" in meta and len(names) != len(own):
        raise EngineFault(
            f"{path}: engine.labels needs one name a class ({len(own)}), got {len(names)}; leave them out"
        )
    port = runtime.outputs.get("embeddings")
    dim = int(port.shape[-1]) if port is not None else None
    name = meta.get("vedette.name", path.stem)
    return EngineSpec(name, hw, names, dim, backend, precision, why, sha256_of(path))


def _own_labels(text: str, path: Path) -> tuple[str, ...]:
    """The class names in a model's metadata. EngineFault when they are none."""
    try:
        names = load_json(text) or LABELS
        if not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
            raise ValueError("needs a list of names")
    except ValueError as e:
        raise EngineFault(f"{path}: vedette.labels in its metadata: {e}, got {text:.60}; export the model again") from e
    return tuple(names)


def _imported(target: str) -> Callable[..., Any]:
    module, _, attribute = target.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as e:
        raise EngineFault(f"engine.backend: {module} cannot be used here: {e}; install its extra or use auto") from e
    return found

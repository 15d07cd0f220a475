"""ONNX -> TensorRT plan, ahead of time, with either flavour; a plan is cached under everything that could make it wrong.

``tensorrt`` (Jetson, data centre) builds for the GPU it stands on; ``tensorrt_rtx`` builds without any GPU for named compute
capabilities. Neither is imported before it is asked for. A parser that leaves an input unused is an error here: TensorRT-RTX drops
``nonpad_kv_seqlen`` with nothing but such a warning, and the engine then attends to empty slots.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vedette.engines.api import EngineFault
from vedette.engines.strictjson import load_json
from vedette.engines.temporal_spec import TemporalSpec

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]

#: import name -> flavour, in the order they are tried
FLAVOURS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt_rtx", "tensorrt_rtx_bindings": "tensorrt_rtx"}
#: what TensorRT-RTX plans are built for unless asked otherwise: RTX 30, 40, 50
TARGETS = ("SM86", "SM89", "SM120")


def load_tensorrt() -> tuple[Any, str]:
    """The TensorRT module that is installed and its flavour; EngineFault says what to install."""
    tried = []
    for name, flavour in FLAVOURS.items():
        try:
            module = importlib.import_module(name)
        except Exception as e:  # noqa: BLE001 - a broken driver raises anything at import
            tried.append(f"{name}: {type(e).__name__}: {e}")
            continue
        if hasattr(module, "Builder"):
            return module, flavour
    raise EngineFault(
        f"build: needs TensorRT, got {'; '.join(tried)}; pip install 'vedette[rtx]' (RTX cards) or 'vedette[gpu]'"
    )


@dataclass(frozen=True, slots=True)
class PlanKey:
    """Everything a plan depends on; two plans may be exchanged exactly when their keys are equal."""

    onnx_sha256: str
    flavour: str
    tensorrt: str
    targets: tuple[str, ...]
    shapes: str
    driver: str = ""

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:24]


def plan_key(graph: bytes, profile: Profile, targets: Sequence[str], driver: str = "") -> PlanKey:
    """The key under the TensorRT that is installed; ``driver`` only where a plan is built on its own GPU."""
    trt, flavour = load_tensorrt()
    shapes = json.dumps(dict(sorted(profile.items())))
    return PlanKey(hashlib.sha256(graph).hexdigest(), flavour, str(trt.__version__), tuple(targets), shapes, driver)


def temporal_profile(spec: TemporalSpec, most: int, usual: int | None = None) -> Profile:
    """Shapes of a temporal graph for 1, ``usual`` and ``most`` cameras."""
    sizes = (1, usual or most, most)
    least, opt, top = sizes
    return {t.name: (t.concrete(least), t.concrete(opt), t.concrete(top)) for t in spec.inputs}


def for_tensorrt(graph: bytes) -> bytes:
    """A graph TensorRT's parser takes: 8-bit pictures are widened where they come in, it computes on no 8-bit integers."""
    import onnx

    model = onnx.load_from_string(graph)
    bytes_in = [i.name for i in model.graph.input if i.type.tensor_type.elem_type == onnx.TensorProto.UINT8]
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name in bytes_in:
                node.input[i] = f"{name}.wide"
    for name in bytes_in:
        node = onnx.helper.make_node("Cast", [name], [f"{name}.wide"], to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(0, node)
    return bytes(model.SerializeToString())


def plain_profile(graph: bytes, most: int, hw: tuple[int, int] = (256, 416)) -> Profile:
    """Shapes of any other graph: dimensions called height and width are ``hw``, every other free one is 1 .. ``most``."""
    import onnx

    sizes = {"height": hw[0], "width": hw[1]}
    profile = {}
    for value in onnx.load_from_string(graph).graph.input:
        dims = [d.dim_value or sizes.get(d.dim_param, 0) for d in value.type.tensor_type.shape.dim]
        least, top = tuple(d or 1 for d in dims), tuple(d or most for d in dims)
        profile[value.name] = (least, top, top)
    return profile


def build_plan(graph: bytes, profile: Profile, targets: Sequence[str] = TARGETS) -> bytes:
    """The serialised engine. EngineFault names the node or the input TensorRT could not take."""
    trt, flavour = load_tensorrt()
    log = logger_of(trt)
    log.lines = []
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise EngineFault(f"build: the parser refused the graph, got {errors}; export it as portable")
    refuse_unused(log.lines, [network.get_input(i).name for i in range(network.num_inputs)], list(profile))
    _allow_decomposition(trt, network)
    config = builder.create_builder_config()
    _target(trt, config, targets if flavour == "tensorrt_rtx" else ())
    shapes = builder.create_optimization_profile()
    for name, (least, usual, most) in profile.items():
        shapes.set_shape(name, least, usual, most)
    config.add_optimization_profile(shapes)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineFault(
            f"build: TensorRT {trt.__version__} gave no plan, got {'; '.join(log.lines[-3:])}; use precision fp16, or flavour portable"
        )
    return bytes(plan)


def refuse_unused(log: Sequence[str], found: Sequence[str], wanted: Sequence[str]) -> None:
    """EngineFault when the parser dropped an input, told by its warning or by the input's absence."""
    said = [line for line in log if "unused input" in line.lower()]
    lost = sorted(set(wanted) - set(found))
    if said or lost:
        raise EngineFault(
            f"build: the parser left inputs unused, got {said or lost}; the engine would ignore them: change the export"
        )


_LOGGERS: dict[str, Any] = {}


def logger_of(trt: Any) -> Any:
    """The one logger of this process: TensorRT keeps the first it is given and ignores every other.

    ``lines`` are its warnings and errors, ``last`` the newest: TensorRT answers False or None and says why only there.
    """
    if trt.__name__ not in _LOGGERS:

        class Log(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.lines: list[str] = []

            @property
            def last(self) -> str:
                return self.lines[-1] if self.lines else "nothing in TensorRT's log"

            def log(self, severity: Any, msg: str) -> None:
                if severity <= trt.ILogger.WARNING:
                    self.lines = [*self.lines[-99:], msg]

        _LOGGERS[trt.__name__] = Log()
    return _LOGGERS[trt.__name__]


def _allow_decomposition(trt: Any, network: Any) -> None:
    """Let TensorRT write out an attention it has no fused kernel for (fp32 with several queries); else the build fails."""
    kind = getattr(trt.LayerType, "ATTENTION_INPUT", None)
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if kind is not None and layer.type == kind:
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True


def _target(trt: Any, config: Any, targets: Sequence[str]) -> None:
    flag = getattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
    if flag is not None:  # without it a CUDA graph cannot be captured
        config.set_flag(flag)
    if not targets:
        return
    config.num_compute_capabilities = len(targets)
    for i, name in enumerate(targets):
        capability = getattr(trt.ComputeCapability, name, None)
        if capability is None or not config.set_compute_capability(capability, i):
            known = [n for n in dir(trt.ComputeCapability) if n.startswith("SM")]
            raise EngineFault(
                f"build: this TensorRT has no target {name}, it has {known}; Jetson needs JetPack's tensorrt"
            )


class PlanCache:
    """Plans in a folder, one a key, written atomically; a missing one is built in the background while the CPU serves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._threads: dict[str, threading.Thread] = {}
        self.faults: dict[str, str] = {}

    def path(self, key: PlanKey) -> Path:
        return self.folder / f"{key.digest()}.plan"

    def get(self, key: PlanKey) -> bytes | None:
        """The plan, or None when there is none or its sidecar does not match it."""
        path = self.path(key)
        try:
            plan, sidecar = path.read_bytes(), load_json(path.with_suffix(".json").read_text())
        except (OSError, ValueError):
            return None
        whole = isinstance(sidecar, dict) and sidecar.get("plan_sha256") == hashlib.sha256(plan).hexdigest()
        return plan if whole and sidecar.get("key") == json.loads(json.dumps(asdict(key))) else None

    def put(self, key: PlanKey, plan: bytes) -> Path:
        """Write plan and sidecar so that a reader sees both or neither."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(key)
        sidecar = {"schema": "vedette.plan/1", "key": asdict(key), "plan_sha256": hashlib.sha256(plan).hexdigest()}
        for target, data in ((path, plan), (path.with_suffix(".json"), json.dumps(sidecar, indent=1).encode())):
            temporary = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
            temporary.write_bytes(data)
            temporary.replace(target)
        return path

    def build_in_background(self, key: PlanKey, build: Callable[[], bytes], done: Callable[[Path], None]) -> None:
        """Start one build a key; ``done`` is called with the path, a fault is kept in ``faults`` under the key's digest."""
        digest = key.digest()
        running = self._threads.get(digest)
        if running is not None and running.is_alive():
            return

        def work() -> None:
            try:
                done(self.put(key, build()))
            except Exception as e:  # noqa: BLE001 - whatever happened, the CPU engine goes on and doctor tells
                self.faults[digest] = str(e)

        self._threads[digest] = threading.Thread(target=work, name=f"plan-{digest[:8]}", daemon=True)
        self._threads[digest].start()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for every build under way."""
        for thread in list(self._threads.values()):
            thread.join(timeout_s)

"""``vedette engine verify``: every graph against the truth it has, a row a backend, state or output.

A RIFT graph has the float64 reference; an events graph has itself in float64, stepped over a troubled stream; a detector has the
PyTorch network with its own weights, and itself without ONNX Runtime's optimisations; any other graph has the latter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import EngineFault
from vedette.engines.events import SCHEMA as EVENTS
from vedette.engines.events import schema_of
from vedette.engines.temporal_spec import is_temporal, load_graph, sidecar_path
from vedette.engines.temporal_verify import errors, judged, verify_stateless, verify_temporal
from vedette.engines.temporal_weights import weights_of

#: What a detector file must keep of the PyTorch network: candidates found, mean overlap, mean difference of score, cosines.
PARITY = {"found": 0.99, "box_iou": 0.99, "embedding_min": 0.99, "scene_min": 0.99}
SCORE_DIFFERENCE = 0.01
#: Pictures that are compared.
PICTURES = 8


def verify_graph(model: Path, pictures: Path | None = None) -> list[dict[str, Any]]:
    """A row a comparison, each with ``ok``. pictures: a folder of real ones for detectors; synthetic ones without.

    Raises EngineFault when the file is missing, or the folder holds no picture.
    """
    if not model.exists():
        raise EngineFault(f"{model}: does not exist; name an .onnx file")
    if is_temporal(model):
        graph, spec = load_graph(model)
        rows = verify_temporal(graph, spec, weights_of(model))
    elif _is_events(model):
        rows = verify_events(model)
    else:
        rows = verify_stateless(model)
        if _is_detector(model):
            rows.append(verify_detector(model, _real(pictures) if pictures else synthetic_pictures(PICTURES)))
    return [{"graph": model.name, **row} for row in rows]


def verify_events(model: Path, steps: int = 200, streams: int = 3) -> list[dict[str, Any]]:
    """A stream with jumping time steps and inputs far outside their range: every output of ONNX Runtime, memory carried from step to
    step, against the same graph evaluated in float64; and with ONNX Runtime's optimisations against without."""
    import onnx
    import onnxruntime as ort
    from onnx.reference import ReferenceEvaluator

    truth = ReferenceEvaluator(_in_float64(onnx.load(str(model))))
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    shapes = {i.name: (streams, *i.shape[1:]) for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    r, got, want = np.random.default_rng(0), list[list[Any]](), list[list[Any]]()
    memory = [{k: np.zeros(s) for k, s in shapes.items() if k.endswith(("_mean", "_total"))} for _ in range(2)]
    for _ in range(steps):
        now = {k: r.standard_cauchy(s) for k, s in shapes.items() if k.endswith("_x")}
        now |= {k: np.exp2(-r.exponential(size=s)) for k, s in shapes.items() if k.endswith("_decay")}
        single = {k: v.astype(np.float32) for k, v in (now | memory[0]).items()}
        # the same float32 inputs, but a memory of its own: errors may add up
        double = {k: single[k].astype(np.float64) for k in now} | memory[1]
        got.append(session.run(None, single))
        want.append(truth.run(names, double))
        memory = [{k: out[names.index(_next(k))] for k in memory[0]} for out in (got[-1], want[-1])]
    rows = [
        judged({"backend": "onnxruntime", "against": "float64", "output": n}, "fp32", errors(np.stack(a), np.stack(b)))
        for n, a, b in zip(names, zip(*got, strict=True), zip(*want, strict=True), strict=True)
    ]
    return rows + verify_stateless(model)


def _next(memory: str) -> str:
    """The output that replaces a memory input: ``scene_mean`` -> ``scene_n_mean``."""
    return "_n_".join(memory.split("_", 1))


def _in_float64(model: Any) -> Any:
    """The graph with every float32 constant, input and output as float64."""
    from onnx import TensorProto, numpy_helper

    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return model


def verify_detector(model: Path, canvases: list[NDArray[np.uint8]]) -> dict[str, Any]:
    """The file in ONNX Runtime against the PyTorch network with the same weights, as a tracker would see it."""
    from vedette.engines.parity import parity_report

    found = parity_report(model, [], canvases, torch=True)["pytorch"]
    ok = found["candidates"] > 0 and found["score"] <= SCORE_DIFFERENCE
    ok = ok and all(found[name] >= least for name, least in PARITY.items())
    return {"backend": "onnxruntime", "against": "pytorch", "precision": "fp32", **found, "ok": bool(ok)}


def synthetic_pictures(count: int, hw: tuple[int, int] = (256, 416)) -> list[NDArray[np.uint8]]:
    """Canvases with blobs at several scales: enough structure that a detector says something everywhere."""
    import cv2

    r = np.random.default_rng(5)
    out = []
    for _ in range(count):
        layers = [cv2.resize(r.integers(0, 256, (h, h * 2, 3), dtype=np.uint8), hw[::-1]) for h in (4, 12, 40)]
        out.append(np.mean(layers, 0).astype(np.uint8))
    return out


def _real(folder: Path, hw: tuple[int, int] = (256, 416)) -> list[NDArray[np.uint8]]:
    import cv2

    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[:PICTURES]
    read = [cv2.imread(str(path)) for path in paths]
    if not read or any(p is None for p in read):
        raise EngineFault(f"{folder}: needs readable .jpg or .png pictures, got {[p.name for p in paths] or 'none'}")
    return [np.asarray(cv2.resize(p, hw[::-1], interpolation=cv2.INTER_AREA), np.uint8) for p in read if p is not None]


def _is_events(model: Path) -> bool:
    return sidecar_path(model).exists() and schema_of(model) == EVENTS


def _is_detector(model: Path) -> bool:
    import onnx

    return any(p.key == "vedette.labels" for p in onnx.load(str(model), load_external_data=False).metadata_props)

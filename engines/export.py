"""PyTorch -> ONNX for the detector: fp32, and fp16 storage computed in fp32.

The shipped file is the single source of the weights: `state_from_onnx` reads them back for training or another
precision, because the exporter keeps parameter names.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vedette.engines.api import LABELS, EngineFault

OUTPUTS = ("boxes", "scores", "labels", "embeddings", "scene")


def export_detector(
    net: Any, path: str | Path, *, half: bool = True, metadata: Mapping[str, str] | None = None
) -> Path:
    """Write ``net`` (`VedetteNano`) as ONNX opset 18 with free batch, height and width; returns the path.

    half: store matrices in fp16 (half the size); the runtime widens them once when it loads.
    """
    import onnx

    model = detector_model(net)
    if half:
        store_half(model)
    facts = {"vedette.name": "vedette-nano", "vedette.labels": json.dumps(list(LABELS)), "vedette.precision": "fp32"}
    onnx.helper.set_model_props(model, {**facts, **(metadata or {})})
    onnx.checker.check_model(model)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    onnx.save(model, str(partial))
    partial.replace(path)
    return path


def detector_model(net: Any) -> Any:
    """The ONNX ModelProto of a `VedetteNano`, fp32."""
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    dims = {0: torch.export.Dim("batch", min=1, max=64)}
    for axis, name in ((1, "rows"), (2, "columns")):
        dims[axis] = 32 * torch.export.Dim(name, min=2, max=128)
    sample = torch.zeros(2, 256, 416, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net.eval(), (sample,), input_names=["pixels"], output_names=list(OUTPUTS), opset_version=18,
            dynamo=True, dynamic_shapes={"pixels": dims}, verbose=False,
        )  # fmt: skip
    model = program.model_proto
    names = {"32*rows": "height", "32*columns": "width"}
    for value in model.graph.input:
        for d in value.type.tensor_type.shape.dim:
            if d.dim_param in names:
                d.dim_param = names[d.dim_param]
    del model.graph.value_info[:]
    for node in model.graph.node:  # the exporter's stack traces name files of the machine that exported
        del node.metadata_props[:]
        node.doc_string = ""
    return model


def store_half(model: Any) -> None:
    """Turn every fp32 matrix of ``model`` into fp16 plus a Cast that the runtime folds when it loads (in place)."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        wide = numpy_helper.to_array(tensor)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(wide.astype(np.float16), name))
        casts.append(helper.make_node("Cast", [name], [f"{name}.f32"], to=TensorProto.FLOAT))
        for node in model.graph.node:
            for i, used in enumerate(node.input):
                if used == name:
                    node.input[i] = f"{name}.f32"
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def state_from_onnx(path: str | Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Parameters by name from a file that `export_detector` wrote; a bias the exporter dropped was zero.

    shapes: what the network expects. Raises EngineFault when a weight is missing, misshapen or not finite.
    """
    import onnx
    import torch
    from onnx import numpy_helper

    try:
        graph = onnx.load(str(path)).graph
    except Exception as e:
        raise EngineFault(f"{path}: not an ONNX file: {e}; export it again") from e
    found = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    state = {}
    for name, shape in shapes.items():
        value = found.get(name)
        if value is None and name.endswith(".bias"):
            value = np.zeros(shape, np.float32)
        if value is None or tuple(value.shape) != tuple(shape):
            got = "nothing" if value is None else str(list(value.shape))
            raise EngineFault(f"{path}: weight {name} needs {list(shape)}, got {got}; is it a vedette-nano file?")
        if not np.isfinite(value).all():
            raise EngineFault(f"{path}: weight {name} holds NaN or infinity; export or download it again")
        state[name] = torch.from_numpy(value.astype(np.float32))
    return state


def detector_from_onnx(path: str | Path) -> Any:
    """A `VedetteNano` with the weights of a shipped or exported file."""
    from vedette.engines.models.vedette_nano import VedetteNano

    net = VedetteNano()
    net.load_state_dict(state_from_onnx(path, {k: tuple(v.shape) for k, v in net.state_dict().items()}))
    return net.eval()

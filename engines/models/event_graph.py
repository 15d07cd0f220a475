"""The events model as an ONNX graph: two fold networks side by side, one row a stream, state explicit.

Inputs of each part (``scene``, ``track``): x [n,F], mean [n,M,F], total [n,M], decay [n,M]; outputs: logit [n,1], n_mean, n_total.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 18, 8
#: Inputs further than this from their mean, in deviations, count as this far.
CLIP = 5.0


def export_events(scene: Mapping[str, NDArray[Any]], track: Mapping[str, NDArray[Any]]) -> bytes:
    """scene: mean, std [F], w [1,M*F], b [1]. track: mean, std [F], w1 [H,(1+M)*F], b1 [H], w2 [1,H], b2 [1]."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    ports: tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]] = ([], [])
    folds = {
        "scene": scene["w"].shape[1] // len(scene["mean"]),
        "track": track["w1"].shape[1] // len(track["mean"]) - 1,
    }
    for part, weights in (("scene", scene), ("track", track)):
        _part(part, weights, folds[part], nodes, constants, ports)
    constants += [
        numpy_helper.from_array(np.array(v, np.float32), k) for k, v in (("one", 1.0), ("low", -CLIP), ("high", CLIP))
    ]
    constants += [numpy_helper.from_array(np.array([v], np.int64), k) for k, v in (("axis1", 1), ("axis2", 2))]
    graph = helper.make_graph(nodes, "events", *ports, constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="vedette"
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _part(
    part: str,
    weights: Mapping[str, NDArray[Any]],
    folds: int,
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    ports: tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]],
) -> None:
    """Append one fold network."""
    p, width = f"{part}_", len(weights["mean"])

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def const(name: str) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(weights[name], np.float32), p + name + ".c"))
        return p + name + ".c"

    for name, shape in (("x", [width]), ("mean", [folds, width]), ("total", [folds]), ("decay", [folds])):
        ports[0].append(helper.make_tensor_value_info(p + name, TensorProto.FLOAT, [f"{part}s", *shape]))
    for name, shape in (("logit", [1]), ("n_mean", [folds, width]), ("n_total", [folds])):
        ports[1].append(helper.make_tensor_value_info(p + name, TensorProto.FLOAT, [f"{part}s", *shape]))
    scaled = node("Div", [node("Sub", [p + "x", const("mean")], p + "centred"), const("std")], p + "scaled")
    x = node("Clip", [scaled, "low", "high"], p + "clipped")
    total = node("Add", [node("Mul", [p + "total", p + "decay"], p + "faded"), "one"], p + "n_total")
    error = node("Sub", [node("Unsqueeze", [x, "axis1"], p + "row"), p + "mean"], p + "error")
    step = node("Div", [error, node("Unsqueeze", [total, "axis2"], p + "count")], p + "step")
    mean = node("Add", [p + "mean", step], p + "n_mean")
    if part == "scene":
        node("Gemm", [node("Flatten", [mean], p + "flat"), const("w"), const("b")], p + "logit", transB=1)
        return
    away = node("Flatten", [node("Sub", [p + "row", mean], p + "away")], p + "away_flat")
    hidden = node(
        "Gemm", [node("Concat", [x, away], p + "all", axis=1), const("w1"), const("b1")], p + "hidden", transB=1
    )
    node("Gemm", [node("Tanh", [hidden], p + "tanh"), const("w2"), const("b2")], p + "logit", transB=1)

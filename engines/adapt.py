"""Bring your own detector: preparation and decoding of a known family are added to its graph when it is imported.

Afterwards it is a graph like ours (u8 pixels in; boxes, scores, labels out), so that no runtime and no caller
knows model names. Families:

    yolox     raw YOLOX export [B,A,5+C] (objectness and classes after sigmoid, grid not applied); BGR 0..255
    nanodet   NanoDet (a cls and a dis output a stride) or NanoDet-Plus (one output); BGR, mean and std
    detr      RT-DETR, D-FINE and kin: class logits [B,Q,C] and boxes [B,Q,4] (cx, cy, w, h in 0..1), or as their
              publishers export them, with ``orig_target_sizes`` going in and labels, boxes and scores coming out; RGB 0..1
    detr-imagenet  the same for RF-DETR and Deformable DETR: RGB, ImageNet mean and std
    detr-softmax   the first DETR: the same picture, scores a softmax whose last class is "no object"
    yolo-e2e  NMS-free YOLO exports [B,M,6] (x1, y1, x2, y2 in px, score, class); RGB 0..1

``labels`` are the class names of the network in its order. Without labels a COCO network (80 classes, or 91 by category
number) is reduced to ours: a label's score is the best of its COCO classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import LABELS, EngineFault
from vedette.engines.canvas import DEFAULT_SIZE, parse_size
from vedette.engines.coco import COCO_CATEGORIES, COCO_CLASSES
from vedette.engines.families import FAMILIES
from vedette.engines.grapher import Grapher, opset_of
from vedette.engines.runtimes.onnxruntime import first_line, read_model

#: names that the import adds; what is called so in a foreign graph is renamed
OURS = ("pixels", "boxes", "scores", "labels")
#: candidates kept before NMS
TOPK = 300
#: what some exports want beside the picture, by name, from (height, width): it is made a constant
ASIDE: dict[str, Callable[[tuple[int, int]], NDArray[np.int64]]] = {
    "orig_target_sizes": lambda hw: np.array(hw[::-1], np.int64),
    "pixel_mask": lambda hw: np.ones(hw, np.int64),
}


def adapt(path: str | Path, family: str, labels: Sequence[str] | None = None, size: str | None = None) -> bytes:
    """The model file with preparation and decoding inside, as bytes. Raises EngineFault in one sentence.

    size: canvas "WIDTHxHEIGHT" where the graph leaves it free (416x256 if None); refused where it does not fit.
    """
    if family not in FAMILIES:
        raise EngineFault(f"engine.family: needs one of {sorted(FAMILIES)}, got {family!r}")
    onnx = _onnx()
    model = _parsed(path)
    _refuse_bad_weights(model, path)
    try:
        _make_way(model.graph)
    except TypeError as e:
        raise EngineFault(f"{path}: the graph holds names that are no text; the file is damaged") from e
    grapher = Grapher(model, str(path))
    if labels is not None:
        grapher.classes = len(labels)
    prepare, decode = FAMILIES[family]
    image, batch, hw = _image_input(grapher, size)
    if opset_of(model) < 13:
        try:
            model = onnx.version_converter.convert_version(model, 13)
        except Exception as e:  # a library at a damaged graph: it has many
            raise EngineFault(
                f"{path}: opset {opset_of(model)} cannot be raised to 13: {first_line(e)}; export it again"
            ) from e
        grapher.model, grapher.graph = model, model.graph
    shapes = _output_shapes(model, str(path), image.name, hw, batch)
    prefix = _rewire_input(grapher, image, batch, hw, prepare)
    boxes, raw_scores = decode(grapher, shapes, hw)
    names, scores = _named(grapher, raw_scores, labels)
    _finish(grapher, prefix, boxes, scores, batch)
    onnx.helper.set_model_props(
        model,
        {
            "vedette.name": Path(path).stem,
            "vedette.labels": json.dumps(list(names)),
            "vedette.precision": "fp32",
            "vedette.family": family,
        },
    )
    try:
        onnx.checker.check_model(model)
    except Exception as e:
        raise EngineFault(f"{path}: the graph with {family} decoding is not valid: {first_line(e)}") from e
    data: bytes = model.SerializeToString()
    return data


def _onnx() -> Any:
    try:
        import onnx
        import onnx.version_converter
    except ImportError as e:
        raise EngineFault("engine.family: importing a foreign graph needs onnx; pip install 'vedette[models]'") from e
    return onnx


def _parsed(path: str | Path) -> Any:
    onnx = _onnx()
    data = read_model(path)
    try:
        model = onnx.load_from_string(data)
    except Exception as e:
        raise EngineFault(f"{path}: not an ONNX file: {first_line(e)}; download or export it again") from e
    if not model.graph.node or not model.graph.output:
        raise EngineFault(f"{path}: needs an ONNX graph, got one without nodes or outputs; the file is truncated")
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(Path(path).parent))
    except Exception as e:
        raise EngineFault(
            f"{path}: its weights lie in another file: {first_line(e)}; put that file beside it, or export with external_data=False"
        ) from e
    return model


def _refuse_bad_weights(model: Any, path: str | Path) -> None:
    """NaN in a weight may only show as no detections; it is found here. Infinity is left alone: masks hold it."""
    from onnx import TensorProto, numpy_helper

    for tensor in model.graph.initializer:
        if tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            continue
        try:
            value = numpy_helper.to_array(tensor)
        except Exception as e:
            raise EngineFault(f"{path}: weight {tensor.name} cannot be read: {e}; the file is damaged") from e
        if np.isnan(value).any():
            raise EngineFault(f"{path}: weight {tensor.name} holds NaN; the file is damaged or training diverged")


def _make_way(graph: Any) -> None:
    """Rename values that are called as ours will be, here and in subgraphs."""

    def free(name: str) -> str:
        return f"{name}.foreign" if name in OURS or name.startswith("vedette_") else name

    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = free(value.name)
    for node in graph.node:
        node.input[:] = [free(name) for name in node.input]
        node.output[:] = [free(name) for name in node.output]
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                _make_way(inner)


def _image_input(g: Grapher, size: str | None) -> tuple[Any, int | None, tuple[int, int]]:
    """The image input, its fixed batch size or None, and the canvas (height, width)."""
    from onnx import TensorProto

    held = {i.name for i in g.graph.initializer}
    every = [i for i in g.graph.input if i.name not in held]
    inputs = [i for i in every if i.name not in ASIDE]
    shapes = {i.name: [d.dim_value or d.dim_param or "?" for d in i.type.tensor_type.shape.dim] for i in every}
    if len(inputs) != 1 or len(shapes[inputs[0].name]) != 4 or shapes[inputs[0].name][1] not in (3, "?"):
        raise g.fault("a detector has one image input [B,3,H,W]", shapes)
    kind = inputs[0].type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        raise g.fault("a detector takes its picture as float32 or float16", TensorProto.DataType.Name(kind))
    dims = inputs[0].type.tensor_type.shape.dim
    fixed = (dims[2].dim_value, dims[3].dim_value)
    if all(fixed):
        if size is not None and parse_size(size) != fixed:
            raise EngineFault(
                f"{g.name}: its canvas is fixed at {fixed[1]}x{fixed[0]}, got engine.size {size!r}; leave size out"
            )
        return inputs[0], dims[0].dim_value or None, (int(fixed[0]), int(fixed[1]))
    return inputs[0], dims[0].dim_value or None, parse_size(size or DEFAULT_SIZE)


def _rewire_input(
    g: Grapher, image: Any, batch: int | None, hw: tuple[int, int], prepare: Callable[[Grapher, str], str]
) -> list[Any]:
    """Feed the network from a u8 input ``pixels``; returns the nodes that must run first."""
    from onnx import TensorProto, helper

    before = len(g.nodes)
    x = g.op("Cast", g.op("Transpose", "pixels", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    x = prepare(g, x)
    if image.type.tensor_type.elem_type == TensorProto.FLOAT16:
        x = g.op("Cast", x, to=TensorProto.FLOAT16)
    g.nodes.append(helper.make_node("Identity", [x], [image.name]))
    for aside in (i for i in g.graph.input if i.name in ASIDE):
        _feed_aside(g, aside, ASIDE[aside.name](hw))
    prefix, g.nodes = g.nodes[before:], g.nodes[:before]
    kept = {i.name for i in g.graph.initializer}
    others = [i for i in g.graph.input if i.name != image.name and i.name not in kept and i.name not in ASIDE]
    del g.graph.input[:]
    shape = [batch or "batch", hw[0], hw[1], 3]
    g.graph.input.extend([helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape), *others])
    return prefix


def _feed_aside(g: Grapher, aside: Any, value: NDArray[np.int64]) -> None:
    """The constant, once a picture of the batch, in the type that is asked for."""
    from onnx import helper

    pictures = g.op("Slice", g.op("Shape", "pixels"), g.const([0], np.int64), g.const([1], np.int64))
    shape = g.op("Concat", pictures, g.const(value.shape, np.int64), axis=0)
    wide = g.op("Cast", g.op("Expand", g.const(value[None], np.int64), shape), to=aside.type.tensor_type.elem_type)
    g.nodes.append(helper.make_node("Identity", [wide], [aside.name]))


def _output_shapes(
    model: Any, path: str, image: str, hw: tuple[int, int], batch: int | None
) -> dict[str, tuple[int, ...]]:
    """Output name -> shape for one picture, by shape inference with the inputs pinned."""
    onnx = _onnx()
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    for value in probe.graph.input:
        if value.name == image or value.name in ASIDE:
            tail = (3, *hw) if value.name == image else ASIDE[value.name](hw).shape
            shape = onnx.helper.make_tensor_value_info("", value.type.tensor_type.elem_type, [batch or 1, *tail])
            value.type.CopyFrom(shape.type)
    for value in probe.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        probe = onnx.shape_inference.infer_shapes(probe, data_prop=True)
    except Exception as e:
        raise EngineFault(f"{path}: its shapes contradict each other: {first_line(e)}; export it again") from e
    out = {}
    for value, declared in zip(probe.graph.output, model.graph.output, strict=True):
        inferred = [d.dim_value for d in value.type.tensor_type.shape.dim]
        stated = [d.dim_value for d in declared.type.tensor_type.shape.dim]
        out[value.name] = tuple(inferred if inferred and all(inferred[1:]) else stated)
    return out


def _named(g: Grapher, scores: tuple[str, int], labels: Sequence[str] | None) -> tuple[tuple[str, ...], str]:
    """Label names and the scores [B,N,labels]; a COCO network without labels is reduced to ours."""
    name, classes = scores
    if labels is not None:
        if len(labels) != classes:
            raise EngineFault(f"{g.name}: engine.labels needs one name a class ({classes}), got {len(labels)}")
        return tuple(labels), name
    table = {80: COCO_CLASSES, 91: COCO_CATEGORIES}.get(classes)
    if table is None:
        raise EngineFault(f"{g.name}: it has {classes} classes; give engine.labels, one name a class, in its order")
    columns = [g.reduce_max(_columns(g, name, table[label]), 2, 1) for label in LABELS]
    return LABELS, g.op("Concat", *columns, axis=2)


def _columns(g: Grapher, x: str, which: Sequence[int]) -> str:
    return g.op("Gather", x, g.const(list(which), np.int64), axis=2)


def _finish(g: Grapher, prefix: list[Any], boxes: str, scores: str, batch: int | None) -> None:
    """Top-K by best score, and the outputs every detector graph has."""
    from onnx import TensorProto, helper

    best = g.reduce_max(scores, 2, 0)
    count = g.op("Gather", g.op("Shape", best), g.const(1, np.int64), axis=0)
    k = g.op("Min", g.op("Unsqueeze", count, g.const([0], np.int64)), g.const([TOPK], np.int64))
    value, index = g.ops("TopK", 2, best, k, axis=1)
    label = g.op("ArgMax", scores, axis=2, keepdims=0)
    chosen = g.op("GatherElements", label, index, axis=1)
    wide = g.op("Expand", g.op("Unsqueeze", index, g.const([2], np.int64)), g.const([1, 1, 4], np.int64))
    picked = g.op("GatherElements", boxes, wide, axis=1)
    picked = g.op("Clip", picked, g.const(0.0), g.const(1.0))
    ends = {"boxes": picked, "scores": value, "labels": g.op("Cast", chosen, to=TensorProto.INT32)}
    for name, source in ends.items():
        g.nodes.append(helper.make_node("Identity", [source], [name]))
    nodes = [*prefix, *g.graph.node, *g.nodes]
    del g.graph.node[:], g.graph.output[:], g.graph.value_info[:]
    g.graph.node.extend(nodes)
    b = batch or "batch"
    for name, kind, shape in (
        ("boxes", TensorProto.FLOAT, [b, "candidates", 4]),
        ("scores", TensorProto.FLOAT, [b, "candidates"]),
        ("labels", TensorProto.INT32, [b, "candidates"]),
    ):
        g.graph.output.append(helper.make_tensor_value_info(name, kind, shape))

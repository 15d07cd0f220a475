"""Bring your own detector: preparation and decoding of a known family are added to its graph when it is imported.

Afterwards it is a graph like ours (u8 pixels in; boxes, scores, labels out), so that no runtime and no caller
knows model names. Families:

    yolox     raw YOLOX export [B,A,5+C] (objectness and classes after sigmoid, grid not applied); BGR 0..255
    nanodet   NanoDet (a cls and a dis output a stride) or NanoDet-Plus (one output); BGR, mean and std
    detr      RT-DETR, D-FINE and kin: class logits [B,Q,C] and boxes [B,Q,4] (cx, cy, w, h in 0..1); RGB 0..1
    detr-imagenet  the same for DETR and RF-DETR: RGB, ImageNet mean and std
    yolo-e2e  NMS-free YOLO exports [B,M,6] (x1, y1, x2, y2 in px, score, class); RGB 0..1

``labels`` are the class names of the network in its order. Without labels a COCO network (80 classes) is reduced
to ours: a label's score is the best of its COCO classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vedette.engines.api import LABELS, EngineFault
from vedette.engines.load import DEFAULT_SIZE, parse_size
from vedette.engines.runtimes.onnxruntime import first_line, read_model

#: COCO-80 classes of each of our labels
COCO_CLASSES: dict[str, tuple[int, ...]] = {
    "person": (0,),
    "bicycle": (1,),
    "car": (2,),
    "motorcycle": (3,),
    "bus": (5,),
    "truck": (7,),
    "animal": tuple(range(14, 24)),
    "bag": (24, 26, 28),
}
#: candidates kept before NMS
TOPK = 300
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Grapher:
    """Appends nodes to a graph; every method returns the name of what it made."""

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.graph, self.name = model, model.graph, name
        self.nodes: list[Any] = []
        #: classes, where only the labels can tell
        self.classes = 80
        self._n = 0

    def const(self, value: Any, dtype: type = np.float32) -> str:
        from onnx import numpy_helper

        self._n += 1
        name = f"vedette_const_{self._n}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        from onnx import helper

        names = [f"vedette_{kind}_{self._n + 1 + i}" for i in range(outputs)]
        self._n += outputs
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def reduce_max(self, x: str, axis: int, keepdims: int) -> str:
        """The largest along an axis; the axis became an input in opset 18."""
        if _opset(self.model) >= 18:
            return self.op("ReduceMax", x, self.const([axis], np.int64), keepdims=keepdims)
        return self.op("ReduceMax", x, axes=[axis], keepdims=keepdims)

    def cut(self, x: str, start: int, stop: int, axis: int = 2) -> str:
        """x[..., start:stop, ...] along an axis."""
        i = [self.const([v], np.int64) for v in (start, stop, axis)]
        return self.op("Slice", x, *i)

    def fault(self, wanted: str, got: object) -> EngineFault:
        return EngineFault(f"{self.name}: {wanted}, got {got}; is the family right, and is it the publisher's export?")


def adapt(path: str | Path, family: str, labels: Sequence[str] | None = None, size: str | None = None) -> bytes:
    """The model file with preparation and decoding inside, as bytes. Raises EngineFault in one sentence.

    size: canvas "WIDTHxHEIGHT" where the graph leaves it free (416x256 if None); refused where it does not fit.
    """
    if family not in FAMILIES:
        raise EngineFault(f"engine.family: needs one of {sorted(FAMILIES)}, got {family!r}")
    onnx = _onnx()
    model = _parsed(path)
    _refuse_bad_weights(model, path)
    grapher = Grapher(model, str(path))
    if labels is not None:
        grapher.classes = len(labels)
    prepare, decode = FAMILIES[family]
    image, batch, hw = _image_input(grapher, size)
    if _opset(model) < 13:
        try:
            model = onnx.version_converter.convert_version(model, 13)
        except RuntimeError as e:
            raise EngineFault(
                f"{path}: opset {_opset(model)} cannot be raised to 13: {first_line(e)}; export it again"
            ) from e
        grapher.model, grapher.graph = model, model.graph
    prefix = _rewire_input(grapher, image, batch, hw, prepare)
    shapes = _output_shapes(model, hw, batch)
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
    except onnx.checker.ValidationError as e:
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
    return model


def _opset(model: Any) -> int:
    return max((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)


def _refuse_bad_weights(model: Any, path: str | Path) -> None:
    """NaN or infinite weights would only show as no detections; they are found here."""
    from onnx import TensorProto, numpy_helper

    for tensor in model.graph.initializer:
        if tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            continue
        try:
            value = numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as e:
            raise EngineFault(f"{path}: weight {tensor.name} cannot be read: {e}; the file is damaged") from e
        if np.isnan(value).any():
            raise EngineFault(f"{path}: weight {tensor.name} holds NaN; the file is damaged or training diverged")


def _image_input(g: Grapher, size: str | None) -> tuple[Any, int | None, tuple[int, int]]:
    """The image input, its fixed batch size or None, and the canvas (height, width)."""
    held = {i.name for i in g.graph.initializer}
    inputs = [i for i in g.graph.input if i.name not in held]
    shapes = {i.name: [d.dim_value or d.dim_param or "?" for d in i.type.tensor_type.shape.dim] for i in inputs}
    if len(inputs) != 1 or len(shapes[inputs[0].name]) != 4 or shapes[inputs[0].name][1] not in (3, "?"):
        raise g.fault("a detector has one image input [B,3,H,W]", shapes)
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
    prefix, g.nodes = g.nodes[before:], g.nodes[:before]
    kept = {i.name for i in g.graph.initializer}
    others = [i for i in g.graph.input if i.name != image.name and i.name not in kept]
    del g.graph.input[:]
    shape = [batch or "batch", hw[0], hw[1], 3]
    g.graph.input.extend([helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape), *others])
    return prefix


def _output_shapes(model: Any, hw: tuple[int, int], batch: int | None) -> dict[str, tuple[int, ...]]:
    """Output name -> shape for a batch of one, by shape inference with the input pinned."""
    onnx = _onnx()
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    # the image is an inner value now: give its shape as an input again for the inference
    del probe.graph.input[:]
    produced = {o for n in probe.graph.node for o in n.output} | {i.name for i in probe.graph.initializer}
    free = {i for n in probe.graph.node for i in n.input if i} - produced
    for name in free:
        shape = [batch or 1, 3, *hw]
        probe.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    for value in probe.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        probe = onnx.shape_inference.infer_shapes(probe, data_prop=True)
    except onnx.shape_inference.InferenceError as e:
        raise EngineFault(
            f"{model.graph.name}: its shapes contradict each other: {first_line(e)}; export it again"
        ) from e
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
    if classes != 80:
        raise EngineFault(f"{g.name}: it has {classes} classes; give engine.labels, one name a class, in its order")
    columns = [g.reduce_max(_columns(g, name, COCO_CLASSES[label]), 2, 1) for label in LABELS]
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


# ------------------------------------------------------------------ preparation: BGR float 0..255 [B,3,H,W] -> network
def _bgr(_: Grapher, x: str) -> str:
    return x


def _bgr_normalised(g: Grapher, x: str) -> str:
    mean, std = ([103.53, 116.28, 123.675], [57.375, 57.12, 58.395])
    x = g.op("Sub", x, g.const(np.reshape(mean, (1, 3, 1, 1))))
    return g.op("Div", x, g.const(np.reshape(std, (1, 3, 1, 1))))


def _rgb_unit(g: Grapher, x: str) -> str:
    x = g.op("Gather", x, g.const([2, 1, 0], np.int64), axis=1)
    return g.op("Div", x, g.const(255.0))


def _rgb_imagenet(g: Grapher, x: str) -> str:
    x = g.op("Sub", _rgb_unit(g, x), g.const(np.reshape(IMAGENET[0], (1, 3, 1, 1))))
    return g.op("Div", x, g.const(np.reshape(IMAGENET[1], (1, 3, 1, 1))))


# ------------------------------------------------------------------ decoding: outputs -> boxes [B,N,4] in 0..1, scores [B,N,C]
Shapes = dict[str, tuple[int, ...]]


def _cells(hw: tuple[int, int], strides: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Cell indices [N,2] (x, y) and strides [N,1]."""
    cells, steps = [], []
    for s in strides:
        y, x = np.mgrid[: -(-hw[0] // s), : -(-hw[1] // s)]
        cells.append(np.stack([x, y], -1).reshape(-1, 2).astype(np.float32))
        steps.append(np.full((len(cells[-1]), 1), s, np.float32))
    return np.concatenate(cells), np.concatenate(steps)


def _normalised(g: Grapher, xyxy: str, hw: tuple[int, int]) -> str:
    h, w = hw
    return g.op("Div", xyxy, g.const([[[w, h, w, h]]]))


def _corners(g: Grapher, centre: str, size: str) -> str:
    half = g.op("Mul", size, g.const(0.5))
    return g.op("Concat", g.op("Sub", centre, half), g.op("Add", centre, half), axis=2)


def _yolox(g: Grapher, shapes: Shapes, hw: tuple[int, int]) -> tuple[str, tuple[str, int]]:
    name, shape = next(iter(shapes.items()))
    cells, stride = _cells(hw, (8, 16, 32))
    if len(shapes) != 1 or len(shape) != 3 or shape[1] != len(cells) or shape[2] < 6:
        raise g.fault(f"yolox at {hw[1]}x{hw[0]} answers one output [B,{len(cells)},5+classes]", shapes)
    at = g.op("Mul", g.op("Add", g.cut(name, 0, 2), g.const(cells[None])), g.const(stride[None]))
    size = g.op("Mul", g.op("Exp", g.cut(name, 2, 4)), g.const(stride[None]))
    scores = g.op("Mul", g.cut(name, 4, 5), g.cut(name, 5, shape[2]))
    return _normalised(g, _corners(g, at, size), hw), (scores, shape[2] - 5)


def _nanodet(g: Grapher, shapes: Shapes, hw: tuple[int, int]) -> tuple[str, tuple[str, int]]:
    if len(shapes) == 1:
        return _nanodet_plus(g, shapes, hw)
    cells, stride = _cells(hw, (8, 16, 32))
    by_rows: dict[int, list[tuple[str, int]]] = {}
    for name, shape in shapes.items():
        if len(shape) == 3:
            by_rows.setdefault(shape[1], []).append((name, shape[2]))
    rows = [-(-hw[0] // s) * -(-hw[1] // s) for s in (8, 16, 32)]
    levels = [by_rows.get(n, []) for n in rows]
    if len(shapes) != 6 or any(len(level) != 2 for level in levels):
        raise g.fault(f"nanodet at {hw[1]}x{hw[0]} answers classes and distances for {rows} points", shapes)
    dis = [next((x for x in level if "dis" in x[0] or "reg" in x[0]), None) for level in levels]
    cls = [next((x for x in level if x not in dis), None) for level in levels]
    if None in dis or None in cls:
        raise g.fault("nanodet names its distance outputs dis... or reg...", list(shapes))
    scores = g.op("Concat", *(c[0] for c in cls if c), axis=1)
    far = g.op("Concat", *(d[0] for d in dis if d), axis=1)
    bins = dis[0][1] // 4 if dis[0] else 0
    points = cells * stride + (stride - 1) / 2
    classes = cls[0][1] if cls[0] else 0
    return _distance_boxes(g, far, bins, points, stride, hw), (scores, classes)


def _nanodet_plus(g: Grapher, shapes: Shapes, hw: tuple[int, int]) -> tuple[str, tuple[str, int]]:
    name, shape = next(iter(shapes.items()))
    cells, stride = _cells(hw, (8, 16, 32, 64))
    if len(shape) != 3 or shape[1] != len(cells) or shape[2] <= 32:
        raise g.fault(f"nanodet-plus at {hw[1]}x{hw[0]} answers [B,{len(cells)},classes+32]", shapes)
    classes = shape[2] - 32  # reg_max 7 in every published NanoDet-Plus
    boxes = _distance_boxes(g, g.cut(name, classes, shape[2]), 8, cells * stride, stride, hw)
    return boxes, (g.cut(name, 0, classes), classes)


def _distance_boxes(
    g: Grapher, far: str, bins: int, points: np.ndarray, stride: np.ndarray, hw: tuple[int, int]
) -> str:
    """Distribution Focal Loss distances [B,N,4*bins] -> boxes."""
    n = len(points)
    far = g.op("Reshape", far, g.const([-1, n, 4, bins], np.int64))
    far = g.op("Mul", g.op("Softmax", far, axis=3), g.const(np.arange(bins)))
    far = g.op("Mul", g.op("ReduceSum", far, g.const([3], np.int64), keepdims=0), g.const(stride[None]))
    p = g.const(points[None])
    low, high = g.op("Sub", p, g.cut(far, 0, 2)), g.op("Add", p, g.cut(far, 2, 4))
    return _normalised(g, g.op("Concat", low, high, axis=2), hw)


def _detr(g: Grapher, shapes: Shapes, hw: tuple[int, int]) -> tuple[str, tuple[str, int]]:  # noqa: ARG001
    three = {k: s for k, s in shapes.items() if len(s) == 3}
    boxes = [k for k, s in three.items() if s[2] == 4]
    logits = [k for k, s in three.items() if s[2] != 4]
    if len(boxes) != 1 or len(logits) != 1:
        raise g.fault("detr answers class logits [B,Q,C] and boxes [B,Q,4]", shapes)
    centre, size = g.cut(boxes[0], 0, 2), g.cut(boxes[0], 2, 4)
    classes = three[logits[0]][2]
    return _corners(g, centre, size), (g.op("Sigmoid", logits[0]), classes)


def _yolo_e2e(g: Grapher, shapes: Shapes, hw: tuple[int, int]) -> tuple[str, tuple[str, int]]:
    name, shape = next(iter(shapes.items()))
    if len(shapes) != 1 or len(shape) != 3 or shape[2] != 6:
        raise g.fault("yolo-e2e answers one output [B,M,6] (x1, y1, x2, y2, score, class)", shapes)
    # one-hot scores: what follows treats all families alike
    ids = g.op("Cast", g.op("Squeeze", g.cut(name, 5, 6), g.const([2], np.int64)), to=7)
    hot = g.op("OneHot", ids, g.const(g.classes, np.int64), g.const([0.0, 1.0]), axis=2)
    return _normalised(g, g.cut(name, 0, 4), hw), (g.op("Mul", g.cut(name, 4, 5), hot), g.classes)


Prepare = Callable[[Grapher, str], str]
Decode = Callable[[Grapher, Shapes, tuple[int, int]], tuple[str, tuple[str, int]]]
FAMILIES: dict[str, tuple[Prepare, Decode]] = {
    "yolox": (_bgr, _yolox),
    "nanodet": (_bgr_normalised, _nanodet),
    "detr": (_rgb_unit, _detr),
    "detr-imagenet": (_rgb_imagenet, _detr),
    "yolo-e2e": (_rgb_unit, _yolo_e2e),
}

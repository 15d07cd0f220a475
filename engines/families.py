"""Detector families: how each wants its picture, and what its outputs mean. See `vedette.engines.adapt`.

One row of `FAMILIES` a family. A preparation takes BGR float 0..255 [B,3,H,W] to what the network wants; a decoding takes
its outputs to boxes [B,N,4] in 0..1, scores [B,N,C] and the number of classes. Scores with one column more than classes
hold there what the network calls by a number that has no name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vedette.engines.grapher import Grapher

#: ONNX element types: integers of 32 and 64 bits
INTEGERS = INT32, INT64 = (6, 7)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


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


def _detr(g: Grapher, shapes: Shapes, hw: tuple[int, int]) -> tuple[str, tuple[str, int]]:
    if sorted(len(s) for s in shapes.values()) == [2, 2, 3]:
        return _detr_decoded(g, shapes, hw)
    boxes, logits = _detr_outputs(g, shapes)
    return _centred(g, boxes), (g.op("Sigmoid", logits), shapes[logits][2])


def _detr_softmax(g: Grapher, shapes: Shapes, hw: tuple[int, int]) -> tuple[str, tuple[str, int]]:  # noqa: ARG001
    """The first DETR: the last class is "no object", and scores are a softmax over all."""
    boxes, logits = _detr_outputs(g, shapes)
    classes = shapes[logits][2] - 1
    return _centred(g, boxes), (g.cut(g.op("Softmax", logits, axis=2), 0, classes), classes)


def _detr_outputs(g: Grapher, shapes: Shapes) -> tuple[str, str]:
    """Names of the boxes and of the class logits."""
    three = {k: s for k, s in shapes.items() if len(s) == 3}
    boxes = [k for k, s in three.items() if s[2] == 4]
    logits = [k for k, s in three.items() if s[2] != 4]
    if len(boxes) != 1 or len(logits) != 1:
        raise g.fault("detr answers class logits [B,Q,C] and boxes [B,Q,4]", shapes)
    return boxes[0], logits[0]


def _centred(g: Grapher, boxes: str) -> str:
    return _corners(g, g.cut(boxes, 0, 2), g.cut(boxes, 2, 4))


def _detr_decoded(g: Grapher, shapes: Shapes, hw: tuple[int, int]) -> tuple[str, tuple[str, int]]:
    """The publishers' own export of RT-DETR and D-FINE: corners in px of ``orig_target_sizes``, score and label a query."""
    boxes = next(k for k, s in shapes.items() if len(s) == 3)
    whole = {o.name for o in g.graph.output if o.type.tensor_type.elem_type in INTEGERS}
    ids, scores = ([k for k in shapes if k != boxes and (k in whole) == integer] for integer in (True, False))
    if len(ids) != 1 or len(scores) != 1 or shapes[boxes][2] != 4:
        raise g.fault("a decoded detr answers labels (integers) [B,Q], boxes [B,Q,4] and scores [B,Q]", shapes)
    score = g.op("Unsqueeze", scores[0], g.const([2], np.int64))
    return _normalised(g, boxes, hw), (_spread(g, score, ids[0]), g.classes)


def _yolo_e2e(g: Grapher, shapes: Shapes, hw: tuple[int, int]) -> tuple[str, tuple[str, int]]:
    name, shape = next(iter(shapes.items()))
    raw = len(shape) == 3 and shape[1] == len(_cells(hw, (8, 16, 32))[0])  # yolox with one class has six numbers too
    if len(shapes) != 1 or len(shape) != 3 or shape[2] != 6 or raw:
        raise g.fault("yolo-e2e answers one output [B,M,6] (x1, y1, x2, y2, score, class), its best M alone", shapes)
    ids = g.op("Squeeze", g.cut(name, 5, 6), g.const([2], np.int64))
    return _normalised(g, g.cut(name, 0, 4), hw), (_spread(g, g.cut(name, 4, 5), ids), g.classes)


def _spread(g: Grapher, score: str, ids: str) -> str:
    """Scores [B,N,1] and class numbers [B,N] -> [B,N,classes+1]: what follows treats all families alike. The last column
    takes every number that the labels have no name for, so that a wrong count of them shows."""
    beyond = g.const(g.classes, np.int64)
    known = g.op("Cast", ids, to=INT64)
    known = g.op("Where", g.op("Less", known, g.const(0, np.int64)), beyond, g.op("Min", known, beyond))
    return g.op("Mul", score, g.op("OneHot", known, g.const(g.classes + 1, np.int64), g.const([0.0, 1.0]), axis=2))


Prepare = Callable[[Grapher, str], str]
Decode = Callable[[Grapher, Shapes, tuple[int, int]], tuple[str, tuple[str, int]]]
FAMILIES: dict[str, tuple[Prepare, Decode]] = {
    "yolox": (_bgr, _yolox),
    "nanodet": (_bgr_normalised, _nanodet),
    "detr": (_rgb_unit, _detr),
    "detr-imagenet": (_rgb_imagenet, _detr),
    "detr-softmax": (_rgb_imagenet, _detr_softmax),
    "yolo-e2e": (_rgb_unit, _yolo_e2e),
}

"""A real network in the clothes of every end-to-end family finds what it finds undressed.

The shipped detector is wrapped: it takes the picture as the family does (RGB, scaled or normalised) and answers as the
family does. Imported again, its detections must be those of the detector itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vedette.engines.api import LABELS, Batch, Letterbox
from vedette.engines.load import load, resolve
from vedette.engines.verify import synthetic_pictures

onnx = pytest.importorskip("onnx", reason="needs the models extra")

from onnx import TensorProto, compose, helper  # noqa: E402

from vedette.engines.coco import COCO_CATEGORIES, COCO_CLASSES  # noqa: E402
from vedette.engines.families import IMAGENET  # noqa: E402
from vedette.engines.grapher import Grapher  # noqa: E402

HW = (96, 160)


class Costume:
    """The shipped graph with another head and tail."""

    def __init__(self, imagenet: bool) -> None:
        self.model = compose.add_prefix(onnx.load(str(resolve("vedette-nano"))), "nano/")
        self.g = Grapher(self.model, "costume")
        x = "images"
        if imagenet:
            x = self.g.op("Mul", x, self.g.const(np.reshape(IMAGENET[1], (1, 3, 1, 1))))
            x = self.g.op("Add", x, self.g.const(np.reshape(IMAGENET[0], (1, 3, 1, 1))))
        x = self.g.op("Gather", self.g.op("Mul", x, self.g.const(255.0)), self.g.const([2, 1, 0], np.int64), axis=1)
        x = self.g.op("Cast", self.g.op("Round", x), to=TensorProto.UINT8)
        self.g.nodes.append(helper.make_node("Transpose", [x], ["nano/pixels"], perm=[0, 2, 3, 1]))
        self.before, self.g.nodes = self.g.nodes, []
        self.inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, *HW])]

    def centred(self) -> str:
        low, high = self.g.cut("nano/boxes", 0, 2), self.g.cut("nano/boxes", 2, 4)
        middle = self.g.op("Mul", self.g.op("Add", low, high), self.g.const(0.5))
        return self.g.op("Concat", middle, self.g.op("Sub", high, low), axis=2)

    def pixels(self, size: str) -> str:
        return self.g.op("Mul", "nano/boxes", size)

    def classes(self, table: dict[str, tuple[int, ...]] | None) -> str:
        """Class numbers i64 [B,K]: ours, or those of a COCO table."""
        if table is None:
            return self.g.op("Cast", "nano/labels", to=TensorProto.INT64)
        return self.g.op("Gather", self.g.const([table[label][0] for label in LABELS], np.int64), "nano/labels")

    def hot(self, ids: str, classes: int) -> str:
        return self.g.op("OneHot", ids, self.g.const(classes, np.int64), self.g.const([0.0, 1.0]), axis=2)

    def score(self) -> str:
        return self.g.op("Unsqueeze", "nano/scores", self.g.const([2], np.int64))

    def save(self, path: Path, outputs: dict[str, tuple[str, int, list[object]]]) -> Path:
        """outputs: name -> what holds it, element type, shape."""
        graph = self.model.graph
        nodes = [*self.before, *graph.node, *self.g.nodes]
        nodes += [helper.make_node("Identity", [held], [name]) for name, (held, _, _) in outputs.items()]
        del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:], self.model.metadata_props[:]
        graph.node.extend(nodes)
        graph.input.extend(self.inputs)
        graph.output.extend(
            helper.make_tensor_value_info(name, kind, shape) for name, (_, kind, shape) in outputs.items()
        )
        onnx.save(self.model, str(path))
        return path


F = TensorProto.FLOAT


def detr(path: Path) -> Path:
    """Logits over our labels."""
    c = Costume(imagenet=False)
    s, hot = c.score(), c.hot(c.classes(None), len(LABELS))
    logit = c.g.op("Log", c.g.op("Div", s, c.g.op("Sub", c.g.const(1.0), s)))
    # logit where the class is, -30 elsewhere
    at = c.g.op("Mul", hot, c.g.op("Add", logit, c.g.const(30.0)))
    logits = c.g.op("Sub", at, c.g.const(30.0))
    return c.save(path, {"logits": (logits, F, ["n", 256, 8]), "pred_boxes": (c.centred(), F, ["n", 256, 4])})


def detr_decoded(path: Path) -> Path:
    """Corners in pixels of the size that goes in, COCO-80 numbers."""
    c = Costume(imagenet=False)
    c.inputs.append(helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, ["n", 2]))
    size = c.g.op("Cast", "orig_target_sizes", to=F)
    size = c.g.op("Unsqueeze", c.g.op("Concat", size, size, axis=1), c.g.const([1], np.int64))
    ids, boxes = c.classes(COCO_CLASSES), c.pixels(size)
    outputs = {"labels": (ids, TensorProto.INT64, ["n", 256]), "boxes": (boxes, F, ["n", 256, 4])}
    return c.save(path, {**outputs, "scores": ("nano/scores", F, ["n", 256])})


def detr_imagenet(path: Path) -> Path:
    """Logits over COCO's 91 category numbers."""
    c = Costume(imagenet=True)
    s, hot = c.score(), c.hot(c.classes(COCO_CATEGORIES), 91)
    logit = c.g.op("Log", c.g.op("Div", s, c.g.op("Sub", c.g.const(1.0), s)))
    logits = c.g.op("Sub", c.g.op("Mul", hot, c.g.op("Add", logit, c.g.const(30.0))), c.g.const(30.0))
    return c.save(path, {"dets": (c.centred(), F, ["n", 256, 4]), "out": (logits, F, ["n", 256, 91])})


def detr_softmax(path: Path) -> Path:
    """The probability that no class has goes to "no object"."""
    c = Costume(imagenet=True)
    c.inputs.append(helper.make_tensor_value_info("pixel_mask", TensorProto.INT64, ["n", *HW]))
    unmasked = c.g.op("ReduceMin", c.g.op("Cast", "pixel_mask", to=F), c.g.const([1, 2], np.int64), keepdims=1)
    s = c.g.op("Mul", c.score(), unmasked)
    each = c.g.op("Mul", s, c.hot(c.classes(None), len(LABELS)))
    nothing = c.g.op("Sub", c.g.const(1.0), s)
    logits = c.g.op("Log", c.g.op("Add", c.g.op("Concat", each, nothing, axis=2), c.g.const(1e-9)))
    return c.save(path, {"logits": (logits, F, ["n", 256, 9]), "pred_boxes": (c.centred(), F, ["n", 256, 4])})


def yolo_e2e(path: Path) -> Path:
    """Rows of corners in px, score and COCO-80 number."""
    c = Costume(imagenet=False)
    boxes = c.pixels(c.g.const([[[HW[1], HW[0], HW[1], HW[0]]]]))
    ids = c.g.op("Unsqueeze", c.g.op("Cast", c.classes(COCO_CLASSES), to=F), c.g.const([2], np.int64))
    return c.save(path, {"output0": (c.g.op("Concat", boxes, c.score(), ids, axis=2), F, ["n", 256, 6])})


@pytest.fixture(scope="module")
def asked() -> Batch:
    pixels = np.stack(synthetic_pictures(2, HW))
    boxes = tuple(Letterbox.fit(HW, HW) for _ in pixels)
    return Batch(pixels, boxes, np.arange(2, dtype=np.int32), np.zeros(2, np.bool_), np.zeros(2))


@pytest.mark.parametrize(
    ("family", "dress", "labels"),
    [
        ("detr", detr, LABELS),
        ("detr", detr_decoded, None),
        ("detr-imagenet", detr_imagenet, None),
        ("detr-softmax", detr_softmax, LABELS),
        ("yolo-e2e", yolo_e2e, None),
    ],
)
def test_a_network_finds_the_same_in_every_family(tmp_path: Path, asked: Batch, family, dress, labels) -> None:
    """Boxes, scores and labels of two pictures in one batch come through the family's shape unchanged."""
    bare = load("vedette-nano", size=f"{HW[1]}x{HW[0]}", threads=1)
    engine = load(str(dress(tmp_path / "dressed.onnx")), family=family, labels=labels, threads=1)
    bare.score_floor = engine.score_floor = 0.02
    truth = bare.infer(asked).detections
    assert engine.spec.labels == LABELS
    assert engine.spec.input_hw == HW
    for got, want in zip(engine.infer(asked).detections, truth, strict=True):
        assert len(want) > 3
        assert np.array_equal(got.label, want.label)
        assert np.allclose(got.score, want.score, atol=1e-4)
        assert np.allclose(got.xyxy, want.xyxy, atol=1e-4)

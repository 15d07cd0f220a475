"""Published detectors, decoded with numpy, in our labels: teachers for training and peers for evaluation.

Every detector is called with a BGR picture and answers xyxy [N,4] in its pixels, scores [N] and labels [N]
(indices into vedette.engines.api.LABELS), before NMS unless it says otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort

from vedette.engines.api import LABELS, group_of
from vedette.kernels.nms import nms

Found = tuple[np.ndarray, np.ndarray, np.ndarray]

#: COCO-80 index -> our label
COCO_TO_LABEL = {0: 0, 1: 1, 2: 2, 3: 3, 5: 4, 7: 5, **dict.fromkeys(range(14, 24), 6), 24: 7, 26: 7, 28: 7}
COLUMNS = [[c for c, k in COCO_TO_LABEL.items() if k == i] for i in range(len(LABELS))]
GROUP = np.array([[group_of(x) for x in LABELS].index(group_of(name)) for name in LABELS])


def session(path: str | Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def letterbox(image: np.ndarray, hw: tuple[int, int], fill: int, centred: bool) -> tuple[np.ndarray, float, int, int]:
    """The picture scaled into a canvas, the scale, and the offset of its top-left corner."""
    (H, W), (h, w) = hw, image.shape[:2]
    r = min(H / h, W / w)
    nh, nw = min(H, round(h * r)), min(W, round(w * r))
    out = np.full((H, W, 3), fill, np.uint8)
    y, x = ((H - nh) // 2, (W - nw) // 2) if centred else (0, 0)
    out[y : y + nh, x : x + nw] = cv2.resize(image, (nw, nh), interpolation=cv2.INTER_AREA if r < 1 else 1)
    return out, r, x, y


def grid(hw: tuple[int, int], strides: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Cell indices [N,2] (x, y) and strides [N,1] of all levels."""
    cells, steps = [], []
    for s in strides:
        y, x = np.mgrid[: -(-hw[0] // s), : -(-hw[1] // s)]
        cells.append(np.stack([x, y], -1).reshape(-1, 2).astype(np.float32))
        steps.append(np.full((len(cells[-1]), 1), s, np.float32))
    return np.concatenate(cells), np.concatenate(steps)


def to_labels(coco: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores [N,80] -> best of our labels: scores [N], labels [N]."""
    ours = np.stack([coco[:, c].max(1) for c in COLUMNS], 1)
    return ours.max(1), ours.argmax(1)


class NanoDet:
    """NanoDet-g (free size) or NanoDet-m (416x416): GFL heads, centred letterbox filled with 0."""

    MEAN = np.array([103.53, 116.28, 123.675], np.float32)
    STD = np.array([57.375, 57.12, 58.395], np.float32)

    def __init__(self, path: str | Path, hw: tuple[int, int] = (416, 416), threads: int = 1) -> None:
        self.s, self.hw = session(path, threads), hw
        self.name = self.s.get_inputs()[0].name
        names = [o.name for o in self.s.get_outputs()]
        self.cls = [n for n in names if n.startswith("cls")]
        self.dis = [n for n in names if n.startswith("dis")]

    def __call__(self, image: np.ndarray, floor: float = 0.05) -> Found:
        canvas, r, px, py = letterbox(image, self.hw, 0, True)
        x = ((canvas.astype(np.float32) - self.MEAN) / self.STD).transpose(2, 0, 1)[None]
        started = time.perf_counter()
        out = self.s.run(self.cls + self.dis, {self.name: x})
        self.seconds = time.perf_counter() - started
        n = len(self.cls)
        scores, labels = to_labels(np.concatenate([o[0] for o in out[:n]]))
        d = np.concatenate([o[0] for o in out[n:]])
        d = d.reshape(len(d), 4, -1)
        e = np.exp(d - d.max(2, keepdims=True))
        cells, stride = grid(self.hw, (8, 16, 32))
        far = (e / e.sum(2, keepdims=True) * np.arange(d.shape[2])).sum(2) * stride
        p = cells * stride + (stride - 1) / 2
        boxes = (np.concatenate([p - far[:, :2], p + far[:, 2:]], 1) - [px, py, px, py]) / r
        m = scores > floor
        return boxes[m].astype(np.float32), scores[m], labels[m]


class YoloX:
    """YOLOX (COCO): top-left letterbox filled with 114, objectness times class."""

    def __init__(
        self, path: str | Path, hw: tuple[int, int] = (416, 416), threads: int = 1, person_only: bool = False
    ) -> None:
        self.s, self.hw, self.person_only = session(path, threads), hw, person_only

    def __call__(self, image: np.ndarray, floor: float = 0.05) -> Found:
        canvas, r, _, _ = letterbox(image, self.hw, 114, False)
        x = canvas.astype(np.float32).transpose(2, 0, 1)[None]
        started = time.perf_counter()
        o = self.s.run(None, {self.s.get_inputs()[0].name: x})[0][0]
        self.seconds = time.perf_counter() - started
        cells, stride = grid(self.hw, (8, 16, 32))
        c, wh = (o[:, :2] + cells) * stride, np.exp(o[:, 2:4]) * stride
        boxes = np.concatenate([c - wh / 2, c + wh / 2], 1) / r
        if self.person_only:
            scores, labels = o[:, 4] * o[:, 5], np.zeros(len(o), np.int64)
        else:
            scores, labels = to_labels(o[:, 4:5] * o[:, 5:])
        m = scores > floor
        return boxes[m].astype(np.float32), scores[m], labels[m]


def mirrored(detect: Callable[..., Found]) -> Callable[..., Found]:
    """The same detector on the mirrored picture, boxes mirrored back: a second opinion of one teacher."""

    def run(image: np.ndarray, floor: float = 0.05) -> Found:
        boxes, scores, labels = detect(np.ascontiguousarray(image[:, ::-1]), floor)
        w = image.shape[1]
        return np.stack([w - boxes[:, 2], boxes[:, 1], w - boxes[:, 0], boxes[:, 3]], 1), scores, labels

    return run


def suppress(found: Found, iou: float = 0.5) -> Found:
    """NMS within each group of labels."""
    boxes, scores, labels = found
    keep = nms(boxes, scores, GROUP[labels], iou, limit=300)
    return boxes[keep], scores[keep], labels[keep]

"""Does another file of the detector answer like the first one? Parity, measured on pictures.

`parity` runs two files (fp32 against fp16 storage, fp32 against INT8, ONNX against the PyTorch network) on the same
canvases and says how far their detections are apart; `tools/eval_detector.py` says what that costs in AP.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vedette.engines.detector import Runtime
from vedette.engines.runtimes.onnxruntime import OrtRuntime, sha256_of
from vedette.kernels.nms import iou_matrix

#: candidates under this score are not compared
SCORE = 0.3


class TorchRuntime:
    """A `VedetteNano` behind the runtime interface, for comparison; slower than ONNX Runtime, needs torch."""

    def __init__(self, net: Any) -> None:
        self._net = net.eval()
        self.inputs = {"pixels": None}
        self.outputs = dict.fromkeys(("boxes", "scores", "labels", "embeddings", "scene"))

    def run(self, feeds: Any) -> dict[str, NDArray[Any]]:
        import torch

        with torch.no_grad():
            answers = self._net(torch.from_numpy(feeds["pixels"]))
        return {name: a.numpy() for name, a in zip(self.outputs, answers, strict=True)}

    def close(self) -> None:
        """Nothing to free."""


def parity(first: Runtime, second: Runtime, canvases: Sequence[NDArray[np.uint8]]) -> dict[str, float]:
    """How the second answers the candidates that the first is sure of.

    found: share of them that the second has too (IoU 0.5 and more, same label, any score). box_iou: their mean
    overlap. score: mean absolute difference. embedding: smallest and mean cosine. scene: smallest cosine of a token.
    """
    overlaps: list[float] = []
    scores: list[float] = []
    cosines: list[float] = []
    scene = 1.0
    asked = 0
    for canvas in canvases:
        a, b = first.run({"pixels": canvas[None]}), second.run({"pixels": canvas[None]})
        scene = min(scene, float(_cosine(a["scene"][0], b["scene"][0]).min()))
        sure = np.flatnonzero(a["scores"][0] >= SCORE)
        asked += len(sure)
        overlap = iou_matrix(a["boxes"][0][sure], b["boxes"][0])
        overlap *= a["labels"][0][sure][:, None] == b["labels"][0][None]
        for i, row in zip(sure, overlap, strict=True):
            k = int(row.argmax())
            if row[k] < 0.5:
                continue
            overlaps.append(float(row[k]))
            scores.append(abs(float(a["scores"][0][i]) - float(b["scores"][0][k])))
            cosines.append(float(_cosine(a["embeddings"][0][i : i + 1], b["embeddings"][0][k : k + 1])[0]))
    return {
        "candidates": float(asked),
        "found": len(overlaps) / max(1, asked),
        "box_iou": float(np.mean(overlaps)) if overlaps else float("nan"),
        "score": float(np.mean(scores)) if scores else float("nan"),
        "embedding_min": float(np.min(cosines)) if cosines else float("nan"),
        "embedding_mean": float(np.mean(cosines)) if cosines else float("nan"),
        "scene_min": scene,
    }


def parity_report(
    first: str | Path, others: Sequence[str | Path], canvases: Sequence[NDArray[np.uint8]], torch: bool = False
) -> dict[str, Any]:
    """`parity` of each other file (and of the PyTorch network with the first file's weights) against the first."""
    reference = OrtRuntime(first)
    report: dict[str, Any] = {"reference": {"file": Path(first).name, "sha256": sha256_of(first)}}
    for path in others:
        report[Path(path).name] = {"sha256": sha256_of(path), **parity(reference, OrtRuntime(path), canvases)}
    if torch:
        from vedette.engines.export import detector_from_onnx

        report["pytorch"] = parity(reference, TorchRuntime(detector_from_onnx(first)), canvases)
    return report


def _cosine(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    a, b = a.astype(np.float64), b.astype(np.float64)
    length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosine: NDArray[Any] = (a * b).sum(-1) / np.maximum(length, 1e-12)
    return cosine

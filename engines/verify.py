"""``vedette engine verify``: every graph against the truth it has, a row a backend, state or output.

A RIFT graph has the float64 reference; a detector has the PyTorch network with its own weights, and itself without ONNX
Runtime's optimisations; any other graph has the latter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import EngineFault
from vedette.engines.temporal_spec import is_temporal, load_graph
from vedette.engines.temporal_verify import verify_stateless, verify_temporal
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
    else:
        rows = verify_stateless(model)
        if _is_detector(model):
            rows.append(verify_detector(model, _real(pictures) if pictures else synthetic_pictures(PICTURES)))
    return [{"graph": model.name, **row} for row in rows]


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


def _is_detector(model: Path) -> bool:
    import onnx

    return any(p.key == "vedette.labels" for p in onnx.load(str(model), load_external_data=False).metadata_props)

"""The shipped file is the single source of the weights: it reads back, exports again, and answers the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vedette.engines.api import EngineFault
from vedette.engines.parity import TorchRuntime, parity
from vedette.engines.runtimes.onnxruntime import OrtRuntime
from vedette.engines.zoo import WEIGHTS

torch = pytest.importorskip("torch", reason="needs the build extra")
onnx = pytest.importorskip("onnx", reason="needs the build extra")

from vedette.engines.export import detector_from_onnx, export_detector, state_from_onnx  # noqa: E402

pytestmark = pytest.mark.torch
SHIPPED = WEIGHTS / "vedette-nano.onnx"


def textures(n: int, hw: tuple[int, int] = (256, 416)) -> list[np.ndarray]:
    """Canvases with blobs at several scales: enough structure that the network says something everywhere."""
    import cv2

    r = np.random.default_rng(5)
    out = []
    for _ in range(n):
        layers = [cv2.resize(r.integers(0, 256, (h, h * 2, 3), dtype=np.uint8), hw[::-1]) for h in (4, 12, 40)]
        out.append(np.mean(layers, 0).astype(np.uint8))
    return out


def test_the_shipped_file_is_small_and_says_what_it_is() -> None:
    """At most 10 MB, with labels, name and training note inside, and no path of the machine that exported it."""
    assert SHIPPED.stat().st_size <= 10_000_000
    runtime = OrtRuntime(SHIPPED)
    assert runtime.metadata["vedette.name"] == "vedette-nano"
    assert "NanoDet-g" in runtime.metadata["vedette.training"]
    data = SHIPPED.read_bytes()
    for mark in (b"site-packages", b"/home/", b"/root/", b"/work/"):
        assert mark not in data
    assert list(runtime.outputs) == ["boxes", "scores", "labels", "embeddings", "scene"]


def test_onnx_answers_like_pytorch() -> None:
    """ONNX Runtime on the shipped file equals the PyTorch network with the weights read from it."""
    shipped, network = OrtRuntime(SHIPPED, threads=1), TorchRuntime(detector_from_onnx(SHIPPED))
    for canvas in textures(2):
        a, b = (r.run({"pixels": canvas[None]}) for r in (shipped, network))
        # both use fast convolutions (Winograd), which round differently
        assert np.abs(a["scores"] - b["scores"]).max() < 1e-3
        assert np.abs(a["scene"] - b["scene"]).max() < 1e-2
    report = parity(shipped, network, textures(2))
    assert report["candidates"] > 0
    assert report["found"] == 1.0
    assert report["box_iou"] > 0.99


@pytest.mark.slow
def test_exporting_again_changes_nothing(tmp_path: Path) -> None:
    """File -> network -> file answers the same; fp16 storage is already in the weights, so not a bit is lost."""
    again = export_detector(detector_from_onnx(SHIPPED), tmp_path / "again.onnx")
    report = parity(OrtRuntime(SHIPPED), OrtRuntime(again), textures(3))
    assert report["found"] == 1.0
    assert report["scene_min"] > 0.99999
    a, b = (OrtRuntime(p).run({"pixels": textures(1)[0][None]}) for p in (SHIPPED, again))
    assert np.abs(a["scores"] - b["scores"]).max() < 1e-5


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    """NaN in a weight, a weight of the wrong shape and a foreign file are each a sentence with the name."""
    network = detector_from_onnx(SHIPPED)
    shapes = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    model = onnx.load(str(SHIPPED))
    tensor = next(t for t in model.graph.initializer if t.name == "stem.0.weight")
    broken = onnx.numpy_helper.to_array(tensor).copy()
    broken[0, 0, 0, 0] = np.nan
    tensor.CopyFrom(onnx.numpy_helper.from_array(broken, tensor.name))
    onnx.save(model, str(tmp_path / "nan.onnx"))
    with pytest.raises(EngineFault, match=r"nan\.onnx: weight stem\.0\.weight holds NaN"):
        state_from_onnx(tmp_path / "nan.onnx", shapes)
    with pytest.raises(EngineFault, match=r"stem\.0\.weight needs \[9\], got \[32, 3, 3, 3\]"):
        state_from_onnx(SHIPPED, {"stem.0.weight": (9,)})
    with pytest.raises(EngineFault, match=r"needs \[1\], got nothing; is it a vedette-nano file"):
        state_from_onnx(SHIPPED, {"other.weight": (1,)})
    (tmp_path / "text.onnx").write_text("not a model, only words that fill the file with more than nothing" * 4)
    with pytest.raises(EngineFault, match=r"text\.onnx: not an ONNX file"):
        state_from_onnx(tmp_path / "text.onnx", shapes)

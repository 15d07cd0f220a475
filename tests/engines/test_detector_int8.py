"""INT8 export of the detector: a smaller file that sees the same things, for either target."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.test_detector_export import textures
from vedette.engines.api import EngineFault
from vedette.engines.parity import parity
from vedette.engines.runtimes.onnxruntime import OrtRuntime
from vedette.engines.zoo import WEIGHTS

onnx = pytest.importorskip("onnx", reason="needs the build extra")

from vedette.engines.quantize import quantize_detector  # noqa: E402

SHIPPED = WEIGHTS / "vedette-nano.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_int8_sees_what_fp32_sees(tmp_path: Path, target: str) -> None:
    """Most candidates stay, boxes overlap, and the target's rules hold: TensorRT gets no bias and no zero point."""
    canvases = textures(6)
    path = quantize_detector(SHIPPED, tmp_path / "int8.onnx", canvases, target=target)
    assert path.stat().st_size < 0.7 * SHIPPED.stat().st_size
    runtime = OrtRuntime(path)
    assert runtime.metadata["vedette.precision"] == "int8"
    report = parity(OrtRuntime(SHIPPED), runtime, canvases)
    assert report["candidates"] > 0
    assert report["found"] > 0.7
    assert report["box_iou"] > 0.8
    graph = onnx.load(str(path)).graph
    kinds = {t.name: t.data_type for t in graph.initializer}
    dequantised = [n for n in graph.node if n.op_type == "DequantizeLinear"]
    assert dequantised
    if target == "tensorrt":
        assert all(kinds.get(n.input[0]) != onnx.TensorProto.INT32 for n in dequantised)
        zeros = [t for t in graph.initializer if t.name.endswith("zero_point")]
        assert all(not onnx.numpy_helper.to_array(t).any() for t in zeros)


def test_an_unknown_target_is_refused(tmp_path: Path) -> None:
    """There are two targets, and the error names them."""
    with pytest.raises(EngineFault, match="onnxruntime or tensorrt, got 'abacus'"):
        quantize_detector(SHIPPED, tmp_path / "x.onnx", [], target="abacus")

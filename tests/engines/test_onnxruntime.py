"""The CPU runtime: names, ranks and sizes are checked before ONNX Runtime sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vedette.engines.api import EngineFault
from vedette.engines.load import load
from vedette.engines.runtimes.onnxruntime import OrtRuntime, default_threads
from vedette.engines.zoo import WEIGHTS

SHIPPED = WEIGHTS / "vedette-nano.onnx"


@pytest.fixture(scope="module")
def runtime():
    made = OrtRuntime(SHIPPED, threads=1)
    yield made
    made.close()


def test_ports_say_what_goes_in_and_out(runtime: OrtRuntime) -> None:
    """Inputs and outputs carry numpy dtypes, fixed sizes as numbers and free ones as names."""
    assert runtime.inputs["pixels"].dtype == "uint8"
    assert runtime.inputs["pixels"].shape == ("batch", "height", "width", 3)
    assert runtime.outputs["labels"].dtype == "int32"
    assert runtime.outputs["embeddings"].shape[-1] == 64
    assert default_threads() >= 1


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ({"image": np.zeros((1, 64, 64, 3), np.uint8)}, r"needs inputs \['pixels'\], got \['image'\]"),
        ({"pixels": np.zeros((64, 64, 3), np.uint8)}, r"input pixels needs uint8 .*got uint8 \[64, 64, 3\]"),
        ({"pixels": np.zeros((1, 64, 64, 4), np.uint8)}, r"got uint8 \[1, 64, 64, 4\]"),
        ({"pixels": np.zeros((1, 64, 64, 3), np.float32)}, r"got float32"),
    ],
)
def test_a_wrong_feed_is_named(runtime: OrtRuntime, feeds: dict, said: str) -> None:
    """A wrong name, rank, size or dtype is an EngineFault with both sides."""
    with pytest.raises(EngineFault, match=said):
        runtime.run(feeds)


def test_a_size_the_network_cannot_take_is_a_fault(runtime: OrtRuntime) -> None:
    """What only fails inside the runtime comes out as one sentence."""
    with pytest.raises(EngineFault, match="ONNX Runtime failed"):
        runtime.run({"pixels": np.zeros((1, 50, 70, 3), np.uint8)})


@pytest.mark.parametrize("keep", [0, 40, 5_000, -1_000])
def test_a_truncated_model_is_refused(tmp_path: Path, keep: int) -> None:
    """Every truncation of the shipped file is refused by name, by the runtime and by load."""
    path = tmp_path / "half.onnx"
    data = SHIPPED.read_bytes()
    path.write_bytes(data[:keep] if keep >= 0 else data[: len(data) + keep])
    with pytest.raises(EngineFault, match=r"half\.onnx"):
        load(str(path))


def test_a_flipped_weight_is_found_at_load(tmp_path: Path) -> None:
    """NaN weights in our own file are found by the warm-up picture, before a camera depends on them."""
    onnx = pytest.importorskip("onnx", reason="needs the models extra")
    model = onnx.load(str(SHIPPED))
    tensor = next(t for t in model.graph.initializer if t.name == "heads.0.out.weight")
    value = onnx.numpy_helper.to_array(tensor).copy()
    value[0] = np.nan
    tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    path = tmp_path / "flipped.onnx"
    onnx.save(model, str(path))
    with pytest.raises(EngineFault, match=r"vedette-nano: the network's .* hold NaN"):
        load(str(path))


def test_wrong_labels_for_our_file_are_refused() -> None:
    """Labels of another count than the network has are refused with both counts."""
    with pytest.raises(EngineFault, match=r"one name a class \(8\), got 2"):
        load("vedette-nano", labels=["person", "dog"])

"""The Triton kernel equals the reference in Triton's interpreter, on the shapes the CUDA kernel is tested with."""

from __future__ import annotations

import os

os.environ.setdefault("TRITON_INTERPRET", "1")

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
from tests.kernels.test_ring_attention import SHAPES, Shape, expected, random_case  # noqa: E402
from vedette.kernels.ring_triton import ring_step  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("numbers", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-5), (np.float16, 6e-3)], ids=["f32", "f16"])
def test_the_triton_step_equals_the_reference(numbers: tuple[int, ...], dtype: type, tolerance: float) -> None:
    """Outputs, rings and folds equal the float64 reference, unwritten streams and widths that are no power of two included."""
    shape = Shape(*numbers)
    case = random_case(shape, dtype)
    want = expected(shape, case)
    case.pop("out")
    tensors = {k: torch.from_numpy(v.copy()) for k, v in case.items()}
    got = {"out": ring_step(*tensors.values()), **tensors}
    seen = np.repeat((want["ring_k"][..., -1] > 0).any(-1), shape.heads // shape.kv_heads, 1)
    for name, value in want.items():
        found = got[name].numpy().astype(np.float64)
        if name == "out":
            found, value = found[seen], value[seen]
        bound = tolerance * max(1.0, float(np.abs(value[np.abs(value) < 1e3]).max(initial=0)))
        assert np.abs(found - value).max(initial=0) <= bound, name

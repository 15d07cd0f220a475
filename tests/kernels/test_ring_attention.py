"""The CUDA sources compute what the reference says: the same file compiled for the CPU, on awkward shapes; and they compile for every GPU."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vedette.engines.api import Letterbox
from vedette.kernels import compile as builder
from vedette.kernels import reference
from vedette.kernels.letterbox import letterbox_normalise


class Shape(ctypes.Structure):
    _fields_ = [(n, ctypes.c_int) for n in ("streams", "heads", "kv_heads", "slots", "width", "rotary", "folds")]


class Geometry(ctypes.Structure):
    _fields_ = [
        (n, ctypes.c_int)
        for n in ("source_h", "source_w", "pitch", "canvas_h", "canvas_w", "inner_h", "inner_w", "pad_y", "pad_x")
    ]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ctypes.CDLL]:
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("needs a C++ compiler")
    folder = tmp_path_factory.mktemp("kernels")
    return {n: ctypes.CDLL(str(builder.compile_cpu(n, folder / f"{n}.so"))) for n in builder.SOURCES}


def pointers(*arrays: Any) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(a.ctypes.data) for a in arrays]


def random_case(shape: Shape, dtype: Any, seed: int = 0) -> dict[str, Any]:
    g = np.random.default_rng(seed)
    n, h, kv, t, w, r, m = (getattr(shape, f) for f, _ in Shape._fields_)
    rounded = lambda a: a.astype(dtype)  # noqa: E731
    case = {
        "q": rounded(g.normal(size=(n, h, w))),
        "k": rounded(g.normal(size=(n, kv, w))),
        "v": rounded(g.normal(size=(n, kv, w))),
        "ring_k": rounded(g.normal(size=(n, kv, t, w)) / w),
        "ring_v": rounded(g.normal(size=(n, kv, t, w))),
        "slot": g.integers(0, t, n),
        "written": (g.random(n) > 0.3).astype(np.float32),
        "cos": np.cos(a := g.normal(size=(n, r // 2)) * 9).astype(np.float32),
        "sin": np.sin(a).astype(np.float32),
        "q_gain": g.uniform(0.5, 1.5, w).astype(np.float32),
        "decay": g.random((n, m)).astype(np.float32),
        "direction": g.normal(size=(kv, m, w - r - 1)).astype(np.float32),
        "gate": np.tanh(g.normal(size=h)).astype(np.float32),
        "fold_k": g.normal(size=(n, kv, m, w - r)).astype(np.float32),
        "fold_v": g.normal(size=(n, kv, m, w)).astype(np.float32),
        "fold_d": g.random((n, kv, m)).astype(np.float32),
        "out": np.zeros((n, h, w), dtype),
    }
    case["q"][..., -1] = case["k"][..., -1] = 0
    case["direction"] /= np.linalg.norm(case["direction"], axis=-1, keepdims=True) + 1e-9
    case["ring_k"][..., -1] = np.where(g.random((n, kv, t)) > 0.2, 1.0, -1e4)
    return case


def expected(shape: Shape, c: dict[str, Any]) -> dict[str, Any]:
    """The same step by kernels.reference in float64."""
    d = {k: v if k == "slot" else v.astype(np.float64) for k, v in c.items()}
    out, ring_k, ring_v, q, k = reference.ring_attention_step(
        d["q"], d["k"], d["v"], d["ring_k"], d["ring_v"], d["slot"], d["written"], d["cos"], d["sin"], d["q_gain"]
    )
    want = {"out": out, "ring_k": ring_k, "ring_v": ring_v}
    if shape.folds:
        live = np.arange(shape.width) < shape.width - 1
        weight = reference.fold_weight(k, d["direction"], shape.rotary) * d["written"][:, None, None]
        folds = reference.fold_update(
            d["fold_k"],
            d["fold_v"],
            d["fold_d"][..., None],
            d["decay"],
            weight,
            (k * live)[..., shape.rotary :],
            d["v"],
        )
        want |= {"fold_k": folds[0], "fold_v": folds[1], "fold_d": folds[2][..., 0]}
        want["out"] = out + d["gate"][:, None] * reference.ring_attend(q[..., shape.rotary :], folds[0], folds[1])
    return want


SHAPES = [
    (1, 1, 1, 1, 8, 4, 0),
    (3, 4, 2, 5, 8, 4, 2),
    (2, 8, 2, 64, 32, 16, 4),
    (1, 6, 3, 7, 40, 20, 1),
    (5, 3, 3, 257, 12, 4, 3),
    (2, 8, 1, 33, 128, 64, 8),
    (7, 2, 1, 2, 16, 8, 0),
]


@pytest.mark.parametrize("numbers", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-5), (np.float16, 6e-3)], ids=["f32", "f16"])
def test_the_fused_step_equals_the_reference(
    library: dict[str, ctypes.CDLL], numbers: tuple[int, ...], dtype: Any, tolerance: float
) -> None:
    """Outputs, rings and folds equal the float64 reference on shapes no one would choose, unwritten streams among them."""
    shape = Shape(*numbers)
    case = random_case(shape, dtype)
    want = expected(shape, case)
    call = getattr(library["ring_attention"], "cpu_ring_step_" + ("f32" if dtype == np.float32 else "f16"))
    call(shape, *pointers(*case.values()))
    # a stream without a single valid slot answers an arbitrary mean of its values, at every level
    seen = np.repeat((want["ring_k"][..., -1] > 0).any(-1), shape.heads // shape.kv_heads, 1)
    for a in (case["out"], want["out"]):
        a[~seen] = 0
    for name, value in want.items():
        bound = tolerance * max(1.0, float(np.abs(value[np.abs(value) < 1e3]).max()))
        assert np.abs(case[name].astype(np.float64) - value).max() <= bound, name


def test_a_negative_control_is_seen(library: dict[str, ctypes.CDLL]) -> None:
    """A wrong slot, an ignored write-enable and a lost decay each leave the tolerance by far."""
    shape = Shape(*SHAPES[1])
    for name, spoil in (
        ("ring_k", lambda c: c["slot"].__iadd__(1).__imod__(shape.slots)),
        ("ring_k", lambda c: c["written"].__imul__(0)),
        ("fold_d", lambda c: c["decay"].fill(1)),
    ):
        case = random_case(shape, np.float32)
        want = expected(shape, case)[name]
        spoil(case)
        library["ring_attention"].cpu_ring_step_f32(shape, *pointers(*case.values()))
        assert np.abs(case[name] - want).max() > 1e-2


@pytest.mark.parametrize(
    ("source", "canvas"),
    [((7, 5), (32, 32)), ((48, 64), (32, 64)), ((33, 100), (64, 32)), ((1, 1), (3, 5)), ((40, 40), (40, 40))],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float16, 4e-3)], ids=["f32", "f16"])
def test_letterbox_equals_the_reference(
    library: dict[str, ctypes.CDLL], source: tuple[int, int], canvas: tuple[int, int], dtype: Any, tolerance: float
) -> None:
    """Resized, padded, RGB, normalised and planar, from a picture whose rows are longer than its pixels."""
    g = np.random.default_rng(0)
    box = Letterbox.fit(source, canvas)
    padded = g.integers(0, 256, (source[0], source[1] + 3, 3), np.uint8)
    mean, scale = np.array([123.7, 116.3, 103.5], np.float32), np.array([0.017, 0.0175, 0.0174], np.float32)
    want = letterbox_normalise(padded[:, : source[1]], canvas, box.inner_hw, (box.pad_y, box.pad_x), mean, scale)
    out = np.zeros((3, *canvas), dtype)
    geometry = Geometry(*source, padded.strides[0], *canvas, *box.inner_hw, box.pad_y, box.pad_x)
    call = getattr(library["letterbox"], "letterbox_f32" if dtype == np.float32 else "letterbox_f16")
    call(geometry, *pointers(padded, mean, scale, out))
    assert np.abs(out.astype(np.float64) - want).max() < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("name", builder.SOURCES)
def test_the_sources_compile_for_every_gpu(name: str, tmp_path: Path) -> None:
    """nvcc makes one fatbin from Turing to Blackwell of each source."""
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc")
    assert builder.compile_fatbin(name, tmp_path / "x.fatbin").stat().st_size > 10_000

"""Every graph in the package: within its limits on this backend, and a real TensorRT-RTX plan for RTX 30, 40 and 50."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
from tests.engines.tensorrt_here import need_rtx  # noqa: E402
from vedette.engines import build, zoo  # noqa: E402
from vedette.engines.api import EngineFault  # noqa: E402
from vedette.engines.export import store_half  # noqa: E402
from vedette.engines.models.rift import RIFT  # noqa: E402
from vedette.engines.models.rift_export import export_rift  # noqa: E402
from vedette.engines.temporal_spec import RiftConfig, is_temporal, load_graph  # noqa: E402
from vedette.engines.temporal_weights import weights_of  # noqa: E402
from vedette.engines.verify import verify_detector, verify_graph  # noqa: E402
from vedette.streamer.cli import main  # noqa: E402

pytestmark = pytest.mark.torch

SHIPPED = zoo.shipped()


def plan_of(path: Path) -> bytes:
    """The plan of a shipped file as ``engine build`` makes it; a RIFT of any precision through its fp16 twin."""
    if is_temporal(path):
        _, spec = load_graph(path)
        graph, spec = export_rift(spec.config, weights_of(path), "kvu", "fp16", trained=spec.trained)
        return build.build_plan(graph, build.temporal_profile(spec, 16))
    graph = build.for_tensorrt(path.read_bytes())
    return build.build_plan(graph, build.plain_profile(graph, 16))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_shipped_graph_builds_for_rtx_with_every_input_in_use(path: Path) -> None:
    """SM86, SM89 and SM120 in one plan; an input that the parser drops would be an error of the build."""
    need_rtx()
    assert len(plan_of(path)) > 10_000


def test_the_default_rift_builds_for_rtx() -> None:
    """What training starts from builds too, 16 cameras, heads on."""
    need_rtx()
    config = RiftConfig(evidence=("fall",), scene_evidence=("fight",))
    torch.manual_seed(0)
    graph, spec = export_rift(config, RIFT(config).weights(), "kvu", "fp16")
    assert len(build.build_plan(graph, build.temporal_profile(spec, 16))) > 1_000_000


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_shipped_graph_is_within_its_limits(path: Path) -> None:
    """``engine verify`` finds every output of every shipped graph right on the CPU."""
    rows = verify_graph(path)
    assert rows
    assert [r for r in rows if not r["ok"]] == []


def test_verify_prints_the_detectors_parity(capsys: pytest.CaptureFixture[str]) -> None:
    """The command's table has the optimiser's error an output and the parity with PyTorch."""
    assert main(["engine", "verify", str(zoo.WEIGHTS / "vedette-nano.onnx")]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {r.get("output") for r in rows} >= {"boxes", "scores", "labels", "embeddings", "scene"}
    parity = rows[-1]
    assert parity["against"] == "pytorch"
    assert parity["candidates"] > 0
    assert parity["found"] >= 0.99


def test_verify_steps_the_events_graph_against_float64() -> None:
    """Every output of the shipped graph is within 1e-5 of float64 over 200 steps with memory."""
    path = zoo.WEIGHTS / "vedette-events.onnx"
    rows = [r for r in verify_graph(path) if r.get("against") == "float64"]
    assert {r["output"] for r in rows} == {
        f"{p}_{o}" for p in ("scene", "track") for o in ("logit", "n_mean", "n_total")
    }
    assert all(r["ok"] for r in rows), rows


def test_verify_sees_a_detector_whose_weights_were_rounded_away(tmp_path: Path) -> None:
    """Weights coarsened to 3 bits: the parity with the true network is gone, and the row says so."""
    model = onnx.load(str(zoo.WEIGHTS / "vedette-nano.onnx"))
    from vedette.engines import verify

    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:
            w = onnx.numpy_helper.to_array(tensor)
            step = abs(w).max() / 3
            tensor.CopyFrom(onnx.numpy_helper.from_array((w / step).round().astype(w.dtype) * step, tensor.name))
    store_half(model)
    path = tmp_path / "coarse.onnx"
    onnx.save(model, str(path))
    pictures = verify.synthetic_pictures(2)
    from vedette.engines.export import detector_from_onnx
    from vedette.engines.parity import TorchRuntime, parity
    from vedette.engines.runtimes.onnxruntime import OrtRuntime

    true = TorchRuntime(detector_from_onnx(zoo.WEIGHTS / "vedette-nano.onnx"))
    assert parity(true, OrtRuntime(path), pictures)["found"] < 0.9
    assert verify_detector(zoo.WEIGHTS / "vedette-nano.onnx", pictures)["ok"]


def test_a_missing_graph_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    """Sentences, not tracebacks."""
    with pytest.raises(EngineFault, match="does not exist"):
        verify_graph(tmp_path / "x.onnx")
    with pytest.raises(EngineFault, match=r"needs readable \.jpg or \.png pictures, got none"):
        verify_graph(zoo.WEIGHTS / "vedette-nano.onnx", tmp_path)

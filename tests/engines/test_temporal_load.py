"""Which backend serves the temporal engine and why; a plan that is built beside the CPU takes over between two steps."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
from tests.engines import trt_stand_in as stand_in  # noqa: E402
from tests.engines.rift_streams import SMALL, random_clip, random_model, worst  # noqa: E402
from tests.engines.test_temporal_tracks import frame  # noqa: E402
from tests.engines.test_trt import frames_of  # noqa: E402
from vedette.engines import build, temporal_load  # noqa: E402
from vedette.engines.api import EngineFault  # noqa: E402
from vedette.engines.models.rift_export import export_rift  # noqa: E402
from vedette.engines.runtimes import ringdevice, trt  # noqa: E402
from vedette.engines.runtimes.cuda import probe_driver  # noqa: E402
from vedette.engines.runtimes.ringdevice import DeviceRing  # noqa: E402
from vedette.engines.runtimes.ringstate import RingSession  # noqa: E402
from vedette.engines.temporal import TemporalEngine  # noqa: E402
from vedette.engines.temporal_load import backend_here, open_temporal  # noqa: E402
from vedette.engines.temporal_spec import TOKEN_DIM, load_graph, save_graph  # noqa: E402
from vedette.engines.temporal_tracks import TrackEvidence  # noqa: E402

pytestmark = pytest.mark.torch

CONFIG = replace(SMALL, token_dim=TOKEN_DIM, tracks=3)
CPU = {"provider": "CPUExecutionProvider", "device": "cpu"}


@pytest.fixture(scope="module")
def exported() -> Any:
    return export_rift(CONFIG, random_model(CONFIG).weights())


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A machine with a GPU and TensorRT, both played; builds wait for the event and give the graph itself as the plan."""
    may_build = threading.Event()

    def build_plan(graph: bytes, _profile: Any) -> bytes:
        assert may_build.wait(30)
        return graph

    monkeypatch.setattr(stand_in, "__version__", "0", raising=False)
    monkeypatch.setattr(temporal_load, "probe_driver", lambda: (1, "1 CUDA device(s)"))
    monkeypatch.setattr(build, "load_tensorrt", lambda: (stand_in, "tensorrt"))
    monkeypatch.setattr(trt, "load_tensorrt", lambda: (stand_in, "tensorrt"))
    monkeypatch.setattr(trt, "open_device", stand_in.HostDevice)
    monkeypatch.setattr(temporal_load, "build_plan", build_plan)
    return may_build


def joined(engine: TemporalEngine) -> None:
    """Wait until the plan's thread has ended."""
    for thread in threading.enumerate():
        if thread.name.startswith("plan-"):
            thread.join(30)
    assert engine is not None


def test_a_plan_built_beside_the_cpu_takes_over_between_two_steps(
    exported: Any, tmp_path: Path, gpu: threading.Event
) -> None:
    """The CPU answers while the plan is built; then TensorRT does, with empty memory, and evidence is unknown for 0.5 s."""
    save_graph(tmp_path / "m.onnx", *exported)
    engine, reason = open_temporal(tmp_path / "m.onnx", 1, plans=tmp_path / "plans")
    assert engine.runner.backend == "onnxruntime"
    assert reason.endswith("a TensorRT plan is being built and takes over when it is there")
    evidence = TrackEvidence(engine, untrained=True)
    for t in range(8):
        before = evidence.step([frame([1, 2], t * 0.1)])[0]
    assert not np.isnan(before.evidence).any()
    gpu.set()
    joined(engine)
    assert engine.runner.backend == "onnxruntime"  # between steps only
    after = [evidence.step([frame([1, 2], 0.8 + t * 0.1)])[0] for t in range(8)]
    assert engine.runner.backend == "tensorrt"
    assert [bool(np.isnan(j.evidence).any()) for j in after] == [True] * 5 + [False] * 3
    alone = TrackEvidence(TemporalEngine(RingSession(*exported, 1)), untrained=True)
    fresh = [alone.step([frame([1, 2], 0.8 + t * 0.1)])[0] for t in range(8)]
    np.testing.assert_allclose(after[-1].evidence, fresh[-1].evidence, atol=1e-5)
    again, reason = open_temporal(tmp_path / "m.onnx", 1, plans=tmp_path / "plans")
    assert (again.runner.backend, reason[:31]) == ("tensorrt", "tensorrt 0: 1 CUDA device(s) an")


@pytest.mark.usefixtures("gpu")
def test_a_plan_that_fails_leaves_the_cpu_serving(
    exported: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A refused build is told once, and every step is answered by the CPU as if nothing had been tried."""

    def refuse(_graph: bytes, _profile: Any) -> bytes:
        raise EngineFault("build: the parser refused the graph")

    monkeypatch.setattr(temporal_load, "build_plan", refuse)
    save_graph(tmp_path / "m.onnx", *exported)
    with caplog.at_level(logging.WARNING):
        engine, _ = open_temporal(tmp_path / "m.onnx", 1, plans=tmp_path / "plans")
        joined(engine)
    assert [r.getMessage() for r in caplog.records] == [
        "temporal plan: build: the parser refused the graph; onnxruntime serves on"
    ]
    evidence = TrackEvidence(engine, untrained=True)
    answers = [evidence.step([frame([1], t * 0.1)])[0].evidence for t in range(7)]
    assert not np.isnan(answers[-1]).any()
    assert engine.runner.backend == "onnxruntime"
    assert not list((tmp_path / "plans").glob("*.plan")) if (tmp_path / "plans").exists() else True


def test_a_runner_of_another_model_is_not_swapped_in(exported: Any) -> None:
    """Other shapes or another number of cameras: refused, the engine goes on."""
    engine = TemporalEngine(RingSession(*exported, 2))
    with pytest.raises(EngineFault, match="needs the same model for 2 cameras, got 1 cameras and the same config"):
        engine.swap(RingSession(*exported, 1))
    with pytest.raises(EngineFault, match="got 2 cameras and another config"):
        engine.swap(RingSession(*export_rift(SMALL, random_model(SMALL).weights()), 2))
    assert not engine.settle()


@pytest.mark.parametrize("flavour", ["kvu", "portable"])
def test_the_device_ring_obeys_the_law(flavour: str) -> None:
    """The code of the CUDA provider, run with the CPU's: every answer equals the offline pass, rings on the device throughout."""
    graph, spec = export_rift(SMALL, random_model(SMALL).weights(), flavour)
    engine, clip = TemporalEngine(DeviceRing(graph, spec, 2, **CPU)), random_clip(SMALL, 20)
    with torch.no_grad():
        want = random_model(SMALL)(clip).y.numpy()
    for t in range(20):
        for c, answer in enumerate(engine.step(frames_of(clip, t))):
            here = clip.present[c, t].numpy()
            assert worst(answer.latents[here], want[c, t][here]) < 2e-5


def test_the_device_ring_clears_only_what_it_is_told() -> None:
    """Clearing two streams of one camera leaves every other stream's answers bitwise as they were."""
    graph, spec = export_rift(SMALL, random_model(SMALL).weights())
    clip, rings = random_clip(SMALL, 6), [DeviceRing(graph, spec, 2, **CPU), RingSession(graph, spec, 2)]
    engines = [TemporalEngine(r) for r in rings]
    for t in range(5):
        for engine in engines:
            engine.step(frames_of(clip, t))
    mask = np.zeros(SMALL.streams, np.bool_)
    mask[[2, 4]] = True
    for ring in rings:
        ring.clear(1, mask)
    one, two = (e.step(frames_of(clip, 5)) for e in engines)
    assert all(np.array_equal(a.latents, b.latents) for a, b in zip(one, two, strict=True))
    with pytest.raises(EngineFault, match=r"steps all 2 cameras at once on a device, got 1\.\.1"):
        rings[0].run(1, 1, {})


def test_without_the_cuda_provider_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel without CUDA names its providers and the package; with it and no driver, the driver's sentence."""
    if ringdevice.CUDA not in __import__("onnxruntime").get_available_providers():
        with pytest.raises(EngineFault, match="pip install onnxruntime-gpu"):
            ringdevice.cuda_provider()
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [ringdevice.CUDA])
    monkeypatch.setattr(ringdevice, "probe_driver", lambda: (0, "no CUDA driver"))
    with pytest.raises(EngineFault, match="no CUDA driver"):
        ringdevice.cuda_provider()


def test_tensorrt_takes_the_fp16_twin(tmp_path: Path) -> None:
    """Beside an int8 graph for the CPU the fp16 twin is taken; without one the int8 graph is refused for TensorRT."""
    from vedette.engines import temporal_load

    model = tmp_path / "m.onnx"
    weights = random_model(CONFIG).weights()
    save_graph(model, *export_rift(CONFIG, weights, "kvu", "int8"))
    graph, spec = load_graph(model)
    with pytest.raises(EngineFault, match=r"is int8 for the CPU, got no m-fp16\.onnx"):
        temporal_load._for_gpu(model, graph, spec)
    save_graph(tmp_path / "m-fp16.onnx", *export_rift(CONFIG, weights, "kvu", "fp16"))
    assert temporal_load._for_gpu(model, graph, spec)[1].precision == "fp16"


def test_auto_says_why(exported: Any, tmp_path: Path) -> None:
    """Without a driver auto serves on the CPU and says so; tensorrt demanded is a fault; an unknown backend names the known."""
    save_graph(tmp_path / "m.onnx", *exported)
    if probe_driver()[0]:
        pytest.skip("this machine has a GPU")
    engine, reason = open_temporal(tmp_path / "m.onnx", 2)
    assert engine.runner.backend == "onnxruntime"
    assert reason.startswith("onnxruntime on the CPU: no CUDA provider (")
    assert "; no TensorRT (" in reason
    assert backend_here().startswith("onnxruntime on the CPU: no CUDA provider (")
    with pytest.raises(EngineFault, match="tensorrt: no CUDA driver"):
        open_temporal(tmp_path / "m.onnx", 2, backend="tensorrt")
    with pytest.raises(EngineFault, match="got 'gpu'"):
        open_temporal(tmp_path / "m.onnx", 2, backend="gpu")

"""The TensorRT runtime obeys the law on a stand-in that is held against the real bindings; on a GPU it is the real thing."""

from __future__ import annotations

import inspect
import os
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
from tests.engines import trt_stand_in as stand_in  # noqa: E402
from tests.engines.rift_streams import SMALL, random_clip, random_model, worst  # noqa: E402
from tests.engines.tensorrt_here import need_rtx  # noqa: E402
from vedette.engines.api import EngineFault  # noqa: E402
from vedette.engines.build import load_tensorrt  # noqa: E402
from vedette.engines.models.rift_export import export_rift  # noqa: E402
from vedette.engines.runtimes.cuda import open_device, probe_driver  # noqa: E402
from vedette.engines.runtimes.ringstate import RingSession  # noqa: E402
from vedette.engines.runtimes.trt import USED_API, TrtRing  # noqa: E402
from vedette.engines.temporal import TemporalEngine, TemporalFrame  # noqa: E402

pytestmark = pytest.mark.torch


def ring(flavour: str = "kvu", cameras: int = 2, **options: Any) -> tuple[TrtRing, stand_in.HostDevice]:
    graph, spec = export_rift(SMALL, random_model(SMALL).weights(), flavour)
    device = stand_in.HostDevice()
    return TrtRing(graph, spec, cameras, trt=stand_in, device=device, **options), device


def frames_of(clip: Any, t: int) -> list[TemporalFrame]:
    return [
        TemporalFrame(
            c, float(clip.time_s[c, t]), clip.tokens[c, t].numpy(), clip.present[c, t, SMALL.latents :].numpy(),
            context=clip.context[c, t].numpy(), context_valid=clip.context_valid[c, t].numpy(),
        )
        for c in range(len(clip.tokens))
    ]  # fmt: skip


@pytest.mark.parametrize("flavour", ["kvu", "portable"])
@pytest.mark.parametrize("graph", [True, False])
def test_the_runtime_obeys_the_law(flavour: str, graph: bool) -> None:
    """Bound once, aliased or copied back, captured or not: every answer equals the offline pass where a stream is present."""
    runner, device = ring(flavour, graph=graph)
    engine, clip, model = TemporalEngine(runner), random_clip(SMALL, 20), random_model(SMALL)
    with torch.no_grad():
        want = model(clip).y.numpy()
    for t in range(20):
        for c, answer in enumerate(engine.step(frames_of(clip, t))):
            here = clip.present[c, t].numpy()
            assert worst(answer.latents[here], want[c, t][here]) < 2e-5
    assert (device.graphs, device.launches) == ((1, 18) if graph else (0, 0))


def test_births_epochs_and_absent_cameras_equal_onnx_runtime() -> None:
    """Clears and inert cameras do the same on the device as in ONNX Runtime's host memory."""
    runner, _ = ring(cameras=3)
    graph, spec = export_rift(SMALL, random_model(SMALL).weights())
    a, b = TemporalEngine(runner), TemporalEngine(RingSession(graph, spec, 3), gap=9)
    clip, rng = random_clip(SMALL, 25, cameras=3), np.random.default_rng(0)
    for t in range(25):
        frames = [f for f in frames_of(clip, t) if rng.random() < 0.7]
        frames = [replace(f, born=rng.random(SMALL.tracks) < 0.1, reset=bool(rng.random() < 0.05)) for f in frames]
        for left, right in zip(a.step(frames), b.step(frames), strict=True):
            here = np.concatenate(
                (np.ones(SMALL.latents, bool), frames[[f.slot for f in frames].index(left.slot)].present)
            )
            assert worst(left.latents[here], right.latents[here]) < 1e-5


def test_a_plan_that_cannot_run_here_is_refused() -> None:
    """deserialize answers None; the fault carries TensorRT's own words and the fix."""
    _, spec = export_rift(SMALL, random_model(SMALL).weights())
    with pytest.raises(EngineFault, match=r"cannot run here, got magic tag.*build it again"):
        TrtRing(b"", spec, 1, trt=stand_in, device=stand_in.HostDevice())


def test_a_plan_of_another_graph_is_refused() -> None:
    """A plan that lost or gained a tensor against the sidecar is refused by the tensor's name."""
    _, spec = export_rift(SMALL, random_model(SMALL).weights())
    other = replace(SMALL, half_lives_s=())
    graph, _ = export_rift(other, random_model(other).weights())
    with pytest.raises(EngineFault, match=r"missing \['D0', 'D1', 'MK0', 'MK1', 'MV0', 'MV1', 'dec'\]"):
        TrtRing(graph, spec, 1, trt=stand_in, device=stand_in.HostDevice())


def test_too_many_cameras_for_the_plan_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape beyond the plan's profile is refused with the number it must be built for."""
    monkeypatch.setattr(stand_in.IExecutionContext, "MOST_ROWS", 7)
    with pytest.raises(EngineFault, match="build it for 2"):
        ring()


def test_a_part_of_the_cameras_is_refused() -> None:
    """The runtime steps all cameras at once and says so."""
    with pytest.raises(EngineFault, match=r"steps all 2 cameras at once, got 1\.\.1"):
        ring()[0].run(1, 1, {})


def test_without_a_driver_there_is_a_sentence() -> None:
    """On a machine without a GPU nothing raises but EngineFault, and it names the CPU backend."""
    count, why = probe_driver()
    if count:
        pytest.skip("this machine has a GPU")
    assert why
    with pytest.raises(EngineFault, match="use backend onnxruntime"):
        open_device()


def test_the_stand_in_is_the_real_api() -> None:
    """Every class, method and argument name the runtime and the stand-in use exists in the installed bindings."""
    for name, members in USED_API.items():
        assert all(hasattr(getattr(stand_in, name), m) for m in members), name
    need_rtx()
    trt, _ = load_tensorrt()
    for name, members in USED_API.items():
        for member in members:
            real = getattr(getattr(trt, name), member)
            ours = getattr(getattr(stand_in, name), member)
            if not inspect.isfunction(ours):
                continue
            for argument in list(inspect.signature(ours).parameters)[1:]:
                assert re.search(rf"\b{argument}\b", real.__doc__ or ""), f"{name}.{member} has no argument {argument}"


@pytest.mark.gpu
def test_the_law_on_a_real_device() -> None:
    """T1-T8 on TensorRT itself: plans built here, every answer within 1e-2 relative of the offline pass."""
    if not probe_driver()[0]:
        if os.environ.get("VEDETTE_REQUIRE_GPU"):
            pytest.fail("VEDETTE_REQUIRE_GPU is set and there is no CUDA device")
        pytest.skip("needs a CUDA device")
    from vedette.engines.build import build_plan, temporal_profile

    graph, spec = export_rift(SMALL, random_model(SMALL).weights())
    engine = TemporalEngine(TrtRing(build_plan(graph, temporal_profile(spec, 2)), spec, 2))
    clip = random_clip(SMALL, 20)
    with torch.no_grad():
        want = random_model(SMALL)(clip).y.numpy()
    for t in range(20):
        for c, answer in enumerate(engine.step(frames_of(clip, t))):
            here = clip.present[c, t].numpy()
            assert np.linalg.norm(answer.latents[here] - want[c, t][here]) < 1e-2 * np.linalg.norm(want[c, t][here])

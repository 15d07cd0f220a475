"""The law of the temporal engine: a stream of steps equals the offline masked pass, at every level (T1-T7, T9).

Levels are numpy float64, PyTorch float64 and float32, and ONNX Runtime (in place, copying, portable). Each law has negative
controls: a spoilt mask, phase, clock or write-enable must be seen, or the law's test proves nothing.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from tests.engines.rift_streams import (  # noqa: E402
    LEVELS,
    RING_ONLY,
    SMALL,
    Mutation,
    offline,
    part,
    random_clip,
    random_model,
    streamed,
    worst,
)
from vedette.engines.models import rift, rift_offline  # noqa: E402
from vedette.engines.temporal_spec import INVALID, RiftConfig  # noqa: E402

pytestmark = pytest.mark.torch

ALL = pytest.mark.parametrize("level", LEVELS)


@ALL
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_t1_step_equals_offline_at_any_depth(level: str, layers: int) -> None:
    """T1: every frame, warm-up included, equals its row of the banded-causal pass over the whole clip."""
    config = replace(RING_ONLY, layers=layers)
    model, clip = random_model(config), random_clip(config, 23, drop=0.0)
    assert worst(streamed(level, model, clip).y, offline(model, clip)) < LEVELS[level][1] * layers


@ALL
def test_t2_a_finite_recompute_is_enough_and_one_frame_less_is_not(level: str) -> None:
    """T2: the last R = L(T-1)+1 frames give the streamed answer; the last R-1 frames do not."""
    model, clip = random_model(RING_ONLY), random_clip(RING_ONLY, 25, drop=0.0)
    y, r = streamed(level, model, clip).y[:, -1], RING_ONLY.receptive_field
    assert r == 9
    assert worst(offline(model, part(clip, slice(-r, None)))[:, -1], y) < LEVELS[level][1] * 2
    assert worst(offline(model, part(clip, slice(1 - r, None)))[:, -1], y) > 1e-4


@ALL
def test_t3_what_left_the_window_leaves_no_trace(level: str) -> None:
    """T3: two different histories with the same last R frames end in bitwise the same answer."""
    model, clip = random_model(RING_ONLY), random_clip(RING_ONLY, 25, drop=0.0)
    other = random_clip(RING_ONLY, 25, drop=0.0, seed=9)
    r = RING_ONLY.receptive_field
    other.tokens[:, -r:], other.time_s[:] = clip.tokens[:, -r:], clip.time_s
    a, b = streamed(level, model, clip).y, streamed(level, model, other).y
    assert worst(a[:, 0], b[:, 0]) > 1e-2
    assert np.array_equal(a[:, -1], b[:, -1])


@ALL
@pytest.mark.parametrize("phase", [1, 4, 1003])
def test_t4_the_slot_a_stream_starts_at_does_not_matter(level: str, phase: int) -> None:
    """T4: attention does not read the order of slots, so any write phase gives the same answers."""
    model, clip = random_model(SMALL), random_clip(SMALL, 17)
    assert worst(streamed(level, model, clip, phase=phase).y, streamed(level, model, clip).y) < LEVELS[level][1]


@ALL
def test_t5_the_clock_may_start_anywhere(level: str) -> None:
    """T5: a clock that is 1e7 frames old gives the same answers, because angles are made in float64 on the host."""
    model, clip = random_model(SMALL), random_clip(SMALL, 17)
    late = replace(clip, time_s=clip.time_s + 1e6)
    assert worst(streamed(level, model, late).y, streamed(level, model, clip).y) < max(1e-6, LEVELS[level][1])


@ALL
@pytest.mark.parametrize("seed", range(3))
def test_t6_drops_jitter_and_absence_stay_exact(level: str, seed: int) -> None:
    """T6: 20 % of tokens lost a stream, jittered clocks, context on and off, folds, two cameras: still the offline pass."""
    model, clip = random_model(SMALL, seed), random_clip(SMALL, 40, seed=seed)
    assert worst(streamed(level, model, clip).y, offline(model, clip)) < 2 * LEVELS[level][1]


@ALL
def test_t7_a_camera_does_not_notice_its_neighbours(level: str) -> None:
    """T7: a camera stepped alone equals the same camera in a batch of four."""
    model, clip = random_model(SMALL), random_clip(SMALL, 15, cameras=4)
    together = streamed(level, model, clip).y
    for c in range(4):
        alone = streamed(level, model, part(clip, slice(None), slice(c, c + 1))).y
        assert worst(alone[0], together[c]) < LEVELS[level][1]


@ALL
def test_t9_the_cached_step_is_not_a_window_recompute(level: str) -> None:
    """T9: with two layers, re-running the last T frames is another function; training must use the band instead."""
    model, clip = random_model(RING_ONLY), random_clip(RING_ONLY, 25, drop=0.0)
    window = part(clip, slice(-RING_ONLY.window, None))
    assert worst(offline(model, window)[:, -1], streamed(level, model, clip).y[:, -1]) > 1e-2


def test_cameras_out_of_step_stay_exact() -> None:
    """A camera at half the frame rate, absent every other step, equals its own clip run alone."""
    model, clip = random_model(SMALL), random_clip(SMALL, 20, drop=0.0)
    clip.present[1, 1::2] = False
    half = part(clip, slice(0, None, 2), slice(1, 2))
    y = streamed("torch64", model, clip).y
    assert worst(y[1, 0::2], offline(model, half)[0]) < 1e-12


def _skip_a_slot(feeds: dict[str, Any], t: int) -> None:
    if t == 12:
        feeds["slot"] = (feeds["slot"] + 1) % SMALL.window


def _write_what_was_absent(feeds: dict[str, Any], _t: int) -> None:
    feeds["we"] = np.ones_like(feeds["we"])


def _lose_a_write(feeds: dict[str, Any], t: int) -> None:
    if t == 12:
        feeds["we"] = np.zeros_like(feeds["we"])


def _freeze_decay(feeds: dict[str, Any], _t: int) -> None:
    feeds["dec"] = np.ones_like(feeds["dec"])


def _open_the_cross_mask(feeds: dict[str, Any], _t: int) -> None:
    feeds["xmask"] = np.zeros_like(feeds["xmask"])


def _stop_the_clock(feeds: dict[str, Any], _t: int) -> None:
    feeds["cos"], feeds["sin"] = np.ones_like(feeds["cos"]), np.zeros_like(feeds["sin"])


@ALL
@pytest.mark.parametrize(
    "spoil",
    [_skip_a_slot, _write_what_was_absent, _lose_a_write, _freeze_decay, _open_the_cross_mask, _stop_the_clock],
    ids=lambda f: f.__name__.strip("_"),
)
def test_negative_controls_are_seen(level: str, spoil: Mutation) -> None:
    """A wrong slot, write-enable, decay, mask or clock moves the answer by more than a thousand tolerances."""
    model, clip = random_model(SMALL), random_clip(SMALL, 24)
    assert worst(streamed(level, model, clip, spoil).y, offline(model, clip)) > 1e-2


@pytest.mark.parametrize("width", [4, 6, 10**6])
def test_negative_control_a_wrong_band_is_seen(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """An offline pass with any other band than the ring's does not equal the steps."""
    model, clip = random_model(SMALL), random_clip(SMALL, 24)
    y = streamed("torch64", model, clip).y
    monkeypatch.setattr(rift, "band", lambda present, _window: rift_offline.band(present, width))
    assert worst(offline(model, clip), y) > 1e-2


def test_negative_control_the_obvious_band_is_wrong_under_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting writes but forgetting that a step without a write overwrites the oldest slot is seen."""
    model, clip = random_model(RING_ONLY), random_clip(RING_ONLY, 24, drop=0.3)

    def naive(present: torch.Tensor, window: int) -> torch.Tensor:
        w = present.transpose(1, 2).long()
        count = w.cumsum(-1)
        age = count[..., :, None] - count[..., None, :]
        causal = torch.ones(age.shape[-2:], dtype=torch.bool).tril()
        return (age < window) & causal & present.transpose(1, 2)[:, :, None, :]

    y = streamed("torch64", model, clip).y
    monkeypatch.setattr(rift, "band", naive)
    assert worst(offline(model, clip), y) > 1e-2


def test_negative_control_an_empty_slot_counted_as_valid_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the validity channel the warm-up attends to empty slots."""
    model, clip = random_model(SMALL), random_clip(SMALL, 4, drop=0.0)
    start = rift.RIFT.init_state

    def careless(self: rift.RIFT, *args: Any) -> Any:
        return {k: v.clamp_min(0) for k, v in start(self, *args).items()}

    want = offline(model, clip)
    monkeypatch.setattr(rift.RIFT, "init_state", careless)
    assert worst(streamed("torch64", model, clip).y, want) > 1e-2


def test_naive_float32_angles_would_break_t5() -> None:
    """The reason for host float64: angles made in float32 of a clock 1e6 s old are visibly wrong."""
    speed = np.float32(2 * np.pi / 0.5)
    exact = np.cos(2 * np.pi / 0.5 * (1e6 + 0.37))
    assert abs(np.cos(np.float32(1e6 + 0.37) * speed) - exact) > 1e-2


def test_gradients_flow_through_the_offline_twin() -> None:
    """Every parameter of the offline pass gets a finite gradient, absent streams and closed masks included."""
    model, clip = copy.deepcopy(random_model(SMALL)), random_clip(SMALL, 12, drop=0.4)
    clip.present[:, 0, SMALL.latents :] = False
    out = model(clip)
    (
        out.y.square().mean()
        + out.evidence.mean()
        + out.identity.square()[..., 0].mean()
        + out.forecast.mean()
        + out.scene.mean()
    ).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name


def test_fold_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fold of a clip is the same in chunks of 3 frames as in one piece."""
    model, clip = random_model(SMALL), random_clip(SMALL, 20)
    whole = offline(model, clip)
    monkeypatch.setattr(rift_offline, "FOLD_CHUNK", 3)
    assert worst(offline(model, clip), whole) < 1e-12


def test_a_closed_gate_is_a_bitwise_no_op() -> None:
    """Fold gate 0, the untrained default, gives bitwise what a model without folds gives."""
    model = copy.deepcopy(random_model(SMALL))
    plain = rift.RIFT(replace(SMALL, half_lives_s=())).double().eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    for layer in model.layers:
        torch.nn.init.zeros_(layer.fold_gate)
    clip = random_clip(SMALL, 12)
    assert np.array_equal(streamed("torch64", model, clip).y, streamed("torch64", plain, clip).y)


def test_folds_remember_what_the_ring_forgot() -> None:
    """With folds an event older than the receptive field still changes the answer; without, it cannot."""
    for config, remembers in ((SMALL, True), (replace(SMALL, half_lives_s=()), False)):
        model, clip = random_model(config), random_clip(config, 30, drop=0.0)
        other = replace(clip, tokens=clip.tokens.clone())
        other.tokens[:, 2] += 3
        changed = worst(streamed("torch64", model, clip).y[:, -1], streamed("torch64", model, other).y[:, -1])
        assert (changed > 1e-6) is remembers


def test_keys_in_the_ring_stay_bounded() -> None:
    """QK-norm keeps every stored key channel within 1, whatever the tokens: the INT8 ring needs no calibration."""
    model, clip = random_model(SMALL), random_clip(SMALL, 9, drop=0.0)
    state = streamed("torch64", model, replace(clip, tokens=clip.tokens * 1e3)).state
    keys = state["K0"][..., :-1]
    assert np.abs(keys).max() <= 1.0
    assert set(np.unique(state["K0"][..., -1])) <= {INVALID, 1.0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heads": 5}, "d_model / heads"),
        ({"kv_heads": 3}, "kv_heads must divide"),
        ({"window": 0}, "window: must be at least 1"),
        ({"latents": 0, "tracks": 0}, "at least one stream"),
        ({"half_lives_s": (0.0,)}, "half-lives"),
        ({"min_period_s": 9.0, "max_period_s": 1.0}, "periods"),
    ],
)
def test_impossible_configs_are_refused(change: dict[str, Any], said: str) -> None:
    """Each impossible shape is refused with the field that is wrong."""
    with pytest.raises(ValueError, match=said):
        RiftConfig(**change)

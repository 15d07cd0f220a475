"""Random streams with every trouble a camera has, and one driver for RIFT at every level: numpy, PyTorch, ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from vedette.engines.models.rift import RIFT, Clip
from vedette.engines.models.rift_export import export_rift
from vedette.engines.runtimes.ringstate import RingSession
from vedette.engines.temporal import Timeline
from vedette.engines.temporal_spec import RiftConfig
from vedette.kernels import reference

SMALL = RiftConfig(
    d_model=32,
    heads=4,
    kv_heads=2,
    layers=2,
    window=5,
    ffn=24,
    half_lives_s=(0.5, 4.0),
    latents=2,
    tracks=3,
    context=6,
    context_dim=12,
    token_dim=10,
    evidence=("fall", "run"),
    scene_evidence=("fight",),
    identity_dim=6,
)
RING_ONLY = replace(
    SMALL, half_lives_s=(), latents=0, tracks=1, context=0, token_dim=0, evidence=(), scene_evidence=(), identity_dim=0
)

# two OpenMP threads over tensors of a few hundred numbers wait for each other a hundred times longer than they work
torch.set_num_threads(1)

#: level -> (numpy dtype, tolerance of the law)
LEVELS = {
    "numpy64": (np.float64, 1e-12),
    "torch64": (np.float64, 1e-12),
    "torch32": (np.float32, 1e-5),
    "kvu": (np.float32, 1e-5),
    "kvu-copy": (np.float32, 1e-5),
    "portable": (np.float32, 1e-5),
}
Mutation = Callable[[dict[str, Any], int], None]


@lru_cache(maxsize=64)
def random_model(config: RiftConfig, seed: int = 0) -> RIFT:
    """A float64 model whose weights are large on purpose: outputs of unit size, every gate open."""
    torch.manual_seed(seed)
    model = RIFT(config).double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1:
                p.normal_(std=1.5 * p.shape[-1] ** -0.5)
            elif "gain" in name:
                p.uniform_(0.5, 1.5)
            elif "gate" in name:
                p.fill_(0.7)
            elif "norm" in name:
                p.add_(0.1 * torch.randn_like(p))
            else:
                p.normal_(std=0.2)
    return model


def random_clip(config: RiftConfig, frames: int, cameras: int = 2, drop: float = 0.2, seed: int = 1) -> Clip:
    """Float64 streams: ``drop`` of all tokens lost, jittered clocks a camera, context tokens that come and go."""
    g = np.random.default_rng(seed)
    present = g.random((cameras, frames, config.streams)) >= drop
    present[:, 0] = True
    present[:, :, : config.latents] = True
    valid = g.random((cameras, frames, config.context)) > 0.3
    return Clip(
        tokens=torch.tensor(g.normal(size=(cameras, frames, config.tracks, config.token_dim or config.d_model))),
        present=torch.tensor(present),
        time_s=torch.tensor(np.cumsum(g.random((cameras, frames)) * 0.2, 1)),
        context=torch.tensor(g.normal(size=(cameras, frames, config.context, config.context_dim)))
        if config.context
        else None,
        context_valid=torch.tensor(valid) if config.context else None,
    )


def part(clip: Clip, frames: slice, cameras: slice = slice(None)) -> Clip:
    """Some frames of some cameras."""

    def cut(x: torch.Tensor | None) -> torch.Tensor | None:
        return None if x is None else x[cameras, frames]

    return Clip(
        clip.tokens[cameras, frames],
        clip.present[cameras, frames],
        clip.time_s[cameras, frames],
        cut(clip.context),
        cut(clip.context_valid),
    )


def offline(model: RIFT, clip: Clip) -> np.ndarray:
    """y [C,t,E,d] of the banded-causal masked pass in float64."""
    with torch.no_grad():
        return model(clip).y.numpy()


@dataclass
class Streamed:
    """y [C,t,E,d] of a stream of steps, and the state it ended in."""

    y: np.ndarray
    state: dict[str, np.ndarray]


def streamed(level: str, model: RIFT, clip: Clip, mutate: Mutation | None = None, phase: int = 0) -> Streamed:
    """The clip frame by frame at one level; ``mutate`` may spoil the feeds of frame t; ``phase`` is the first slot written."""
    dtype = LEVELS[level][0]
    cameras, frames = clip.present.shape[:2]
    timeline = Timeline(model.config, cameras)
    timeline.written += phase
    step = _stepper(level, model, cameras)
    ys = []
    for t in range(frames):
        present, time_s = clip.present[:, t].numpy(), clip.time_s[:, t].numpy()
        valid = None if clip.context_valid is None else clip.context_valid[:, t].numpy()
        feeds = timeline.feeds(0, present, time_s, valid)
        feeds["det"] = clip.tokens[:, t].numpy() * 1.0
        if clip.context is not None:
            feeds["ctx"] = clip.context[:, t].numpy()
        if mutate is not None:
            mutate(feeds, t)
        feeds = {k: v if k == "slot" else np.ascontiguousarray(v.astype(dtype)) for k, v in feeds.items()}
        y, state = step(feeds)
        ys.append(np.array(y))
        timeline.advance(0, present, time_s)
    return Streamed(np.stack(ys, 1), state)


def _stepper(level: str, model: RIFT, cameras: int) -> Callable[[dict[str, Any]], tuple[Any, dict[str, Any]]]:
    if level == "numpy64":
        return _numpy_stepper(model, cameras)
    if level.startswith("torch"):
        return _torch_stepper(model, cameras, torch.float64 if level == "torch64" else torch.float32)
    graph, spec = _exported(model, "portable" if level == "portable" else "kvu")
    session = RingSession(graph, spec, cameras, in_place=level == "kvu")

    def step(feeds: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return session.run(0, cameras, feeds)["y"], session.state

    return step


@lru_cache(maxsize=64)
def _exported(model: RIFT, flavour: str) -> Any:
    return export_rift(model.config, model.weights(), flavour)


def _numpy_stepper(model: RIFT, cameras: int) -> Callable[[dict[str, Any]], tuple[Any, dict[str, Any]]]:
    weights = model.weights()
    state = {k: v.numpy() for k, v in model.init_state(cameras, torch.float64).items()}

    def step(feeds: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        nonlocal state
        y, state = reference.rift_step(weights, model.config, {"xmask": np.zeros((cameras, 1)), **feeds}, state)
        return y, state

    return step


def _torch_stepper(
    model: RIFT, cameras: int, dtype: torch.dtype
) -> Callable[[dict[str, Any]], tuple[Any, dict[str, Any]]]:
    own = RIFT(model.config).to(dtype).eval()
    own.load_state_dict(model.state_dict())
    state = own.init_state(cameras, dtype)

    def step(feeds: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        nonlocal state
        with torch.no_grad():
            out, state = own.step({k: torch.from_numpy(v) for k, v in feeds.items()}, state)
        return out.y.numpy(), {k: v.numpy() for k, v in state.items()}

    return step


def worst(a: np.ndarray, b: np.ndarray) -> float:
    """Largest absolute difference; NaN counts as infinite."""
    return float(np.nan_to_num(np.abs(a - b), nan=np.inf).max())

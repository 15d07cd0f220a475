"""The shape of a temporal engine and the sidecar that travels with its graph; numpy-free, torch-free, JSON.

A graph file says what the tensors are called, not what they mean: window, half-lives, which output is which input's
next value, and at what frame rate it was trained stand in ``<model>.json`` beside ``<model>.onnx``.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vedette.engines.api import LABELS, EngineFault
from vedette.engines.strictjson import load_json

#: Added to the validity channel of an empty or unwritten key; exp(-1e4 + anything bounded) is exactly 0 in fp16 and fp32.
INVALID = -1.0e4

#: Layout of one track token: appearance, box (cx, cy, w, h), velocity (x, y per second), score, age (log1p seconds), label one-hot.
EMBEDDING_DIM = 64
TOKEN_DIM = EMBEDDING_DIM + 4 + 2 + 1 + 1 + len(LABELS)

SCHEMA = "vedette.temporal/1"


@dataclass(frozen=True, slots=True)
class RiftConfig:
    """Everything that fixes the shapes and the timing of a RIFT model.

    d_model, heads: width and heads; d_head = d_model / heads is split in a rotated and an unrotated half.
    kv_heads: heads of keys, values and folds, each shared by heads / kv_heads query heads (grouped queries, Ainslie et al.
    2023); memory and the bytes a step moves are in proportion to it.
    layers: the receptive field is layers * (window - 1) + 1 written frames, plus the fold memory.
    window: ring slots a stream; raising it costs memory and time in proportion.
    ffn: hidden width. half_lives_s: one fold memory each; () switches the fold off.
    latents, tracks: streams a camera. context, context_dim: tokens of the current frame (scene grid, then audio) and
    their width; context = 0 with one stream switches the cross block off.
    token_dim: width of a track token; 0 means tokens already have d_model channels and no projection is made.
    min_period_s, max_period_s: fastest and slowest rotary period; events closer than a quarter of the fastest look simultaneous.
    evidence: names of the per-track classes. scene_evidence: names of the classes of a whole camera, read from its latents.
    identity_dim: width of the association embedding, 0 for none.
    """

    d_model: int = 256
    heads: int = 8
    kv_heads: int = 2
    layers: int = 2
    window: int = 64
    ffn: int = 512
    half_lives_s: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0)
    latents: int = 4
    tracks: int = 16
    context: int = 51
    context_dim: int = 128
    token_dim: int = TOKEN_DIM
    min_period_s: float = 0.5
    max_period_s: float = 120.0
    evidence: tuple[str, ...] = ()
    scene_evidence: tuple[str, ...] = ()
    identity_dim: int = 0
    nominal_fps: float = 10.0

    def __post_init__(self) -> None:
        for name in ("d_model", "heads", "kv_heads", "layers", "window", "ffn"):
            if getattr(self, name) < 1:
                raise ValueError(f"RiftConfig.{name}: must be at least 1, got {getattr(self, name)}")
        if self.d_model % self.heads or self.d_head % 4:
            raise ValueError(
                f"RiftConfig: d_model / heads must be a multiple of 4, got {self.d_model} / {self.heads}; change either"
            )
        if self.heads % self.kv_heads:
            raise ValueError(
                f"RiftConfig: kv_heads must divide heads, got {self.kv_heads} and {self.heads}; change either"
            )
        if self.streams < 1 or min(self.latents, self.tracks, self.context, self.token_dim) < 0:
            raise ValueError(f"RiftConfig: needs at least one stream, got {self.latents} latents, {self.tracks} tracks")
        if (self.scene_evidence and not self.latents) or (self.evidence and not self.tracks):
            raise ValueError(
                f"RiftConfig: scene_evidence needs latents and evidence needs tracks, got {self.latents} latents, "
                f"{self.tracks} tracks; raise them"
            )
        if any(not h > 0 for h in self.half_lives_s) or not 0 < self.min_period_s < self.max_period_s:
            raise ValueError(
                f"RiftConfig: half-lives and periods must be positive and rising, got {self.half_lives_s}, "
                f"{self.min_period_s}..{self.max_period_s}"
            )

    @property
    def d_head(self) -> int:
        return self.d_model // self.heads

    @property
    def group(self) -> int:
        """Query heads that share one head of keys and values; they are neighbours."""
        return self.heads // self.kv_heads

    @property
    def d_kv(self) -> int:
        """Channels of all keys, or of all values, of a token."""
        return self.kv_heads * self.d_head

    @property
    def rotary_dim(self) -> int:
        """Channels of a head that turn with time; the rest, the validity channel last among them, do not."""
        return self.d_head // 2

    @property
    def streams(self) -> int:
        """Streams a camera: scene latents first, then track slots."""
        return self.latents + self.tracks

    @property
    def folds(self) -> int:
        return len(self.half_lives_s)

    @property
    def fold_key(self) -> int:
        """Channels of a fold's mean key: the unrotated half of a key."""
        return self.d_head - self.rotary_dim

    @property
    def has_cross(self) -> bool:
        return self.context > 0 or self.streams > 1

    @property
    def receptive_field(self) -> int:
        """Written frames that the ring part of an answer depends on."""
        return self.layers * (self.window - 1) + 1


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One graph input or output; a negative size is the number of cameras times its absolute value."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def concrete(self, cameras: int) -> tuple[int, ...]:
        """The shape for that many cameras."""
        return tuple(-s * cameras if s < 0 else s for s in self.shape)


@dataclass(frozen=True, slots=True)
class TemporalSpec:
    """What the runtime must know of a temporal graph. ``aliases`` maps a state output to the input it replaces."""

    config: RiftConfig
    flavour: str
    precision: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    aliases: dict[str, str]
    sha256: str
    in_place: bool
    trained: bool = False
    notes: tuple[str, ...] = field(default=())

    @property
    def state(self) -> tuple[TensorSpec, ...]:
        """Inputs that carry memory from one step to the next."""
        carried = set(self.aliases.values())
        return tuple(t for t in self.inputs if t.name in carried)

    def state_key(self) -> str:
        """Equal for two graphs exactly when one may continue from the other's state."""
        shape = [(t.name, t.dtype, t.shape) for t in self.state]
        text = json.dumps([asdict(self.config), shape, self.sha256], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, sort_keys=True) + "\n"


def _tensor_from_json(raw: dict[str, Any]) -> TensorSpec:
    return TensorSpec(str(raw["name"]), str(raw["dtype"]), tuple(int(s) for s in raw["shape"]))


def spec_from_json(text: str, where: str) -> TemporalSpec:
    """The spec a sidecar holds; EngineFault names ``where`` and what is wrong with it."""
    try:
        raw: dict[str, Any] = load_json(text)
        if raw.pop("schema") != SCHEMA:
            raise ValueError(f"schema must be {SCHEMA}")
        config: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.pop("config").items()}
        raw |= {side: tuple(_tensor_from_json(t) for t in raw[side]) for side in ("inputs", "outputs")}
        return TemporalSpec(config=RiftConfig(**config), **{**raw, "notes": tuple(raw["notes"])})
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise EngineFault(f"{where}: not a temporal sidecar, got {e}; export the model again") from e


def sidecar_path(model: Path) -> Path:
    """``x.onnx`` -> ``x.json``."""
    return model.with_suffix(".json")


def is_temporal(model: Path) -> bool:
    """Whether a graph has a sidecar of this schema beside it; other kinds of model have sidecars of their own."""
    try:
        raw = load_json(sidecar_path(model).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(raw, dict) and raw.get("schema") == SCHEMA


def save_graph(model: Path, graph: bytes, spec: TemporalSpec) -> None:
    """Graph and sidecar appear under their names only when complete; the sidecar, which holds the hash, last."""
    for path, data in ((model, graph), (sidecar_path(model), spec.to_json().encode())):
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(data)
        temporary.replace(path)


def load_graph(model: Path) -> tuple[bytes, TemporalSpec]:
    """Graph bytes and spec, refused when the sidecar is missing or belongs to another graph."""
    sidecar = sidecar_path(model)
    try:
        graph, text = model.read_bytes(), sidecar.read_text()
    except OSError as e:
        raise EngineFault(f"{e.filename}: cannot be read, got {e.strerror}; export the temporal model again") from e
    spec = spec_from_json(text, str(sidecar))
    digest = hashlib.sha256(graph).hexdigest()
    if digest != spec.sha256:
        raise EngineFault(
            f"{model}: does not belong to its sidecar, got sha256 {digest[:12]} for {spec.sha256[:12]}; export again"
        )
    return graph, spec

"""What is compared on the same data: RIFT, a GRU of equal cost, exponential folds with a regression, a frame's regression.

Every model answers a batch with logits: scene [B,t] (fight) and tracks [B,t,N,2] (fall, run).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vedette.engines.models.rift import RIFT, Clip
from vedette.engines.temporal_spec import EMBEDDING_DIM, TOKEN_DIM, RiftConfig
from vedette.streamer.infer.motion import NUMBERS, TOKEN_WIDTH

TRACK_CLASSES = ("fall", "run")


@dataclass(slots=True)
class Batch:
    """motion [B,t,128], tokens [B,t,N,TOKEN_DIM], present bool [B,t,N], valid bool [B,t], time_s f64 [B,t]."""

    motion: Tensor
    tokens: Tensor
    present: Tensor
    valid: Tensor
    time_s: Tensor


def config_of(window: int = 64, *, folds: bool = True, width: int = 48) -> RiftConfig:
    """The events model: latents read the motion token and the tracks; tracks carry kinematics only."""
    return RiftConfig(
        d_model=width, heads=4, kv_heads=2, layers=2, window=window, ffn=2 * width,
        half_lives_s=(1.0, 4.0, 16.0) if folds else (), latents=2, tracks=16, context=1,
        context_dim=TOKEN_WIDTH, token_dim=TOKEN_DIM, evidence=TRACK_CLASSES, scene_evidence=("fight",),
    )  # fmt: skip


class Scaler(nn.Module):
    """(x - mean) / deviation of the training frames; buffers, so that they travel with the weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def fit(self, rows: Tensor) -> None:
        self.mean.copy_(rows.mean(0))
        self.std.copy_(rows.std(0) + 0.05)

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / self.std).clamp(-5, 5)


class RiftModel(nn.Module):
    """RIFT behind the common face; appearance is hidden from it (few scenes would be learned by heart)."""

    def __init__(self, config: RiftConfig, *, cross: bool = True) -> None:
        """cross: whether the latents look at the tracks; without, at the motion token alone."""
        super().__init__()
        self.net, self.cross = RIFT(config), cross
        with torch.no_grad():
            self.net.token.weight[:, :EMBEDDING_DIM] = 0

    def fit_scale(self, batch: Batch) -> None:
        """Nothing to fit: tokens are of a good size."""

    def forward(self, b: Batch) -> tuple[Tensor, Tensor]:
        latents = self.net.config.latents
        tokens = b.tokens.clone()
        tokens[..., :EMBEDDING_DIM] = 0
        always = b.valid[..., None].expand(-1, -1, latents)
        present = b.present if self.cross else torch.zeros_like(b.present)
        clip = Clip(tokens, torch.cat((always, present), 2), b.time_s, b.motion[:, :, None], None)
        out = self.net(clip)
        return out.scene[..., 0], out.evidence


class Recurrent(nn.Module):
    """A GRU for the scene and one for each track."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.scale = Scaler(NUMBERS)
        self.enter, self.scene, self.head = (
            nn.Linear(NUMBERS, width),
            nn.GRU(width, width, batch_first=True),
            nn.Linear(width, 1),
        )
        self.track_in = nn.Linear(TOKEN_DIM - EMBEDDING_DIM, width)
        self.track, self.track_head = nn.GRU(width, width, batch_first=True), nn.Linear(width, len(TRACK_CLASSES))
        self.drop = nn.Dropout(0.3)

    def fit_scale(self, b: Batch) -> None:
        self.scale.fit(b.motion[b.valid][:, :NUMBERS])

    def forward(self, b: Batch) -> tuple[Tensor, Tensor]:
        x = torch.tanh(self.enter(self.drop(self.scale(b.motion[..., :NUMBERS]))))
        scene = self.head(self.drop(self.scene(x)[0]))[..., 0]
        n = b.tokens.shape[2]
        k = torch.tanh(self.track_in(b.tokens[..., EMBEDDING_DIM:])) * b.present[..., None]
        y = self.track(k.transpose(1, 2).flatten(0, 1))[0].unflatten(0, (-1, n)).transpose(1, 2)
        return scene, self.track_head(y)


class Folds(nn.Module):
    """Running means and deviations with half-lives, then a regression: what RIFT's folds hold, and no attention."""

    half_lives_s = (0.5, 2.0, 8.0)

    def __init__(self, deviation: bool = True) -> None:
        super().__init__()
        self.scale, self.deviation = Scaler(NUMBERS), deviation
        self.head = nn.Linear(NUMBERS * len(self.half_lives_s) * (2 if deviation else 1), 1)
        self.track_head = nn.Linear(TOKEN_DIM - EMBEDDING_DIM, len(TRACK_CLASSES))
        self.drop = nn.Dropout(0.2)

    def fit_scale(self, b: Batch) -> None:
        self.scale.fit(b.motion[b.valid][:, :NUMBERS])

    def forward(self, b: Batch) -> tuple[Tensor, Tensor]:
        x = self.scale(b.motion[..., :NUMBERS])
        told = (b.motion[..., :NUMBERS].abs().sum(-1) > 0).float()[..., None]
        rate = math.log(2) / torch.tensor(self.half_lives_s, dtype=torch.float64)
        age = b.time_s[:, :, None] - b.time_s[:, None, :]
        weight = torch.exp(-rate * age[..., None].clamp_min(0)).float() * (age >= 0)[..., None] * told[:, None]
        weight = weight / weight.sum(2, keepdim=True).clamp_min(1e-6)
        mean = torch.einsum("bijm,bjf->bimf", weight, x)
        square = torch.einsum("bijm,bjf->bimf", weight, x * x)
        parts = [mean, (square - mean**2).clamp_min(1e-4).sqrt()] if self.deviation else [mean]
        return self.head(self.drop(torch.cat(parts, -1).flatten(2)))[..., 0], self.track_head(
            b.tokens[..., EMBEDDING_DIM:]
        )


class Frame(nn.Module):
    """A logistic regression a frame: no memory."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.head = Scaler(NUMBERS), nn.Linear(NUMBERS, 1)
        self.track_head = nn.Linear(TOKEN_DIM - EMBEDDING_DIM, len(TRACK_CLASSES))

    def fit_scale(self, b: Batch) -> None:
        self.scale.fit(b.motion[b.valid][:, :NUMBERS])

    def forward(self, b: Batch) -> tuple[Tensor, Tensor]:
        return self.head(self.scale(b.motion[..., :NUMBERS]))[..., 0], self.track_head(b.tokens[..., EMBEDDING_DIM:])


def make(name: str, *, cross: bool = True, gru_width: int = 48, **options: object) -> nn.Module:
    """A model by name: rift (options of `config_of`), gru, folds, folds-mean, frame."""
    if name == "rift":
        return RiftModel(config_of(**options), cross=cross)  # type: ignore[arg-type]
    makers = {"gru": lambda: Recurrent(gru_width), "folds": Folds, "folds-mean": lambda: Folds(False), "frame": Frame}
    return makers[name]()


@torch.no_grad()
def cost(net: nn.Module, pictures: int = 20, people: int = 4) -> int:
    """Floating point operations a picture of a clip, matrix products only (as torch counts them)."""
    from torch.utils.flop_counter import FlopCounterMode

    present = torch.ones(1, pictures, people, dtype=torch.bool)
    batch = Batch(
        torch.randn(1, pictures, TOKEN_WIDTH), torch.randn(1, pictures, people, TOKEN_DIM), present, present[..., 0],
        0.1 * torch.arange(pictures, dtype=torch.float64)[None],
    )  # fmt: skip
    with FlopCounterMode(display=False) as counter:
        net.eval()(batch)
    return round(counter.get_total_flops() / pictures)

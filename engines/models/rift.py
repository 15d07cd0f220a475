"""RIFT, the Ring-buffer Incremental Fold Transformer: one frame at a time, equal to the offline masked pass.

Everything that lives in time - scene latents, tracked objects, of any number of cameras - is a *stream* in one ring of keys and
values [n,g,T,d_h]. A step writes one slot a stream and attends over the ring; nothing rolls, nothing is masked: a channel
inside the key says whether it is valid. Exponential fold memories carry what is older than the window. Timestamps, not
frame counts, turn the rotary halves and decay the folds, and a write-enable keeps late, lost and asynchronous frames exact.

The law: ``RIFT.step`` over a stream == ``RIFT.forward`` over the clip, 1e-5 in float32 and 1e-12 in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vedette.engines.models.rift_layers import RiftLayer
from vedette.engines.models.rift_offline import band, fold_offline
from vedette.engines.temporal_spec import INVALID, RiftConfig
from vedette.kernels.reference import rotary_frequencies

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Clip:
    """What an offline pass reads; C cameras, t frames, N tracks, P context tokens, E = latents + N streams.

    tokens [C,t,N,token_dim]; context [C,t,P,context_dim] or None; context_valid bool [C,t,P] or None (all valid);
    present bool [C,t,E]: the stream has a token in this frame, so it is written and others may look at it; time_s f64 [C,t], rising.
    """

    tokens: Tensor
    present: Tensor
    time_s: Tensor
    context: Tensor | None = None
    context_valid: Tensor | None = None


@dataclass(frozen=True, slots=True)
class RiftOutput:
    """y [...,E,d]; logits evidence [...,N,A] and scene [...,B], identity [...,N,D] unit vectors, forecast [...,context_dim]; None where off.

    ``forecast`` is what the latents expect the mean scene token of the next frame to be.
    """

    y: Tensor
    evidence: Tensor | None
    identity: Tensor | None
    forecast: Tensor | None
    scene: Tensor | None = None


class RIFT(nn.Module):
    """The model; ``config`` fixes every shape. Parameters keep the names that ``kernels.reference`` reads."""

    def __init__(self, config: RiftConfig) -> None:
        super().__init__()
        self.config = config
        d = config.d_model
        if config.latents:
            self.latent = nn.Parameter(torch.randn(config.latents, d))
        if config.token_dim:
            self.token = nn.Linear(config.token_dim, d)
        if config.context:
            self.context_place = nn.Parameter(torch.randn(config.context, config.context_dim) * 0.02)
            self.norm_c = nn.LayerNorm(config.context_dim)
        self.layers = nn.ModuleList(RiftLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(d)
        self.evidence_head = nn.Linear(d, len(config.evidence)) if config.evidence else None
        self.scene_head = nn.Linear(d, len(config.scene_evidence)) if config.scene_evidence else None
        self.identity_head = nn.Linear(d, config.identity_dim) if config.identity_dim else None
        self.forecast_head = nn.Linear(d, config.context_dim) if config.latents and config.context else None

    def rotary(self, time_s: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos, sin [...,r/2] of seconds f64 [...]; angles are made in float64 whatever ``dtype`` is."""
        c = self.config
        speed = torch.from_numpy(rotary_frequencies(c.rotary_dim, c.min_period_s, c.max_period_s)).to(time_s.device)
        angle = time_s.double()[..., None] * speed
        return angle.cos().to(dtype), angle.sin().to(dtype)

    def entities(self, tokens: Tensor) -> Tensor:
        """tokens [C,N,token_dim] -> latents and projected tokens [C,E,d]."""
        parts = [self.latent.expand(len(tokens), -1, -1)] if self.config.latents else []
        if self.config.tracks:
            parts.append(self.token(tokens) if self.config.token_dim else tokens)
        return torch.cat(parts, 1)

    def place(self, context: Tensor | None) -> Tensor | None:
        """Context tokens with their place in the grid, normalised."""
        return None if context is None else self.norm_c(context + self.context_place)

    def heads(self, y: Tensor) -> RiftOutput:
        """y [...,E,d] -> the output with whatever heads the config asks for."""
        tracks, latents = y[..., self.config.latents :, :], y[..., : self.config.latents, :]
        return RiftOutput(
            y,
            self.evidence_head(tracks) if self.evidence_head is not None else None,
            F.normalize(self.identity_head(tracks), dim=-1) if self.identity_head is not None else None,
            self.forecast_head(latents.mean(-2)) if self.forecast_head is not None else None,
            self.scene_head(latents.mean(-2)) if self.scene_head is not None else None,
        )

    def forward(self, clip: Clip) -> RiftOutput:
        """The offline twin: the whole clip under the banded-causal mask, fields [C,t,...]. Train with this."""
        config, dtype = self.config, clip.tokens.dtype
        cameras, frames = clip.present.shape[:2]
        x = self.entities(clip.tokens.flatten(0, 1)).unflatten(0, (cameras, frames))
        cos, sin = (z[:, :, None, None] for z in self.rotary(clip.time_s, dtype))
        written = clip.present.to(dtype)
        visible = band(clip.present, config.window)
        context = None if clip.context is None else self.place(clip.context.flatten(0, 1))
        mask = cross_mask(
            clip.present.flatten(0, 1),
            None if clip.context_valid is None else clip.context_valid.flatten(0, 1),
            config.context,
            dtype,
        )
        for layer in self.layers:
            q, k, v = layer.temporal_qkv(x, cos, sin, torch.ones_like(written))
            qh, kh, vh = (z.permute(0, 2, 3, 1, 4) for z in (q, k, v))
            a = F.scaled_dot_product_attention(qh, kh, vh, attn_mask=visible[:, :, None], scale=1.0, enable_gqa=True)
            a = a.permute(0, 3, 1, 2, 4)
            a = torch.where(visible.any(-1).transpose(1, 2)[..., None, None], a, v.new_zeros(()))
            if config.folds:
                kv = torch.cat((layer.fold_key(k), v), -1)
                mean = fold_offline(layer.fold_logit(k), kv, clip.present, clip.time_s, config.half_lives_s)
                a = a + layer.fold_read(q, *mean.split((config.fold_key, config.d_head), -1))
            x = x + layer.out(a.flatten(-2))
            if config.has_cross:
                x = x + layer.cross(x.flatten(0, 1), context, mask).unflatten(0, (cameras, frames))
            x = x + layer.feed_forward(x)
        return self.heads(self.norm(x))

    def init_state(self, cameras: int, dtype: torch.dtype = torch.float32) -> State:
        """Empty memory for that many cameras: K{i}, V{i} [n,g,T,d_h], and the folds MK{i}, MV{i}, D{i} [n,g,M,*]."""
        c = self.config
        n, state = cameras * c.streams, {}
        for i in range(c.layers):
            state[f"K{i}"] = torch.zeros(n, c.kv_heads, c.window, c.d_head, dtype=dtype)
            state[f"K{i}"][..., -1] = INVALID
            state[f"V{i}"] = torch.zeros(n, c.kv_heads, c.window, c.d_head, dtype=dtype)
            if c.folds:
                state[f"MK{i}"] = torch.zeros(n, c.kv_heads, c.folds, c.fold_key, dtype=dtype)
                state[f"MV{i}"] = torch.zeros(n, c.kv_heads, c.folds, c.d_head, dtype=dtype)
                state[f"D{i}"] = torch.zeros(n, c.kv_heads, c.folds, 1, dtype=dtype)
        return state

    def step(self, inputs: dict[str, Tensor], state: State) -> tuple[RiftOutput, State]:
        """One frame of C cameras; ``inputs`` as in the graph: det, ctx, xmask, we, cos, sin, dec, slot. State is not changed in place.

        det [C,N,token_dim], ctx [C,P,context_dim], xmask additive [C,1,E,P+E], we [n], cos/sin [n,1,r/2], dec [n,M], slot i64 [n].
        """
        config, new = self.config, dict(state)
        cameras = len(inputs["det"])
        x = self.entities(inputs["det"]).flatten(0, 1)
        context = self.place(inputs.get("ctx"))
        we, row = inputs["we"], torch.arange(cameras * config.streams, device=x.device)
        for i, layer in enumerate(self.layers):
            q, k, v = layer.temporal_qkv(x, inputs["cos"], inputs["sin"], we)
            for name, value in ((f"K{i}", k), (f"V{i}", v)):
                new[name] = state[name].clone()
                new[name][row, :, inputs["slot"]] = value
            a = F.scaled_dot_product_attention(q[:, :, None], new[f"K{i}"], new[f"V{i}"], scale=1.0, enable_gqa=True)[
                :, :, 0
            ]
            if config.folds:
                weight = torch.exp(layer.fold_logit(k)) * we[:, None, None]
                folds = (f"MK{i}", f"MV{i}", f"D{i}")
                means = layer.fold_step(*(state[f] for f in folds), inputs["dec"], weight, layer.fold_key(k), v)
                new.update(zip(folds, means, strict=True))
                a = a + layer.fold_read(q, *means[:2])
            x = x + layer.out(a.flatten(1))
            if config.has_cross:
                x = x + layer.cross(x.unflatten(0, (cameras, -1)), context, inputs["xmask"]).flatten(0, 1)
            x = x + layer.feed_forward(x)
        return self.heads(self.norm(x).unflatten(0, (cameras, -1))), new

    def weights(self) -> dict[str, np.ndarray]:
        """Every parameter as numpy, at the precision of the module, by the names ``kernels.reference`` reads."""
        return {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}


def cross_mask(present: Tensor, context_valid: Tensor | None, context: int, dtype: torch.dtype) -> Tensor:
    """Additive mask [B,1,E,P+E]: nobody looks at an absent stream or an invalid context token."""
    batch, streams = present.shape
    if context_valid is None:
        context_valid = torch.ones(batch, context, dtype=torch.bool, device=present.device)
    seen = torch.cat((context_valid, present), 1)
    return ((~seen).to(dtype) * INVALID)[:, None, None, :].expand(-1, 1, streams, -1)

"""The layer of RIFT: temporal ring block, cross block of the current frame, feed-forward; used by step and offline alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vedette.engines.temporal_spec import INVALID, RiftConfig

EPS_QK = 1e-6
FOLD_FLOOR = 1e-30
FOLD_SHARPNESS = 3.0


def rms_norm(x: Tensor, gain: Tensor | float) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-6) * gain over the last axis."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS_QK) * gain


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first 2 * cos.shape[-1] channels of x, half-split pairs."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), -1)


class RiftLayer(nn.Module):
    """x += W_o (ring attention + tanh(gate) fold memory);  x += W_x cross(x; context, x);  x += FFN(x).

    The ring and fold parts carry state and are causal; the cross part looks at the current frame of one camera only. That
    is why a step equals the offline pass for any number of layers.
    """

    def __init__(self, config: RiftConfig) -> None:
        super().__init__()
        d, heads, width = config.d_model, config.heads, config.d_head
        self.config = config
        self.norm_t, self.norm_f = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, d + 2 * config.d_kv, bias=False), nn.Linear(d, d)
        #: per-channel sharpness of the ring's logits: q . k stays within its norm, 3 at the start (Dehghani et al. 2023)
        self.q_gain = nn.Parameter(torch.full((width,), 3.0 * width**-0.5))
        if config.folds:
            self.fold_direction = nn.Parameter(
                torch.randn(config.kv_heads, config.folds, width - config.rotary_dim - 1)
            )
            self.fold_gate = nn.Parameter(torch.zeros(heads))
        if config.has_cross:
            self.norm_x = nn.LayerNorm(d)
            self.x_qkv = nn.Linear(d, d + 2 * config.d_kv, bias=False)
            self.x_out, self.x_gain = nn.Linear(d, d), nn.Parameter(torch.full((width,), 3.0 * width**-0.5))
            if config.context:
                self.c_kv = nn.Linear(config.context_dim, 2 * config.d_kv, bias=False)
        self.ffn_in, self.ffn_out = nn.Linear(d, config.ffn), nn.Linear(config.ffn, d)
        live = torch.ones(width)
        live[-1] = 0
        self.register_buffer("live", live, persistent=False)
        #: gain that makes a normalised key of length one; a number, so that it is exact at every precision
        self.unit = float(width**-0.5)

    def split(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """A joint projection [..., d + 2 d_kv] -> q [...,h,d_h], k and v [...,g,d_h]."""
        c = self.config
        return tuple(a.unflatten(-1, (-1, c.d_head)) for a in qkv.split((c.d_model, c.d_kv, c.d_kv), -1))

    def temporal_qkv(self, x: Tensor, cos: Tensor, sin: Tensor, written: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [...,d], cos/sin [...,1,r/2], written [...] -> q [...,h,d_h], k and v [...,g,d_h] as they enter the ring.

        |k| <= 1 without its last channel, which says valid (1) or not (-1e4); the last channel of q is 1.
        """
        q, k, v = self.split(self.qkv(self.norm_t(x)))
        valid = 1 - self.live
        q = rotate(rms_norm(q * self.live, self.q_gain), cos, sin) + valid
        k = rotate(rms_norm(k * self.live, self.unit), cos, sin)
        return q, k + (INVALID + written * (1 - INVALID))[..., None, None] * valid, v

    def fold_logit(self, k: Tensor) -> Tensor:
        """k [...,g,d_h] -> ln w_m = 3 <mu_m, k_unrotated> [...,g,M]; within +-3 by QK-norm, so no running maximum is kept."""
        direction = F.normalize(self.fold_direction, dim=-1, eps=0.0)
        return FOLD_SHARPNESS * (direction * k[..., None, self.config.rotary_dim : -1]).sum(-1)

    def fold_key(self, k: Tensor) -> Tensor:
        """The unrotated half of a key without its validity [...,g,r'], what a fold keeps the mean of beside the value."""
        rot = self.config.rotary_dim
        return k[..., rot:] * self.live[rot:]

    def fold_step(
        self, keys: Tensor, values: Tensor, total: Tensor, decay: Tensor, weight: Tensor, k: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """total <- decay total + w;  mean <- (1 - w/total) mean + (w/total) new; as ``kernels.reference.fold_update``."""
        total = total * decay[:, None, :, None] + weight[..., None]
        share = weight[..., None] / total.clamp_min(FOLD_FLOOR)
        return (1 - share) * keys + share * k[:, :, None], (1 - share) * values + share * v[:, :, None], total

    def fold_read(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """tanh(gate) * attention of q [...,h,d_h] over the folds [...,g,M,r'] and [...,g,M,d_h] -> [...,h,d_h]."""
        c = self.config
        q = q[..., c.rotary_dim :].unflatten(-2, (c.kv_heads, c.group))
        read = torch.softmax(q @ keys.transpose(-1, -2), -1) @ values
        return torch.tanh(self.fold_gate)[:, None] * read.flatten(-3, -2)

    def cross(self, x: Tensor, context: Tensor | None, mask: Tensor) -> Tensor:
        """Entities x [C,E,d] look at context [C,P,d_c] and at each other; mask additive [C,1,E,P+E] -> [C,E,d].

        One attention does four jobs: latents read the scene, tracks read the scene, each other, and the audio.
        """
        q, k, v = self.split(self.x_qkv(self.norm_x(x)))
        if context is not None:
            ck, cv = (a.unflatten(-1, (-1, self.config.d_head)) for a in self.c_kv(context).chunk(2, -1))
            k, v = torch.cat((ck, k), 1), torch.cat((cv, v), 1)
        q, k = rms_norm(q, self.x_gain), rms_norm(k, self.unit)
        q, k, v = (a.transpose(1, 2) for a in (q, k, v))
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0, enable_gqa=True)
        return self.x_out(a.transpose(1, 2).flatten(2))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.ffn_out(F.gelu(self.ffn_in(self.norm_f(x))))

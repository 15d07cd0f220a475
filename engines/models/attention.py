"""Attention in its plain forms: scaled dot-product, multi-head, self, cross, spatial and temporal.

Every module answers ``(output, weights)``. ``weights`` is ``None`` unless ``need_weights=True`` is asked for, and then
the output is computed by the written-out formula; otherwise PyTorch's fused kernel runs and the weights never exist, so
that explanations cost nothing to those who do not read them.

Notation: B batch, N queries, M keys, d model width, h heads, d_h = d / h.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Exponentials that sum to one along ``dim``: exp(x - max x) / sum exp(x - max x); equals ``F.softmax``.

    A row that is -inf everywhere (a query that may look at nothing) gives zeros here, where ``F.softmax`` gives NaN.
    """
    top = x.amax(dim, keepdim=True)
    weights = torch.exp(x - torch.where(torch.isinf(top), torch.zeros_like(top), top))
    total = weights.sum(dim, keepdim=True)
    return weights / torch.where(total == 0, torch.ones_like(total), total)


def band_mask(n: int, window: int, device: torch.device | str | None = None) -> Tensor:
    """Banded-causal mask, bool [n,n]: true where query i may see key j, that is 0 <= i - j < window.

    Raising ``window`` lets a frame see further back; ``window >= n`` is the plain causal mask. This is the only mask
    under which a cached step equals the offline pass (``rift``).
    """
    if n < 1 or window < 1:
        raise ValueError(f"band_mask: n and window must be at least 1, got {n} and {window}")
    age = torch.arange(n, device=device)[:, None] - torch.arange(n, device=device)[None, :]
    return (age >= 0) & (age < window)


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    scale: float | None = None,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """softmax(q k^T * scale + mask) v (Vaswani et al. 2017, eq. 1).

    q [...,N,d_h], k [...,M,d_h], v [...,M,d_v] -> [...,N,d_v], and weights [...,N,M] when asked for. ``mask`` is bool (true = may look)
    or additive, broadcastable to [...,N,M]; a query whose mask row is all false answers zeros. ``scale`` defaults to d_h ** -0.5; raising it
    sharpens the weights.
    """
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError(
            f"scaled_dot_product_attention: needs q [...,N,d], k [...,M,d], v [...,M,d_v], "
            f"got {list(q.shape)}, {list(k.shape)}, {list(v.shape)}"
        )
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    if not need_weights:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale), None
    logits = q @ k.transpose(-1, -2) * scale
    if mask is not None:
        logits = logits.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else logits + mask
    weights = softmax(logits)
    return weights @ v, weights


class MultiHeadAttention(nn.Module):
    """W_o [head_1 ... head_h] with head_i = attention(q W_q^i, k W_k^i, v W_v^i) (Vaswani et al. 2017, section 3.2.2).

    ``d_context`` is the width of keys and values when they come from another stream. More ``heads`` look at more things
    at once, each with fewer channels; ``d_model`` must be divisible by them.
    """

    def __init__(self, d_model: int, heads: int, d_context: int | None = None, *, bias: bool = True) -> None:
        super().__init__()
        if heads < 1 or d_model % heads:
            raise ValueError(f"MultiHeadAttention: d_model must be divisible by heads, got {d_model} and {heads}")
        d_context = d_model if d_context is None else d_context
        self.d_model, self.heads, self.d_head = d_model, heads, d_model // heads
        self.query = nn.Linear(d_model, d_model, bias=bias)
        self.key = nn.Linear(d_context, d_model, bias=bias)
        self.value = nn.Linear(d_context, d_model, bias=bias)
        self.out = nn.Linear(d_model, d_model, bias=bias)

    def split(self, x: Tensor) -> Tensor:
        """[B,N,d] -> [B,h,N,d_h]."""
        return x.unflatten(-1, (self.heads, self.d_head)).transpose(1, 2)

    def merge(self, x: Tensor) -> Tensor:
        """[B,h,N,d_h] -> [B,N,d]."""
        return x.transpose(1, 2).flatten(-2)

    def forward(
        self, query: Tensor, context: Tensor, *, mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """query [B,N,d], context [B,M,d_context], mask broadcastable to [B,h,N,M] -> [B,N,d] and weights [B,h,N,M]."""
        q, k, v = self.split(self.query(query)), self.split(self.key(context)), self.split(self.value(context))
        attended, weights = scaled_dot_product_attention(q, k, v, mask=mask, need_weights=need_weights)
        return self.out(self.merge(attended)), weights


class SelfAttention(MultiHeadAttention):
    """Multi-head attention of a sequence over itself: query = context = x."""

    def __init__(self, d_model: int, heads: int, *, bias: bool = True) -> None:
        super().__init__(d_model, heads, bias=bias)

    def forward(  # type: ignore[override]  # one stream in place of two
        self, x: Tensor, *, mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """x [B,N,d] -> [B,N,d] and weights [B,h,N,N]."""
        return super().forward(x, x, mask=mask, need_weights=need_weights)


class CrossAttention(MultiHeadAttention):
    """One stream looks at another of any width and length: video at audio, tracks at the scene.

    ``context_valid`` bool [B,M] hides tokens that are not there (audio switched off); with none valid the attended part
    is zero and only the output bias remains, never NaN.
    """

    def __init__(self, d_model: int, heads: int, d_context: int, *, bias: bool = True) -> None:
        super().__init__(d_model, heads, d_context, bias=bias)

    def forward(  # type: ignore[override]  # one stream in place of two
        self, x: Tensor, context: Tensor, *, context_valid: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """x [B,N,d], context [B,M,d_context] -> [B,N,d] and weights [B,h,N,M]."""
        mask = None if context_valid is None else context_valid[:, None, None, :]
        return super().forward(x, context, mask=mask, need_weights=need_weights)


class SpatialAttention(nn.Module):
    """Self-attention over the H*W positions of a feature map, flattened row by row.

    Cost grows with (H W)^2; put it where the map is small.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attention = SelfAttention(channels, heads)

    def forward(self, x: Tensor, *, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """x [B,C,H,W] -> [B,C,H,W] and weights [B,h,HW,HW], row-major positions."""
        if x.ndim != 4:
            raise ValueError(f"SpatialAttention: needs [B,C,H,W], got {list(x.shape)}")
        y, weights = self.attention(x.flatten(2).transpose(1, 2), need_weights=need_weights)
        return y.transpose(1, 2).reshape(x.shape), weights


class TemporalAttention(nn.Module):
    """Banded-causal self-attention over time: frame i looks at frames i - window + 1 .. i, never ahead.

    The mask is the one a streaming step can honour, so a model trained with it may run frame by frame (``step``) with
    the same answers. Raising ``window`` lengthens the memory and the cost of a step in proportion.
    """

    def __init__(self, d_model: int, heads: int, window: int) -> None:
        super().__init__()
        if window < 1:
            raise ValueError(f"TemporalAttention: window must be at least 1 frame, got {window}")
        self.window = window
        self.attention = SelfAttention(d_model, heads)

    def forward(self, x: Tensor, *, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """x [B,T,d] -> [B,T,d] and weights [B,h,T,T] (zero outside the band)."""
        return self.attention(x, mask=band_mask(x.shape[1], self.window, x.device), need_weights=need_weights)

    def step(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """One frame: x [B,d] and what the last step returned (None at the start) -> [B,d] and the new past.

        The past is the keys and values of at most ``window`` frames, [2,B,h,t,d_h]. This plain form shifts; ``rift`` keeps a ring.
        """
        mha = self.attention
        q, k, v = (mha.split(proj(x[:, None])) for proj in (mha.query, mha.key, mha.value))
        now = torch.stack((k, v))
        past = (
            now
            if past is None
            else torch.cat((past[..., 1 - self.window :, :] if self.window > 1 else past[..., :0, :], now), -2)
        )
        attended, _ = scaled_dot_product_attention(q, past[0], past[1])
        return mha.out(mha.merge(attended))[:, 0], past


class AttentionBlock(nn.Module):
    """Convolution, then attention over the flattened positions: y = c + Attn(LN(c)), c = SiLU(BN(Conv(x))).

    The convolution finds local patterns, the attention relates them across the picture (attention-augmented CNN,
    Bello et al. 2019). ``stride`` shrinks the map before the attention pays for it.
    """

    def __init__(self, in_channels: int, out_channels: int, heads: int, stride: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.norm = nn.GroupNorm(1, out_channels)
        self.attention = SpatialAttention(out_channels, heads)

    def forward(self, x: Tensor, *, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """x [B,C,H,W] -> [B,C',ceil(H/stride),ceil(W/stride)] and weights [B,h,P,P], P the positions of the output."""
        c = F.silu(self.bn(self.conv(x)))
        attended, weights = self.attention(self.norm(c), need_weights=need_weights)
        return c + attended, weights

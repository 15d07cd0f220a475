"""The fused ring step in Triton: what ``ring_attention.cu`` does, for PyTorch tensors on a GPU (or Triton's interpreter on a CPU).

One program a (stream, key head). Imports torch and triton: never from the daemon.
"""

# a Triton kernel has no Python types
# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def _turned(X, base, c, gain, COS, SIN, n, D: tl.constexpr, R: tl.constexpr):
    """A head normalised, scaled and rotated; c runs over padded channels."""
    live = c < D
    x = tl.load(X + base + c, mask=live, other=0.0).to(tl.float32)
    inverse = 1.0 / tl.sqrt(tl.sum(x * x, 0) / D + 1e-6)
    half: tl.constexpr = R // 2
    partner = tl.where(c < half, c + half, c - half)
    turns = c < R
    y = tl.load(X + base + partner, mask=turns, other=0.0).to(tl.float32)
    scale = tl.load(gain + c, mask=live, other=0.0)
    other = tl.load(gain + partner, mask=turns, other=0.0)
    angle = tl.where(c < half, c, c - half)
    cosine = tl.load(COS + n * half + angle, mask=turns, other=1.0)
    sine = tl.load(SIN + n * half + angle, mask=turns, other=0.0)
    sign = tl.where(c < half, -1.0, 1.0)
    return x * inverse * scale * cosine + sign * y * inverse * other * sine


@triton.jit
def _ring_step(
    Q, K, V, RING_K, RING_V, SLOT, WRITTEN, COS, SIN, Q_GAIN, UNIT, DECAY, DIRECTION, GATE, FOLD_K, FOLD_V, FOLD_D, OUT,
    G: tl.constexpr, GROUP: tl.constexpr, T: tl.constexpr, D: tl.constexpr, R: tl.constexpr, M: tl.constexpr,
    PD: tl.constexpr, PT: tl.constexpr, PM: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    n, g = row // G, row % G
    c, t = tl.arange(0, PD), tl.arange(0, PT)
    live, last = c < D, c == D - 1
    at, written = tl.load(SLOT + n), tl.load(WRITTEN + n)
    k = _turned(K, row * D, c, UNIT, COS, SIN, n, D, R)
    k += tl.where(last, tl.where(written > 0, 1.0, -1.0e4), 0.0)
    v = tl.load(V + row * D + c, mask=live, other=0.0).to(tl.float32)
    dtype = RING_K.dtype.element_ty
    k_stored, v_stored = k.to(dtype), v.to(dtype)
    tl.store(RING_K + (row * T + at) * D + c, k_stored, mask=live)
    tl.store(RING_V + (row * T + at) * D + c, v_stored, mask=live)
    here = (t[:, None] < T) & live[None, :]
    place = (row * T + t[:, None]) * D + c[None, :]
    # the new row is taken from registers: a load need not see this program's own store
    new = (t == at)[:, None]
    keys = tl.where(new, k_stored[None, :], tl.load(RING_K + place, mask=here, other=0.0)).to(tl.float32)
    values = tl.where(new, v_stored[None, :], tl.load(RING_V + place, mask=here, other=0.0)).to(tl.float32)
    if M > 0:
        m, key = tl.arange(0, PM), D - R
        folds = m < M
        plain = (c >= R) & live & (c < D - 1)  # the half that does not turn, without its validity
        mu = tl.load(
            DIRECTION + (g * M + m[:, None]) * (key - 1) + (c[None, :] - R),
            mask=folds[:, None] & plain[None, :],
            other=0.0,
        )
        weight = tl.exp(3.0 * tl.sum(mu * k[None, :], 1)) * written
        total = tl.load(FOLD_D + row * M + m, mask=folds, other=0.0)
        total = total * tl.load(DECAY + n * M + m, mask=folds, other=0.0) + weight
        tl.store(FOLD_D + row * M + m, total, mask=folds)
        share = (weight / tl.maximum(total, 1e-30))[:, None]
        k_place = (row * M + m[:, None]) * key + (c[None, :] - R)
        k_here = folds[:, None] & ((c >= R) & live)[None, :]
        fold_k = (1.0 - share) * tl.load(FOLD_K + k_place, mask=k_here, other=0.0) + share * tl.where(plain, k, 0.0)[
            None, :
        ]
        tl.store(FOLD_K + k_place, fold_k, mask=k_here)
        v_place, v_here = (row * M + m[:, None]) * D + c[None, :], folds[:, None] & live[None, :]
        fold_v = (1.0 - share) * tl.load(FOLD_V + v_place, mask=v_here, other=0.0) + share * v[None, :]
        tl.store(FOLD_V + v_place, fold_v, mask=v_here)
    for i in range(GROUP):
        head = row * GROUP + i
        q = _turned(Q, head * D, c, Q_GAIN, COS, SIN, n, D, R) + tl.where(last, 1.0, 0.0)
        logit = tl.where(t < T, tl.sum(keys * q[None, :], 1), -float("inf"))
        p = tl.exp(logit - tl.max(logit, 0))
        out = tl.sum(p[:, None] * values, 0) / tl.sum(p, 0)
        if M > 0:
            score = tl.where(folds, tl.sum(fold_k * q[None, :], 1), -float("inf"))
            w = tl.exp(score - tl.max(score, 0))
            out += tl.load(GATE + g * GROUP + i) * tl.sum(w[:, None] * fold_v, 0) / tl.sum(w, 0)
        tl.store(OUT + head * D + c, out.to(OUT.dtype.element_ty), mask=live)


def ring_step(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ring_k: torch.Tensor, ring_v: torch.Tensor, slot: torch.Tensor,
    written: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, q_gain: torch.Tensor, decay: torch.Tensor,
    direction: torch.Tensor, gate: torch.Tensor, fold_k: torch.Tensor, fold_v: torch.Tensor, fold_d: torch.Tensor,
) -> Any:  # fmt: skip
    """Attended [n,h,d_h]; rings and folds are updated in place. Shapes as in ``ring_attention.cu``; ``gate`` is tanh already."""
    n, heads, width = q.shape
    kv_heads, slots, folds = ring_k.shape[1], ring_k.shape[2], decay.shape[1]
    out = torch.empty_like(q)
    unit = torch.full((width,), width**-0.5, device=q.device)
    padded = [triton.next_power_of_2(max(x, 1)) for x in (width, slots, folds)]
    _ring_step[(n * kv_heads,)](
        q, k, v, ring_k, ring_v, slot, written, cos, sin, q_gain, unit, decay, direction, gate, fold_k, fold_v, fold_d, out,
        G=kv_heads, GROUP=heads // kv_heads, T=slots, D=width, R=2 * cos.shape[-1], M=folds,
        PD=padded[0], PT=padded[1], PM=padded[2],
    )  # fmt: skip
    return out

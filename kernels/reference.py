"""RIFT in plain numpy: every formula written once, slowly, at the precision of its arguments.

This is what all other forms are held against: the PyTorch module, the ONNX graphs, the Triton and CUDA kernels. Nothing
here is fast. Shapes: n streams, h query heads, g = key heads, T slots, d_h head width, r rotated channels, M folds. The last channel of a key is
its validity: 1 where written, -1e4 where empty; the last channel of a query is 1 (research note, section 4.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import erf as _erf
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

INVALID = -1.0e4
EPS_QK = 1e-6
FOLD_FLOOR = 1e-30
EPS_LN = 1e-5
FOLD_SHARPNESS = 3.0

erf = np.vectorize(_erf, otypes=[np.float64])


def layer_norm(x: Array, gain: Array, bias: Array) -> Array:
    """(x - mean) / sqrt(var + 1e-5) * gain + bias over the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    out: Array = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPS_LN) * gain + bias
    return out


def rms_norm(x: Array, gain: Array) -> Array:
    """x / sqrt(mean(x^2) + 1e-6) * gain over the last axis (Zhang & Sennrich 2019)."""
    out: Array = x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS_QK) * gain
    return out


def softmax(x: Array) -> Array:
    """Exponentials that sum to one over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    out: Array = e / e.sum(-1, keepdims=True)
    return out


def gelu(x: Array) -> Array:
    """x * Phi(x), the exact form with erf."""
    out: Array = 0.5 * x * (1.0 + erf(x / np.sqrt(2.0)).astype(x.dtype))
    return out


def rotary_frequencies(rotary_dim: int, min_period_s: float, max_period_s: float) -> Array:
    """Angular speeds f64 [r/2], rad/s, periods spaced geometrically from the fastest to the slowest."""
    periods = np.geomspace(min_period_s, max_period_s, rotary_dim // 2) if rotary_dim > 2 else np.array([max_period_s])
    out: Array = 2.0 * np.pi / periods
    return out


def rotary_tables(time_s: Array, frequencies: Array) -> tuple[Array, Array]:
    """cos and sin f64 [..., r/2] of time_s [...] seconds.

    Always float64: in float32 the angle of a clock 1e6 frames old is wrong by 1.7e-2 (measured); in float64 by 1e-9.
    """
    angle = np.asarray(time_s, np.float64)[..., None] * frequencies
    return np.cos(angle), np.sin(angle)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Turn the first r channels of x [...,d_h] by the angles, half-split pairs (i, i + r/2) (RoPE, Su et al. 2021)."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return np.concatenate((a * cos - b * sin, b * cos + a * sin, rest), -1)


def ring_write(ring: Array, row: Array, slot: Array) -> Array:
    """A copy of ring [n,g,T,d_h] with row [n,g,d_h] of stream i at slot[i]; nothing is ever shifted."""
    out = ring.copy()
    out[np.arange(len(ring)), :, slot] = row
    return out


def ring_attend(q: Array, keys: Array, values: Array) -> Array:
    """softmax(q K^T) V per stream and head: q [n,h,c], K [n,g,T,c], V [n,g,T,e] -> [n,h,e]. The order of slots is irrelevant.

    Query heads i * h/g .. (i + 1) * h/g - 1 read key head i.
    """
    repeat = q.shape[1] // keys.shape[1]
    keys, values = np.repeat(keys, repeat, 1), np.repeat(values, repeat, 1)
    out: Array = np.einsum("nht,nhtc->nhc", softmax(np.einsum("nhc,nhtc->nht", q, keys)), values)
    return out


def fold_weight(k: Array, direction: Array, rotary_dim: int) -> Array:
    """w_m = exp(3 <mu_m, k_unrotated>): k [n,g,d_h], unit mu [g,M,d_h - r - 1] -> [n,g,M], within e^-3..e^3 since |k| <= 1."""
    out: Array = np.exp(FOLD_SHARPNESS * np.einsum("gmc,ngc->ngm", direction, k[..., rotary_dim:-1]))
    return out


def fold_update(
    keys: Array, values: Array, total: Array, decay: Array, weight: Array, k: Array, v: Array
) -> tuple[Array, Array, Array]:
    """Running weighted means with exponentially fading weights, M time-scales (TeSTra's Laplace kernel, Zhao & Kraehenbuehl 2022).

    total <- decay * total + weight;  a = weight / total;  keys <- (1 - a) keys + a k;  values likewise. Kept as means, not as sums:
    they stay in the range of their inputs for ever. keys [n,g,M,r'], values [n,g,M,d_h], total [n,g,M,1], decay [n,M],
    weight [n,g,M], k [n,g,r'], v [n,g,d_h].
    """
    total = total * decay[:, None, :, None] + weight[..., None]
    share = weight[..., None] / np.maximum(total, FOLD_FLOOR)
    return (1.0 - share) * keys + share * k[:, :, None], (1.0 - share) * values + share * v[:, :, None], total


def ring_attention_step(
    q: Array,
    k: Array,
    v: Array,
    keys: Array,
    values: Array,
    slot: Array,
    written: Array,
    cos: Array,
    sin: Array,
    q_gain: Array,
) -> tuple[Array, Array, Array, Array, Array]:
    """QK-norm, rotary, validity, slot write and ring attention of one frame; the part that the GPU kernels fuse.

    q [n,h,d_h], k and v [n,g,d_h] raw projections whose last q and k channel is 0; written [n] in {0,1}; cos, sin [n,r/2].
    Returns the attended [n,h,d_h], the new rings, and the final q and k.
    """
    width = q.shape[-1]
    valid = np.zeros(width, q.dtype)
    valid[-1] = 1.0
    unit = np.full(width, width**-0.5, q.dtype)
    q = rotate(rms_norm(q, q_gain), cos[:, None], sin[:, None]) + valid
    k = rotate(rms_norm(k, unit), cos[:, None], sin[:, None])
    k = k + (INVALID + written * (1.0 - INVALID))[:, None, None] * valid
    keys, values = ring_write(keys, k, slot), ring_write(values, v, slot)
    return ring_attend(q, keys, values), keys, values, q, k


def rift_step(
    weights: Mapping[str, Array], shape: Any, inputs: Mapping[str, Array], state: Mapping[str, Array]
) -> tuple[Array, dict[str, Array]]:
    """One frame of the whole network: y [C,E,d] and the new state.

    ``weights`` are the PyTorch module's parameters by name, ``shape`` anything with the fields of ``RiftConfig``, ``inputs`` and ``state``
    named and shaped as in the graph (``rift_export``).
    """
    n_cameras, dtype = len(inputs["xmask"]), inputs["we"].dtype
    x = _entities(weights, shape, inputs.get("det"), n_cameras, dtype)
    context = _context(weights, shape, inputs)
    new: dict[str, Array] = {}
    for i in range(shape.layers):
        w = {k.removeprefix(f"layers.{i}."): v for k, v in weights.items() if k.startswith(f"layers.{i}.")}
        x = x + _temporal(w, shape, inputs, state, new, i, layer_norm(x, w["norm_t.weight"], w["norm_t.bias"]))
        if shape.has_cross:
            x = x + _cross(w, shape, x, context, inputs["xmask"])
        y = layer_norm(x, w["norm_f.weight"], w["norm_f.bias"])
        x = x + gelu(y @ w["ffn_in.weight"].T + w["ffn_in.bias"]) @ w["ffn_out.weight"].T + w["ffn_out.bias"]
    x = layer_norm(x, weights["norm.weight"], weights["norm.bias"])
    return x.reshape(n_cameras, shape.streams, shape.d_model), new


def _entities(weights: Mapping[str, Array], shape: Any, tokens: Array | None, cameras: int, dtype: Any) -> Array:
    parts = []
    if shape.latents:
        parts.append(np.broadcast_to(weights["latent"], (cameras, *weights["latent"].shape)))
    if tokens is not None:
        parts.append(tokens @ weights["token.weight"].T + weights["token.bias"] if shape.token_dim else tokens)
    return np.concatenate(parts, 1).reshape(-1, shape.d_model).astype(dtype)


def _context(weights: Mapping[str, Array], shape: Any, inputs: Mapping[str, Array]) -> Array | None:
    if not shape.context:
        return None
    return layer_norm(inputs["ctx"] + weights["context_place"], weights["norm_c.weight"], weights["norm_c.bias"])


def _temporal(
    w: Mapping[str, Array],
    shape: Any,
    inputs: Mapping[str, Array],
    state: Mapping[str, Array],
    new: dict[str, Array],
    i: int,
    x: Array,
) -> Array:
    width, rot = shape.d_head, shape.rotary_dim
    live = np.arange(width) < width - 1
    q, k, v = (a.reshape(len(x), -1, width) for a in np.split(x @ w["qkv.weight"].T, _ends(shape), -1))
    a, new[f"K{i}"], new[f"V{i}"], q, k = ring_attention_step(
        q * live,
        k * live,
        v,
        state[f"K{i}"],
        state[f"V{i}"],
        inputs["slot"],
        inputs["we"],
        inputs["cos"][:, 0],
        inputs["sin"][:, 0],
        w["q_gain"],
    )
    if shape.folds:
        direction = w["fold_direction"] / np.linalg.norm(w["fold_direction"], axis=-1, keepdims=True)
        weight = fold_weight(k, direction, rot) * inputs["we"][:, None, None]
        old = (state[f"MK{i}"], state[f"MV{i}"], state[f"D{i}"])
        folds = fold_update(*old, inputs["dec"], weight, k[..., rot:] * live[rot:], v)
        new[f"MK{i}"], new[f"MV{i}"], new[f"D{i}"] = folds
        a = a + np.tanh(w["fold_gate"])[:, None] * ring_attend(q[..., rot:], folds[0], folds[1])
    out: Array = a.reshape(len(a), -1) @ w["out.weight"].T + w["out.bias"]
    return out


def _ends(shape: Any) -> tuple[int, int]:
    """Where queries end and keys end in a joint projection."""
    return shape.d_model, shape.d_model + shape.d_kv


def _cross(w: Mapping[str, Array], shape: Any, x: Array, context: Array | None, mask: Array) -> Array:
    cameras, width = len(mask), shape.d_head
    y = layer_norm(x, w["norm_x.weight"], w["norm_x.bias"]).reshape(cameras, shape.streams, -1)
    q, k, v = np.split(y @ w["x_qkv.weight"].T, _ends(shape), -1)
    if context is not None:
        ck, cv = np.split(context @ w["c_kv.weight"].T, 2, -1)
        k, v = np.concatenate((ck, k), 1), np.concatenate((cv, v), 1)
    q, k, v = (a.reshape(cameras, a.shape[1], -1, width).swapaxes(1, 2) for a in (q, k, v))
    q, k = rms_norm(q, w["x_gain"]), rms_norm(k, np.full(width, width**-0.5, x.dtype))
    k, v = np.repeat(k, shape.group, 1), np.repeat(v, shape.group, 1)
    a = softmax(q @ k.swapaxes(-1, -2) + mask) @ v
    out: Array = a.swapaxes(1, 2).reshape(len(x), -1) @ w["x_out.weight"].T + w["x_out.bias"]
    return out

"""What makes an offline pass equal a stream of steps: which keys a frame may see, and folds over a whole clip."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vedette.engines.models.attention import softmax

#: Frames whose mutual fold weights are held at once; raising it trades memory for fewer, larger products.
FOLD_CHUNK = 64


def band(present: Tensor, window: int) -> Tensor:
    """Which key j a query i may see, bool [C,E,t,t], for streams that were written where present [C,t,E].

    j <= i, j was written, and c_i + (1 - w_i) - c_j < window with c the running count of writes: a step without a write still
    overwrites the oldest slot with an invalid key, and the slot does not advance (research note, section 3.4).
    """
    w = present.transpose(1, 2).long()
    count = w.cumsum(-1)
    age = (count + 1 - w)[..., :, None] - count[..., None, :]
    t = present.shape[1]
    causal = torch.ones(t, t, dtype=torch.bool, device=present.device).tril()
    return (age < window) & causal & present.transpose(1, 2)[:, :, None, :]


def fold_offline(logit: Tensor, kv: Tensor, written: Tensor, time_s: Tensor, half_lives_s: tuple[float, ...]) -> Tensor:
    """mean_i = sum_j a_ij kv_j with a_ij = softmax over written j <= i of ln w_jm - ln 2 (tau_i - tau_j) / H_m.

    An independent form of the step's recurrence: attention with a log bias, all pairs of a chunk at once; between chunks one
    mean and its log weight are carried. logit [C,t,E,g,M], kv [C,t,E,g,F], written bool [C,t,E], time_s f64 [C,t] -> [C,t,E,g,M,F]; zero before
    the first write.
    """
    rate = math.log(2.0) / torch.tensor(half_lives_s, dtype=torch.float64, device=time_s.device)
    cameras, _, streams, heads, folds = logit.shape
    mean = kv.new_zeros(cameras, streams, heads, folds, kv.shape[-1])
    total = logit.new_full((cameras, streams, heads, folds), -math.inf)
    last, out = time_s[:, 0].double(), []
    logit = logit.masked_fill(~written[..., None, None], -math.inf)
    for start in range(0, time_s.shape[1], FOLD_CHUNK):
        part = slice(start, start + FOLD_CHUNK)
        tau = time_s[:, part].double()
        fade = (rate * (tau[:, :, None] - tau[:, None, :])[..., None]).to(kv.dtype)
        causal = torch.ones(fade.shape[1:3], dtype=torch.bool, device=kv.device).tril()
        bias = fade.neg().masked_fill(~causal[:, :, None], -math.inf)
        since = (rate * (tau - last[:, None])[..., None]).to(kv.dtype)
        carried = total[:, None] - since[:, :, None, None]
        # [C,i,E,g,M,1+j]: what is carried, then the frames of this chunk
        pairs = bias[:, :, None, None].movedim(-1, -2) + logit[:, part].permute(0, 2, 3, 4, 1)[:, None]
        share = softmax(torch.cat((carried[..., None], pairs), -1))
        now = torch.einsum("ciegmj,cjegf->ciegmf", share[..., 1:], kv[:, part]) + share[..., :1] * mean[:, None]
        out.append(now)
        mean, last = now[:, -1], tau[:, -1]
        total = torch.logsumexp(torch.cat((carried[:, -1, ..., None], pairs[:, -1]), -1), -1)
    return torch.cat(out, 1)

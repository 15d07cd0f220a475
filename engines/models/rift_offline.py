"""What makes an offline pass equal a stream of steps: which keys a frame may see, and folds over a whole clip."""

from __future__ import annotations

import torch
from torch import Tensor

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


def fold_offline(weight: Tensor, kv: Tensor, time_s: Tensor, half_lives_s: tuple[float, ...]) -> Tensor:
    """Mem_i = sum_{j <= i} 2^(-(tau_i - tau_j) / H_m) w_jm kv_j for every frame i, in chunks of FOLD_CHUNK frames.

    weight [C,t,E,h,M], kv [C,t,E,h,F], time_s f64 [C,t] -> [C,t,E,h,M,F]. Inside a chunk all pairs are multiplied out (an
    independent form of the step's recurrence); between chunks one memory is carried.
    """
    half_lives = torch.tensor(half_lives_s, dtype=torch.float64, device=time_s.device)
    carry, carried_to, out = None, time_s[:, :1], []
    for start in range(0, time_s.shape[1], FOLD_CHUNK):
        part = slice(start, start + FOLD_CHUNK)
        tau = time_s[:, part].double()
        age = tau[:, :, None] - tau[:, None, :]
        decay = torch.exp2(-age.clamp_min(0)[..., None] / half_lives)
        decay = (decay * (torch.ones_like(age).tril())[..., None]).to(kv.dtype)
        memory = torch.einsum("cijm,cjehm,cjehf->ciehmf", decay, weight[:, part], kv[:, part])
        if carry is not None:
            since = torch.exp2(-(tau - carried_to)[..., None] / half_lives).to(kv.dtype)
            memory = memory + since[:, :, None, None, :, None] * carry[:, None]
        out.append(memory)
        carry, carried_to = memory[:, -1], tau[:, -1:]
    return torch.cat(out, 1)

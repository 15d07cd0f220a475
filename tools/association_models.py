"""The learned worth of a pair: temporal attention over the track's ring, or a GRU of equal cost, then rivals look at one another.

Both encode a track's history into WIDTH numbers. A pair's token is made of that, the track's state and the pair's
geometry; it then attends over the other candidates of its track and the other tracks of its candidate, and answers
the log-odds that they are one object. Cost is linear in pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from association_pairs import PAIR, RING, STATE, TOKEN, View
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HIDDEN, HEADS = 24, 32, 2
#: so that a token costs a GRU what it costs attention
GRU_WIDTH = 18


@dataclass(slots=True)
class Batch:
    """Tensors of one or many calls, tracks and detections numbered through. See `association_pairs.View`."""

    token: Tensor
    valid: Tensor
    state: Tensor
    pair: Tensor
    gain: Tensor
    track: Tensor
    sighting: Tensor
    label: Tensor | None = None
    known: Tensor | None = None


class TemporalAttention(nn.Module):
    """The track's state asks its own ring of observations."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.ask = nn.Linear(TOKEN, WIDTH), nn.Linear(STATE, WIDTH)
        self.key, self.value = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH)

    def forward(self, token: Tensor, valid: Tensor, state: Tensor) -> Tensor:
        """token [N,RING,TOKEN], valid [N,RING], state [N,STATE] -> [N,WIDTH]."""
        x = F.relu(self.token(token))
        split = lambda z: z.unflatten(-1, (HEADS, WIDTH // HEADS))  # noqa: E731
        q, k, v = split(self.ask(state)), split(self.key(x)), split(self.value(x))
        logit = torch.einsum("nhd,nthd->nht", q, k) / (WIDTH // HEADS) ** 0.5
        logit = logit.masked_fill(~valid[:, None], -1e4)
        return torch.einsum("nht,nthd->nhd", logit.softmax(-1), v).flatten(1)


class Recurrence(nn.Module):
    """A GRU from the oldest observation to the newest."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(TOKEN, GRU_WIDTH), nn.Linear(GRU_WIDTH, WIDTH)

    def forward(self, token: Tensor, valid: Tensor, state: Tensor) -> Tensor:  # noqa: ARG002
        """As `TemporalAttention.forward`; ``state`` is not looked at."""
        h = token.new_zeros(len(token), GRU_WIDTH)
        for k in reversed(range(RING)):
            h = torch.where(valid[:, k, None], self.cell(token[:, k], h), h)
        return self.out(h)


class Forgetful(nn.Module):
    """No history at all: what the rest of the network is worth."""

    def forward(self, token: Tensor, valid: Tensor, state: Tensor) -> Tensor:  # noqa: ARG002
        """Zeros [N,WIDTH]."""
        return token.new_zeros(len(token), WIDTH)


ENCODERS = {"attention": TemporalAttention, "gru": Recurrence, "none": Forgetful}


class Association(nn.Module):
    """Log-odds [P] that the pairs of a batch are one object each."""

    def __init__(self, encoder: str) -> None:
        super().__init__()
        self.history = ENCODERS[encoder]()
        self.track_in, self.pair_in = nn.Linear(WIDTH + STATE, HIDDEN), nn.Linear(PAIR + 1, HIDDEN)
        self.inner = nn.Linear(HIDDEN, HIDDEN)
        self.heed, self.tell = nn.Linear(HIDDEN, 2), nn.Linear(HIDDEN, HIDDEN)
        self.outer, self.odds = nn.Linear(3 * HIDDEN, HIDDEN), nn.Linear(HIDDEN, 1)
        self.trust = nn.Parameter(torch.tensor(1.0))

    def forward(self, b: Batch) -> Tensor:
        """Log-odds [P]."""
        past = self.track_in(torch.cat((self.history(b.token, b.valid, b.state), b.state), -1))
        x = F.relu(self.pair_in(torch.cat((b.pair, b.gain[:, None]), -1)) + past[b.track])
        x = F.relu(self.inner(x))
        weight = torch.exp(4 * torch.tanh(self.heed(x)))
        told = self.tell(x)
        tracks, sightings = len(b.state), int(b.sighting.max()) + 1 if len(b.sighting) else 0
        mine = pooled(told, weight[:, :1], b.track, tracks)
        other = pooled(told, weight[:, 1:], b.sighting, sightings)
        y = F.relu(self.outer(torch.cat((x, mine, other), -1)))
        return self.odds(y)[:, 0] + self.trust * b.gain


def pooled(value: Tensor, weight: Tensor, place: Tensor, places: int) -> Tensor:
    """Each entry's mean of the *other* entries of its place, weighted; zeros where it is alone."""
    total = value.new_zeros(places, value.shape[1] + 1)
    each = torch.cat((value * weight, weight), -1)
    rest = total.index_add(0, place, each)[place] - each
    return rest[:, :-1] / rest[:, -1:].clamp_min(1e-3)


def load(encoder: str, path: Path) -> Association:
    """The network that `train_association.py` left."""
    net = Association(encoder)
    with np.load(path) as weights:
        net.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files})
    return net.eval()


def worth_of(net: Association, weight: float) -> Callable[[View], np.ndarray]:
    """Geometry's gain plus ``weight`` times the log-odds in -4..4; the gates stay geometry's, so that it only chooses among its pairs."""

    @torch.no_grad()
    def worth(view: View) -> np.ndarray:
        gain = view.gain.astype(np.float64)
        if not gain.any():
            return gain
        parts = (view.token, view.valid, view.state, view.pair, view.gain, view.track, view.sighting)
        odds = net(Batch(*(torch.from_numpy(np.ascontiguousarray(p)) for p in parts))).double().numpy()
        return np.where(gain > 0, np.maximum(gain + weight * (np.clip(odds, -4, 4) + 4), 1e-3), 0.0)

    return worth


def cost_of(encoder: str) -> int:
    """Multiplications a track for its history."""
    if encoder == "attention":
        return RING * (TOKEN * WIDTH + 2 * WIDTH * WIDTH + 2 * WIDTH) + STATE * WIDTH
    if encoder == "gru":
        return RING * 3 * GRU_WIDTH * (TOKEN + GRU_WIDTH) + GRU_WIDTH * WIDTH
    return 0

"""Train the evidence heads `fight` and `fall` and write engines/weights/vedette-events.onnx with its sidecar.

    train_events.py --features FOLDER --cache FOLDER --out engines/weights/vedette-events.onnx [--variants 0 1]

``--features`` is what `event_features` has written. Trained on: the fights (MIT), the falls of GMDCSA24 (MIT) and
synthetic people (`event_synthetic`); nothing else. A few minutes on one core. The same seed gives the same weights.

fight: motion tokens -> folds -> logistic regression, every picture from half a second on with its clip's label; drops, time
jitter and noise in the features; mirrored, cropped and re-timed variants of the clips. Calibrated by Platt's method on the
peaks of held-out groups. fall: box numbers -> folds -> 24 hidden units, synthetic people and real clips.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence as Many
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from event_data import Sequence, fall_span, load, read
from event_models import Batch, Folds, make
from event_synthetic import crowd
from torch import Tensor, nn

from vedette.engines.events import PERSON, TRACK_NUMBERS, EventsSpec
from vedette.engines.models.event_graph import export_events
from vedette.engines.temporal_spec import EMBEDDING_DIM, TOKEN_DIM, sidecar_path
from vedette.streamer.infer.motion import NUMBERS, PACE_S

Weights = dict[str, np.ndarray]
SCENE_HALF_LIVES_S = Folds.half_lives_s
TRACK_HALF_LIVES_S = (0.4, 1.5, 6.0)
HIDDEN, KNOWN_S, LONGEST, SLOTS = 24, 0.45, 40, 4
FOLDS, CALIBRATION_SEEDS = 5, 3
#: Inverse weight of the regression's penalty; raise: closer to the training clips.
PENALTY = 0.1


def collate(sequences: Many[Sequence], r: np.random.Generator | None = None) -> Batch:
    """Clips side by side; with ``r`` pictures are lost, the start is cut, numbers and slots are shaken."""
    n, t = len(sequences), max(min(len(s.time_s), LONGEST) for s in sequences)
    motion, tokens = np.zeros((n, t, 128), np.float32), np.zeros((n, t, SLOTS, TOKEN_DIM), np.float32)
    present, valid, time_s = np.zeros((n, t, SLOTS), np.bool_), np.zeros((n, t), np.bool_), np.zeros((n, t))
    for i, s in enumerate(sequences):
        rows = np.arange(min(len(s.time_s), LONGEST))
        slots = np.argsort(-s.present.sum(0), kind="stable")[:SLOTS]
        if r is not None:
            rows = rows[r.random(len(rows)) > 0.1]
            rows = rows[r.integers(0, 6) :] if len(rows) > 12 and r.random() < 0.3 else rows
            slots = r.permutation(slots)
        k = len(rows)
        motion[i, :k], tokens[i, :k], present[i, :k] = (
            s.motion[rows],
            s.tokens[rows][:, slots],
            s.present[rows][:, slots],
        )
        valid[i, :k], time_s[i, :k] = True, s.time_s[rows] - s.time_s[rows[0]]
        time_s[i, k:] = time_s[i, k - 1]
        if r is not None:
            part = motion[i, :k, :NUMBERS]
            told = part.any(1, keepdims=True)
            part *= 1 + 0.1 * r.standard_normal((1, NUMBERS)).astype(np.float32)
            part += 0.05 * told * r.standard_normal(part.shape).astype(np.float32)
            present[i] &= r.random() > 0.3
    arrays = (motion, tokens, present, valid, time_s)
    return Batch(*(torch.from_numpy(a) for a in arrays))


def known(batch: Batch) -> Tensor:
    """bool [B,t]: pictures whose answer counts."""
    return batch.valid & (batch.time_s >= KNOWN_S)


def fit_fight(
    name: str, pool: Many[Sequence], *, epochs: int, rate: float, decay: float, seed: int = 0, **options: object
) -> nn.Module:
    """A model of ``event_models`` fitted to clips that say whether they show a fight."""
    torch.manual_seed(seed)
    r, net = np.random.default_rng(seed), make(name, **options)
    net.fit_scale(collate(pool[:400]))
    share = float(np.mean([s.fight for s in pool]))
    weight = torch.tensor([0.5 / (1 - share), 0.5 / share])
    steps = epochs * (len(pool) // 32)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
    order = np.array([], np.int64)
    net.train()
    for _ in range(steps):
        if len(order) < 32:
            order = r.permutation(len(pool))
        part, order = [pool[i] for i in order[:32]], order[32:]
        batch = collate(part, r)
        label = torch.tensor([s.fight for s in part])
        logit, _ = net(batch)
        here = known(batch).float()
        each = F.binary_cross_entropy_with_logits(
            logit, (label * 0.9 + 0.05)[:, None].expand_as(logit), reduction="none"
        )
        loss = ((each * here).sum(1) / here.sum(1).clamp_min(1) * weight[label]).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return net.eval()


@torch.no_grad()
def peaks(net: nn.Module, sequences: Many[Sequence]) -> np.ndarray:
    """The highest logit of each clip among the pictures that count."""
    out = []
    for s in sequences:
        batch = collate([s])
        logit, here = net(batch)[0][0], known(batch)[0]
        out.append(float(logit[here].max()) if here.any() else float(logit.max()))
    return np.array(out)


def group_folds(sequences: Many[Sequence], seed: int) -> list[np.ndarray]:
    """Indices of the clips of each of `FOLDS` parts; a source group lies in one part."""
    from sklearn.model_selection import StratifiedGroupKFold

    label, group = [s.fight for s in sequences], [s.group for s in sequences]
    split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    return [test for _, test in split.split(label, label, group)]


def fold_rows(s: Sequence, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """f64 [t, M * NUMBERS]: the folds after each picture that counts, by the graph's own recurrence."""
    x = np.clip((s.motion[:, :NUMBERS] - mean) / std, -5, 5)
    told = s.motion[:, :NUMBERS].any(1)
    state, total = np.zeros((len(SCENE_HALF_LIVES_S), NUMBERS)), np.zeros(len(SCENE_HALF_LIVES_S))
    out, last_s = [], s.time_s[0]
    for row, time_s in zip(np.flatnonzero(told), s.time_s[told], strict=True):
        total = total * np.exp2(-(time_s - last_s) / np.asarray(SCENE_HALF_LIVES_S)) + 1
        state = state + (x[row] - state) / total[:, None]
        last_s = time_s
        if time_s - s.time_s[0] >= KNOWN_S:
            out.append(state.ravel())
    return np.asarray(out).reshape(-1, state.size)


def worn(s: Sequence, r: np.random.Generator) -> Sequence:
    """The clip with lost pictures and shaken numbers."""
    rows = np.flatnonzero(r.random(len(s.time_s)) > 0.15)
    motion = s.motion[rows].copy()
    part = motion[:, :NUMBERS]
    told = part.any(1, keepdims=True)
    part *= 1 + 0.1 * r.standard_normal((1, NUMBERS)).astype(np.float32)
    part += 0.05 * told * r.standard_normal(part.shape).astype(np.float32)
    return Sequence(s.name, s.group, motion, s.tokens[rows], s.present[rows], s.time_s[rows], s.fight)


def fit_regression(pool: Many[Sequence], *, seed: int = 0) -> Weights:
    """The shipped head: folds, then a logistic regression over pictures; every clip weighs the same, so does every label."""
    from sklearn.linear_model import LogisticRegression

    r = np.random.default_rng(seed)
    frames = np.concatenate([s.motion[2:, :NUMBERS] for s in pool])
    mean, std = frames.mean(0), frames.std(0) + 0.05
    both = [(fold_rows(c, mean, std), s.fight) for s in pool for c in (s, worn(s, r))]
    both = [(rows, label) for rows, label in both if len(rows)]
    weight = np.concatenate([np.full(len(rows), 1 / len(rows)) for rows, _ in both])
    label = np.repeat([label for _, label in both], [len(rows) for rows, _ in both])
    share = (weight * label).sum() / weight.sum()
    weight *= np.where(label > 0, 0.5 / share, 0.5 / (1 - share))
    head = LogisticRegression(C=PENALTY, max_iter=150).fit(np.concatenate([r for r, _ in both]), label, weight)
    return {"mean": mean, "std": std, "w": head.coef_, "b": head.intercept_}


def regression_logits(weights: Weights, s: Sequence) -> np.ndarray:
    """Logit after each picture that counts."""
    return np.asarray(fold_rows(s, weights["mean"], weights["std"]) @ weights["w"][0] + weights["b"][0])


def out_of_group(name: str, variants: Many[Many[Sequence]], seed: int, **how: object) -> np.ndarray:
    """Peak logits [clips] of variant 0, each from a model that has not seen the clip's group. name: see ``event_models``, or ``shipped``."""
    whole = variants[0]
    out = np.zeros(len(whole))
    for test in group_folds(whole, seed):
        hidden = {whole[i].group for i in test}
        pool = [s for clips in variants for s in clips if s.group not in hidden]
        held = [whole[i] for i in test]
        if name == "shipped":
            weights = fit_regression(pool, seed=seed)
            out[test] = [regression_logits(weights, s).max(initial=-9.0) for s in held]
        else:
            out[test] = peaks(fit_fight(name, pool, seed=seed, **how), held)  # type: ignore[arg-type]
    return out


def platt(logit: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """a, b with P = 1 / (1 + exp(-(a logit + b))), by Newton's method with Platt's smoothed targets."""
    target = np.where(label > 0, (label.sum() + 1) / (label.sum() + 2), 1 / ((1 - label).sum() + 2))
    x, w = np.stack([logit, np.ones_like(logit)], 1), np.array([1.0, 0.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ w))
        w -= np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(2), x.T @ (p - target))
    return float(w[0]), float(w[1])


class FallNet(nn.Module):
    """numbers [B,t,6] -> logit [B,t]; the twin of the graph's ``track`` part."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([-1.0, -0.6, 0.4, 0.8, 0.0, 0.6]))
        self.register_buffer("std", torch.tensor([0.5, 0.6, 0.25, 0.2, 0.5, 0.25]))
        self.w1 = nn.Linear(TRACK_NUMBERS * (1 + len(TRACK_HALF_LIVES_S)), HIDDEN)
        self.w2 = nn.Linear(HIDDEN, 1)

    def forward(self, x: Tensor, time_s: Tensor) -> Tensor:
        x = ((x - self.mean) / self.std).clamp(-5, 5)
        rate = np.log(2) / torch.tensor(TRACK_HALF_LIVES_S)
        age = (time_s[:, :, None] - time_s[:, None, :]).float()
        weight = torch.exp(-rate * age[..., None].clamp_min(0)) * torch.ones_like(age).tril()[..., None]
        mean = torch.einsum("bijm,bjf->bimf", weight / weight.sum(2, keepdim=True), x)
        inputs = torch.cat([x, (x[:, :, None] - mean).flatten(2)], -1)
        # where somebody stands in the picture and how tall they look is the camera's affair: only changes are seen
        inputs = inputs * self.shown
        return self.w2(torch.tanh(self.w1(inputs)))[..., 0]

    @property
    def shown(self) -> Tensor:
        mask = torch.ones(self.w1.in_features)
        mask[[0, 2, 3]] = 0
        return mask


def real_people(sequences: Many[Sequence], features: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Every person's track of the fall clips: numbers, label, time_s."""
    out = []
    for s in sequences:
        _, meta = read(features / "falls" / "0" / (s.name.replace("/", "_") + ".npz"))
        span = fall_span(meta["classes"])
        for k in range(s.tokens.shape[1]):
            rows = np.flatnonzero(s.present[:, k])
            if len(rows) < 6 or s.tokens[rows[0], k, EMBEDDING_DIM + 8 :].argmax() != PERSON:
                continue
            t = s.time_s[rows]
            label = np.zeros(len(rows), np.float32)
            if span is not None:
                label[(t > span[0] - 0.3) & (t < span[0] + 0.7)] = np.nan
                label[t >= span[0] + 0.7] = 1
            out.append((numbers_of(s.tokens[rows, k], meta["aspect"]), label, t))
    return out


def numbers_of(tokens: np.ndarray, aspect: float) -> np.ndarray:
    """Track tokens [t,TOKEN_DIM] -> the numbers [t,6] that `engines.events.track_numbers` makes of the same boxes."""
    _, cy, w, h, _, vy, score = tokens[:, EMBEDDING_DIM : EMBEDDING_DIM + 7].T
    height, width = np.maximum(h, 1e-3), np.maximum(w, 1e-3) * aspect
    return np.stack(
        [np.log(height), np.log(width / height), cy - h / 2, cy + h / 2, np.clip(vy / height, -4, 4), score], 1
    ).astype(np.float32)


def fit_fall(
    real: Many[tuple[np.ndarray, np.ndarray, np.ndarray]], *, people: int = 3000, steps: int = 900, seed: int = 0
) -> FallNet:
    """Synthetic people, and in each batch a quarter of real ones (tilted and shaken) where there are any."""
    torch.manual_seed(seed)
    r, net, made = np.random.default_rng(seed), FallNet(), crowd(people, seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        part = [made[i] for i in r.integers(0, len(made), 48)] + [
            real[i] for i in r.integers(0, len(real), 16 if real else 0)
        ]
        t = max(len(x) for x, _, _ in part)
        x, label, time_s = (
            np.zeros((len(part), t, TRACK_NUMBERS), np.float32),
            np.full((len(part), t), np.nan, np.float32),
            np.zeros((len(part), t)),
        )
        for i, (numbers, said, clock) in enumerate(part):
            k = len(numbers)
            x[i, :k] = numbers + r.normal(0, 0.02, numbers.shape)
            x[i, :k, 1] += r.normal(0, 0.1)
            label[i, :k], time_s[i, :k], time_s[i, k:] = said, clock, clock[-1]
        label[time_s - time_s[:, :1] < KNOWN_S] = np.nan
        said = torch.from_numpy(label)
        logit = net(torch.from_numpy(x), torch.from_numpy(time_s))
        here = ~torch.isnan(said)
        loss = F.binary_cross_entropy_with_logits(logit[here], said[here])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def fall_weights(net: FallNet) -> Weights:
    w1 = (net.w1.weight * net.shown).detach().numpy()
    return {
        "mean": net.mean.numpy(), "std": net.std.numpy(), "w1": w1, "b1": net.w1.bias.detach().numpy(),
        "w2": net.w2.weight.detach().numpy(), "b2": net.w2.bias.detach().numpy(),
    }  # fmt: skip


def calibrated(weights: Weights, a: float, b: float) -> Weights:
    """The regression with its calibration folded in."""
    return {**weights, "w": a * weights["w"], "b": a * weights["b"] + b}


def write(out: Path, fight: Weights, fall: Weights) -> EventsSpec:
    """Graph and sidecar."""
    graph = export_events(fight, fall)
    linear = tuple(tuple(float(f"{v:.7g}") for v in fight[k].ravel()) for k in ("w", "mean", "std"))
    spec = EventsSpec(
        NUMBERS, SCENE_HALF_LIVES_S, TRACK_HALF_LIVES_S, PACE_S, hashlib.sha256(graph).hexdigest(), linear
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(graph)
    sidecar_path(out).write_text(spec.to_json())
    return spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", type=int, nargs="+", default=[0, 1])
    a = parser.parse_args()
    torch.set_num_threads(1)
    a.cache.mkdir(parents=True, exist_ok=True)
    variants = [load(a.features, "fights", v, a.cache) for v in a.variants]
    label = np.array([s.fight for s in variants[0]])
    runs = [out_of_group("shipped", variants, seed) for seed in range(CALIBRATION_SEEDS)]
    slope, offset = platt(np.concatenate(runs), np.tile(label, len(runs)))
    fight = fit_regression([s for clips in variants for s in clips])
    falls = load(a.features, "falls", 0, a.cache)
    fall = fit_fall(real_people(falls, a.features))
    spec = write(a.out, calibrated(fight, slope, offset), fall_weights(fall))
    np.savez(a.cache / "out_of_group.npz", peaks=np.stack(runs), label=label)
    print(json.dumps({"platt": [slope, offset], "sha256": spec.sha256}))


if __name__ == "__main__":
    main()

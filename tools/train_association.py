"""Train the learned worth of a pair on simulated scenes, and its ablations.

python tools/train_association.py simulate --out work            # the tracker over simulated scenes -> work/pairs-*.npz
python tools/train_association.py fit --out work --encoder attention
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from association_models import ENCODERS, Association, Batch, cost_of
from association_pairs import Historian, View
from association_scenes import ASPECT, draw_scene
from torch.nn import functional as F

from vedette.engines.api import Detections

FIELDS = ("token", "valid", "state", "pair", "gain", "track", "sighting")
#: scenes a file, the part of their pictures that is kept, calls (each a picture of all scenes of a file) a batch, histories swapped a call
TOGETHER, EVERY, CALLS, SWAPS = 32, 0.4, 6, 0.015


class Book:
    """Views of calls, written down: each with labels of its pairs."""

    def __init__(self, seed: int) -> None:
        self.part: dict[str, list[np.ndarray]] = {
            k: [] for k in (*FIELDS, "label", "known", "tracks", "pairs", "sightings")
        }
        self._rng = np.random.default_rng(seed)

    def note(self, view: View, owner: np.ndarray, truth: np.ndarray) -> None:
        """Keep a view, now and then."""
        if self._rng.random() > EVERY or not len(view.track):
            return
        a, b = owner[view.track], truth[view.sighting]
        for k in FIELDS:
            self.part[k].append(getattr(view, k))
        self.part["label"].append((a == b) & (a >= 0))
        # of a false box on a track that began with one nothing is known
        self.part["known"].append((a >= 0) | (b >= 0))
        for k, n in (("tracks", len(owner)), ("pairs", len(a)), ("sightings", len(truth))):
            self.part[k].append(np.array([n]))

    def save(self, path: Path) -> None:
        """All in one file, half precision where numbers are features."""
        full = {k: np.concatenate(v) for k, v in self.part.items()}
        for k in ("token", "state", "pair", "gain"):
            full[k] = full[k].astype(np.float16)
        for k in ("track", "sighting"):
            full[k] = full[k].astype(np.int32)
        np.savez(path, **full)


def run_scenes(seeds: range, book: Book) -> None:
    """One tracker over many scenes side by side."""
    scenes = [draw_scene(s) for s in seeds]
    tracker = Historian(on_view=book.note, swaps=SWAPS, seed=seeds.start)
    for k in range(max(len(s.time_s) for s in scenes)):
        live = [(i, s) for i, s in enumerate(scenes) if k < len(s.time_s)]
        tracker.truth = [s.who[k] for _, s in live]
        tracker.update(
            [str(i) for i, _ in live],
            [float(s.time_s[k]) for _, s in live],
            [Detections(s.box[k], s.score[k], np.zeros(len(s.score[k]), np.int32)) for _, s in live],
            [ASPECT] * len(live),
        )


def simulate(folder: Path, scenes: int) -> list[Path]:
    """Files of pairs, TOGETHER scenes each; those that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"pairs-{first:05d}.npz" for first in range(0, scenes, TOGETHER)]
    for i, path in enumerate(paths):
        if path.exists():
            continue
        book = Book(i * TOGETHER)
        run_scenes(range(i * TOGETHER, (i + 1) * TOGETHER), book)
        book.save(path)
        print(path.name, sum(map(len, book.part["track"])), "pairs", file=sys.stderr, flush=True)
    return paths


class Pool:
    """Every call of the files, cut into batches of whole calls."""

    def __init__(self, paths: list[Path]) -> None:
        parts = [np.load(p) for p in paths]
        self.data = {k: np.concatenate([p[k] for p in parts]) for k in parts[0].files}
        for k in ("token", "state", "pair", "gain"):
            self.data[k] = self.data[k].astype(np.float32)
        self.first = {k: np.concatenate([[0], np.cumsum(self.data[k])]) for k in ("tracks", "pairs")}
        self.calls = len(self.data["tracks"])

    def batch(self, calls: np.ndarray) -> Batch:
        """The calls, tracks and detections numbered through."""
        span = lambda kind: np.concatenate([np.arange(self.first[kind][c], self.first[kind][c + 1]) for c in calls])  # noqa: E731
        t, p = span("tracks"), span("pairs")
        d, n = self.data, self.data["pairs"][calls]
        base = lambda kind: np.repeat(np.cumsum([0, *d[kind][calls][:-1]]), n)  # noqa: E731
        arrays = (
            d["token"][t],
            d["valid"][t],
            d["state"][t],
            d["pair"][p],
            d["gain"][p],
            d["track"][p] + base("tracks"),
            d["sighting"][p] + base("sightings"),
            d["label"][p].astype(np.float32),
            d["known"][p].astype(np.float32),
        )
        return Batch(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))


def loss_of(net: Association, b: Batch) -> torch.Tensor:
    """Cross-entropy of the known pairs, and of choosing among a track's candidates and among a candidate's tracks."""
    odds = net(b)
    each = F.binary_cross_entropy_with_logits(odds, b.label, reduction="none")
    return (each * b.known).sum() / b.known.sum() + chosen(odds, b.label, b.track) + chosen(odds, b.label, b.sighting)


def chosen(odds: torch.Tensor, label: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the true pair among all pairs of its place, over the places that have one."""
    weight = torch.exp(odds.clamp(-30, 30))
    total = weight.new_zeros(int(place.max()) + 1).index_add(0, place, weight)[place]
    return -((weight / total).clamp_min(1e-9).log() * label).sum() / label.sum()


def worn(b: Batch, generator: torch.Generator) -> Batch:
    """The batch with histories that lack observations and shake; the newest stays."""
    gone = torch.rand(b.valid.shape, generator=generator) < 0.1
    gone[:, 0] = False
    b.valid = b.valid & ~gone
    b.token = (b.token + 0.02 * torch.randn(b.token.shape, generator=generator)) * b.valid[..., None]
    return b


def judge(net: Association, batches: list[Batch]) -> dict[str, float]:
    """Mean loss over batches of scenes that were not trained on, and the share of pairs judged wrongly."""
    with torch.no_grad():
        loss = np.mean([loss_of(net, b).item() for b in batches])
        wrong = np.mean([((((net(b) > 0).float() != b.label) * b.known).sum() / b.known.sum()).item() for b in batches])
    return {"loss": round(float(loss), 4), "wrong": round(float(wrong), 4)}


def fit(encoder: str, pool: Pool, held: list[Batch], steps: int, seed: int) -> Association:
    """One network; every encoder sees the same batches in the same order."""
    torch.manual_seed(seed)
    net, began = Association(encoder), time.process_time()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    r, g = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    for k in range(1, steps + 1):
        loss = loss_of(net, worn(pool.batch(r.integers(0, pool.calls, CALLS)), g))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if k % 250 == 0:
            spent = time.process_time() - began
            print(f"{encoder} {k}: {judge(net, held)}, {spent:.0f} s of CPU", file=sys.stderr, flush=True)
    return net.eval()


def main() -> int:
    """Simulate, then fit; what is there from an earlier run is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the pairs and the models")
    parser.add_argument("--scenes", type=int, default=448)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--encoders", nargs="+", choices=tuple(ENCODERS), default=tuple(ENCODERS))
    args = parser.parse_args()
    if args.scenes <= TOGETHER:
        parser.error(f"--scenes: needs more than {TOGETHER}, which are kept to judge by, got {args.scenes}")
    torch.set_num_threads(1)
    paths = simulate(args.out, args.scenes)
    pool, last = Pool(paths[1:]), Pool(paths[:1])
    held = [last.batch(np.arange(k, min(k + CALLS, last.calls))) for k in range(0, last.calls, CALLS)]
    for encoder in args.encoders:
        path = args.out / f"{encoder}.npz"
        if path.exists():
            continue
        net = fit(encoder, pool, held, args.steps, args.seed)
        np.savez(path, **{name: value.numpy() for name, value in net.state_dict().items()})
        size = sum(p.numel() for p in net.parameters())
        print(
            json.dumps({"encoder": encoder, **judge(net, held), "parameters": size, "history_cost": cost_of(encoder)})
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

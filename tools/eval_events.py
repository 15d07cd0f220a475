"""Figures of the learned evidence, JSON to stdout.

    eval_events.py fights --features F --cache C --peers P    grouped 5-fold: AUC, accuracy, time to detection, against the floors
    eval_events.py delay  --features F --cache C              time to detection at the shipped threshold
    eval_events.py falls  --features F --cache C              leave one subject out: recall, precision, delay, false alarms
    eval_events.py quiet  --features F                        false alarms of the shipped model on clips without either
    eval_events.py ablation --features F --cache C            RIFT with window 1, 16, 64, folds and track cross-attention on and off; a GRU
                                                              of equal cost; a regression a picture; what is shipped
    eval_events.py urfall --data D                            30 falls and 40 daily activities of UR Fall that nothing was trained on: only
                                                              how tall and how high above the floor people are is known, so the boxes are
                                                              drawn twice, as wide as a stick of the person's length that is tilted so far,
                                                              and never wider than somebody who stands; the truth lies between

Intervals are 95 %, bootstrap over source groups. ``falls`` and ``quiet`` run the real pipeline, rules included, on the stored
detections. See `event_features` and `event_peers` for F and P.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence as Many
from pathlib import Path
from typing import Any

import numpy as np
import torch
from event_data import Sequence, detections_of, fall_span, load, motion_tokens, read
from event_models import cost, make
from train_events import (
    fall_weights,
    fit_fall,
    fit_regression,
    group_folds,
    out_of_group,
    platt,
    real_people,
    regression_logits,
    write,
)

from vedette.engines.api import LABELS, Detections
from vedette.engines.events import EventEvidence
from vedette.engines.temporal_load import resolve_temporal
from vedette.streamer.config.schema import CameraDefaults
from vedette.streamer.infer.incidents import Moment
from vedette.streamer.infer.learned import EvidenceStage
from vedette.streamer.infer.motion import NUMBERS
from vedette.streamer.infer.pipeline import Pipeline
from vedette.streamer.tracking.tracker import TrackerConfig
from vedette.streamer.types import Event

SEEDS, DRAWS = 5, 2000
RULES = [{"kind": "fight"}, {"kind": "fall"}]
#: Of UR Fall: how tall somebody upright is, of the picture, and how wide of that.
UPRIGHT_SHARE, SLENDER = 0.45, 0.3
#: RIFT; six epochs, because each costs minutes of a CPU. Every other model of the ablation has its clips, its parts and its augmentation.
RIFT: dict[str, Any] = {"name": "rift", "epochs": 6, "rate": 0.004, "decay": 0.1, "width": 32}
SHIPPED = "folds, logistic regression (shipped)"
ABLATION: dict[str, dict[str, Any]] = {
    SHIPPED: {"name": "shipped"},
    "logistic regression a picture": {"name": "frame", "epochs": 10, "rate": 0.01, "decay": 0.05},
    "GRU of equal cost": {"name": "gru", "epochs": 10, "rate": 0.003, "decay": 0.05, "gru_width": 75},
    "RIFT, window 64, folds, tracks": {**RIFT, "window": 64},
    "RIFT, window 1, no folds, tracks": {**RIFT, "window": 1, "folds": False},
    "RIFT, window 16, no folds, tracks": {**RIFT, "window": 16, "folds": False},
    "RIFT, window 64, no folds, tracks": {**RIFT, "window": 64, "folds": False},
    "RIFT, window 1, folds, tracks": {**RIFT, "window": 1},
    "RIFT, window 16, folds, tracks": {**RIFT, "window": 16},
    "RIFT, window 64, folds, no tracks": {**RIFT, "window": 64, "cross": False},
}
MODELS: dict[str, dict[str, Any]] = {
    "shipped": {"name": "shipped"},
    "gru": {"name": "gru", "epochs": 15, "rate": 0.003, "decay": 0.05},
    "frame": {"name": "frame", "epochs": 20, "rate": 0.01, "decay": 0.05},
}


def auc(score: np.ndarray, label: np.ndarray) -> float:
    """Chance that a fight scores higher than another clip; ties count half."""
    from scipy.stats import rankdata

    rank, n = rankdata(score), int(label.sum())
    if n in (0, len(label)):
        return float("nan")
    return float((rank[label > 0].sum() - n * (n + 1) / 2) / (n * (len(label) - n)))


def resampled(groups: Many[str], seed: int = 0) -> list[np.ndarray]:
    """Row indices of bootstrap draws of whole groups."""
    r, names = np.random.default_rng(seed), sorted(set(groups))
    rows = {g: np.flatnonzero(np.array(groups) == g) for g in names}
    return [np.concatenate([rows[names[i]] for i in r.integers(0, len(names), len(names))]) for _ in range(DRAWS)]


def interval(values: Many[float]) -> list[float]:
    """The middle 95 %."""
    return [round(float(v), 3) for v in np.nanpercentile(values, (2.5, 97.5))]


def measured(runs: np.ndarray, label: np.ndarray, draws: Many[np.ndarray]) -> dict[str, Any]:
    """runs [seeds, clips] out-of-group scores -> AUC and accuracy at the calibrated one half, means over the seeds."""
    hits = []
    for run in runs:
        a, b = platt(run, label)
        hits.append(((a * run + b) > 0) == (label > 0))
    mean_hits = np.mean(hits, 0)
    return {
        "auc": round(float(np.mean([auc(run, label) for run in runs])), 3),
        "auc_interval": interval([np.mean([auc(run[d], label[d]) for run in runs]) for d in draws]),
        "accuracy": round(float(mean_hits.mean()), 3),
        "accuracy_interval": interval([mean_hits[d].mean() for d in draws]),
    }


def peer_scores(make: Any, x: np.ndarray, clips: Many[Sequence], seed: int) -> np.ndarray:
    """Out-of-group log-odds of a scikit-learn model, on the same parts as ours."""
    label, out = np.array([s.fight for s in clips]), np.zeros(len(clips))
    for test in group_folds(clips, seed):
        train = np.setdiff1d(np.arange(len(clips)), test)
        p = np.clip(make().fit(x[train], label[train]).predict_proba(x[test])[:, 1], 1e-4, 1 - 1e-4)
        out[test] = np.log(p / (1 - p))
    return out


def peers(folder: Path, clips: Many[Sequence]) -> dict[str, np.ndarray]:
    """Scores [seeds, clips] of the floors; of Lite0 with the best of three penalties, chosen on these very clips."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def forest() -> Any:
        return RandomForestClassifier(300, min_samples_leaf=3, class_weight="balanced", random_state=0)

    def logistic(c: float) -> Any:
        return lambda: make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000, class_weight="balanced"))

    stored = np.load(folder / "flow.npz")
    order = stored["clips"].tolist()
    rows = [order.index(s.name) for s in clips]
    flow, lite = stored["x"][rows], np.load(folder / "lite0.npz")["x"][rows, :2560]
    label = np.array([s.fight for s in clips])
    found = {"optical flow, random forest": np.stack([peer_scores(forest, flow, clips, k) for k in range(SEEDS)])}
    tried = [np.stack([peer_scores(logistic(c), lite, clips, k) for k in range(SEEDS)]) for c in (1e-3, 1e-2, 1e-1)]
    found["EfficientNet-Lite0 differences, logistic"] = max(tried, key=lambda t: np.mean([auc(r, label) for r in t]))
    return found


def cmd_fights(a: argparse.Namespace) -> dict[str, Any]:
    variants = [load(a.features, "fights", v, a.cache) for v in a.variants]
    clips = variants[0]
    label, groups = np.array([s.fight for s in clips]), [s.group for s in clips]
    draws = resampled(groups)
    scores = {
        name: np.stack([out_of_group(variants=variants, seed=k, **how) for k in range(SEEDS)])
        for name, how in MODELS.items()
    }
    scores |= peers(a.peers, clips)
    ours = scores["shipped"]
    table = {name: measured(runs, label, draws) for name, runs in scores.items()}
    for name, runs in scores.items():
        gain = [
            np.mean([auc(o[d], label[d]) - auc(r[d], label[d]) for o, r in zip(ours, runs, strict=True)]) for d in draws
        ]
        table[name]["shipped_minus_this_auc"] = interval(gain)
    np.savez(a.cache / "fight_scores.npz", label=label, **{k.split(" ")[0].strip(","): v for k, v in scores.items()})
    return {
        "clips": len(clips),
        "groups": len(set(groups)),
        "fights": int(label.sum()),
        "seeds": SEEDS,
        "models": table,
    }


def cmd_delay(a: argparse.Namespace) -> dict[str, Any]:
    """When the rule (0.7 for 0.3 s) would start in each clip, by models that have not seen the clip's group; no tracker needed."""
    variants = [load(a.features, "fights", v, a.cache) for v in a.variants]
    clips = variants[0]
    label = np.array([s.fight for s in clips])
    parts = group_folds(clips, 0)
    logits: list[np.ndarray] = [np.zeros(0)] * len(clips)
    for test in parts:
        hidden = {clips[i].group for i in test}
        weights = fit_regression([s for v in variants for s in v if s.group not in hidden])
        for i in test:
            logits[i] = regression_logits(weights, clips[i])
    slope, offset = platt(np.array([x.max(initial=-9.0) for x in logits]), label)
    starts = np.full(len(clips), np.nan)
    for i, (s, x) in enumerate(zip(clips, logits, strict=True)):
        times, high = s.time_s[len(s.time_s) - len(x) :] - s.time_s[0], slope * x + offset >= np.log(0.7 / 0.3)
        since = np.nan
        for time_s, is_high in zip(times, high, strict=True):
            since = (time_s if np.isnan(since) else since) if is_high else np.nan
            if time_s - since >= 0.3 - 1e-6:
                starts[i] = time_s
                break
    told = ~np.isnan(starts)
    return {
        "threshold": 0.7,
        "fights_told": round(float(told[label > 0].mean()), 3),
        "others_told": round(float(told[label == 0].mean()), 3),
        "median_s_from_clip_start": round(float(np.nanmedian(starts[label > 0])), 2),
    }


def replay(path: Path, model: Path, rules: list[dict[str, Any]]) -> tuple[list[Event], dict[str, Any], float, float]:
    """A stored clip through tracker, evidence and rules: events, what is known of it, its seconds, its best fight probability."""
    arrays, meta = read(path)
    found = detections_of(arrays)
    motion = motion_tokens(arrays, found, meta["aspect"])
    pipeline = watching(model, rules)
    events, best = [], 0.0
    for i, (seen, time_s) in enumerate(zip(found, arrays["time_s"].tolist(), strict=True)):
        moment = Moment("c", 0, i, round(time_s * 1e9), time_s, time_s, meta["aspect"])
        (outcome,) = pipeline.step([moment], [seen], motion[i][None, None])
        events += outcome.events
        best = max(best, outcome.scene.get("fight", 0.0))
    events += pipeline.interrupt("c", "end of file")
    return events, meta, float(arrays["time_s"][-1]), best


def watching(model: Path, rules: list[dict[str, Any]]) -> Pipeline:
    """The daemon's pipeline, with its tracker's thresholds for the shipped detector, over a camera ``c``."""
    stage = EvidenceStage(lambda _: EventEvidence(model), 1)
    pipeline = Pipeline("site", "eval", LABELS, tracker=TrackerConfig.for_detector("vedette-nano"), evidence=stage)
    pipeline.configure("c", CameraDefaults.model_validate({"classes": ["person", "vehicle"], "rules": rules}))
    return pipeline


def cmd_falls(a: argparse.Namespace) -> dict[str, Any]:
    falls = load(a.features, "falls", 0, a.cache)
    zeros = {"mean": np.zeros(47), "std": np.ones(47), "w": np.zeros((1, 141)), "b": np.zeros(1)}
    rows = []
    for subject in sorted({s.group for s in falls}):
        model = a.cache / f"without_{subject}.onnx"
        if not model.exists():
            net = fit_fall(real_people([s for s in falls if s.group != subject], a.features))
            write(model, zeros, fall_weights(net))
        for s in falls:
            if s.group == subject:
                rows += [judged(a.features / "falls" / "0" / (s.name.replace("/", "_") + ".npz"), model)]
    fell = [r for r in rows if r["fell_s"] is not None]
    hit, false = [r for r in fell if r["delay_s"] is not None], sum(r["false"] for r in rows)
    calm = [r for r in rows if r["fell_s"] is None]
    return {
        "falls": len(fell), "found": len(hit), "recall": round(len(hit) / len(fell), 3),
        "precision": round(len(hit) / max(1, len(hit) + false), 3), "false_alarms": false,
        "delay_s": sorted(r["delay_s"] for r in hit), "tracked_falls": sum(r["tracked"] for r in fell),
        "daily_clips": len(calm), "daily_s": round(sum(r["seconds"] for r in calm), 1), "clips": rows,
    }  # fmt: skip


def judged(path: Path, model: Path) -> dict[str, Any]:
    """One fall clip: when it was told, and what else was."""
    events, meta, seconds, _ = replay(path, model, [{"kind": "fall"}])
    span = fall_span(meta["classes"])
    starts = [e.mono_ns / 1e9 for e in events if e.phase == "start"]
    hits = [] if span is None else [s for s in starts if s >= span[0] - 0.2]
    arrays, _ = read(path)
    seen = arrays["time_s"][
        np.searchsorted(
            np.cumsum(arrays["count"]), np.flatnonzero((arrays["label"] == 0) & (arrays["score"] > 0.3)), side="right"
        ).clip(max=len(arrays["time_s"]) - 1)
    ]
    tracked = span is not None and bool(
        ((seen < span[0]) & (seen > span[0] - 1)).any() and (seen > span[0] + 0.7).any()
    )
    return {
        "clip": meta["clip"], "seconds": round(seconds, 1), "fell_s": None if span is None else span[0],
        "delay_s": round(hits[0] - span[0], 2) if hits and span else None, "false": len(starts) - len(hits[:1]), "tracked": tracked,
    }  # fmt: skip


def cmd_quiet(a: argparse.Namespace) -> dict[str, Any]:
    model = a.model or resolve_temporal("vedette-events")
    out: dict[str, Any] = {}
    hours = 0.0
    for path in sorted((a.features / "quiet" / "0").glob("*.npz")):
        events, meta, seconds, best = replay(path, model, RULES)
        told = [f"{e.kind}@{e.mono_ns / 1e9:.1f}" for e in events if e.phase == "start"]
        out[meta["clip"]] = {"seconds": round(seconds, 1), "alarms": told, "best_fight": round(best, 3)}
        hours += seconds / 3600
    alarms = sum(len(v["alarms"]) for v in out.values())
    return {
        "camera_hours": round(hours, 4),
        "alarms": alarms,
        "alarms_per_hour": round(alarms / hours, 2),
        "clips": out,
    }


def cmd_ablation(a: argparse.Namespace) -> dict[str, Any]:
    """One split into parts, the same for all; what was computed before is read from the cache."""
    variants = [load(a.features, "fights", v, a.cache) for v in a.variants]
    label = np.array([s.fight for s in variants[0]])
    draws = resampled([s.group for s in variants[0]])
    runs = {}
    for name, how in ABLATION.items():
        store = a.cache / f"ablation_{re.sub('[^a-z0-9]+', '_', name.lower())}.npy"
        if not store.exists():
            np.save(store, out_of_group(variants=variants, seed=0, **how))
        runs[name] = np.load(store)
        print(name, round(auc(runs[name], label), 3), file=sys.stderr, flush=True)
    table: dict[str, Any] = {}
    for name, run in runs.items():
        gain = interval([auc(runs[SHIPPED][d], label[d]) - auc(run[d], label[d]) for d in draws])
        how = {k: v for k, v in ABLATION[name].items() if k not in ("epochs", "rate", "decay")}
        flops = 2 * NUMBERS * 3 if name == SHIPPED else cost(make(**how))
        table[name] = {**measured(run[None], label, draws), "shipped_minus_this_auc": gain, "flops_a_picture": flops}
    return {"clips": len(label), "groups": len({s.group for s in variants[0]}), "split": 0, "models": table}


def urfall_rows(path: Path) -> dict[str, np.ndarray]:
    """f64 [t,5] by sequence: frame, label (-1 upright, 0 in transition, 1 lying), share of the own height, height and centre in mm."""
    rows: dict[str, list[list[float]]] = {}
    for line in path.read_text().splitlines()[1:]:
        name, *values = line.split(",")
        rows.setdefault(name, []).append([float(v) for v in values[:5]])
    return {name: np.array(values) for name, values in rows.items()}


def urfall_events(rows: np.ndarray, model: Path, *, stick: bool) -> list[float]:
    """Seconds at which the shipped rule tells a fall of these rows, seen from the side 30 times a second."""
    pipeline = watching(model, [{"kind": "fall"}])
    starts = []
    for number, (frame, _, share, height_mm, centre_mm) in enumerate(rows.tolist()):
        time_s, own = frame / 30, UPRIGHT_SHARE
        tall = own * min(max(share, 0.05), 1.1)
        wide = own * max(SLENDER, np.sqrt(max(0.0, 1 - share**2)) if stick else 0.0) / (4 / 3)
        y = 0.95 - own * centre_mm / max(height_mm / max(share, 0.05), 1.0)
        box = np.array([[0.5 - wide / 2, y - tall / 2, 0.5 + wide / 2, y + tall / 2]], np.float32)
        seen = Detections(box, np.array([0.8], np.float32), np.zeros(1, np.int32), np.zeros((1, 64), np.float32))
        moment = Moment("c", 0, number, round(time_s * 1e9), time_s, time_s, 4 / 3)
        (outcome,) = pipeline.step([moment], [seen])
        starts += [time_s for e in outcome.events if e.phase == "start"]
    return starts


def cmd_urfall(a: argparse.Namespace) -> dict[str, Any]:
    model, folder = a.model or resolve_temporal("vedette-events"), a.data / "behaviour" / "urfall" / "data" / "raw"
    out: dict[str, Any] = {}
    for name, stick in (("as wide as a stick", True), ("never wider than upright", False)):
        falls = urfall_rows(folder / "urfall-cam0-falls.csv")
        delays: list[float] = []
        long = found_long = 0
        for rows in falls.values():
            began_s = float(rows[rows[:, 1] >= 0, 0].min()) / 30
            hits = [s for s in urfall_events(rows, model, stick=stick) if s >= began_s - 0.2]
            delays += [round(hits[0] - began_s, 2)] if hits else []
            goes_on = rows[-1, 0] - rows[rows[:, 1] == 1, 0].min() >= 30
            long, found_long = long + goes_on, found_long + (goes_on and bool(hits))
        calm = urfall_rows(folder / "urfall-cam0-adls.csv")
        told = {name: len(urfall_events(rows, model, stick=stick)) for name, rows in calm.items()}
        down = {name for name, rows in calm.items() if (rows[:, 1] == 1).any()}
        out[name] = {
            "falls": len(falls), "found": len(delays), "go_on_for_a_second": int(long), "found_of_these": int(found_long), "median_delay_s": float(np.median(delays)) if delays else None,
            "daily": len(calm), "daily_told": sum(n > 0 for n in told.values()),
            "daily_told_where_nobody_lies_down": sum(n > 0 for name, n in told.items() if name not in down), "lie_down": len(down),
        }  # fmt: skip
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fights", "delay", "falls", "quiet", "ablation", "urfall"))
    parser.add_argument("--features", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--variants", type=int, nargs="+", default=[0, 1])
    a = parser.parse_args()
    torch.set_num_threads(1)
    command = {
        "fights": cmd_fights,
        "falls": cmd_falls,
        "quiet": cmd_quiet,
        "delay": cmd_delay,
        "ablation": cmd_ablation,
        "urfall": cmd_urfall,
    }[a.what]
    print(json.dumps(command(a), indent=1))


if __name__ == "__main__":
    main()

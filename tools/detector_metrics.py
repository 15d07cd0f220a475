"""Average precision, recall and re-identification scores, each with a bootstrap confidence interval over pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vedette.kernels.nms import iou_matrix


@dataclass(slots=True)
class Matched:
    """One picture after matching: each detection's score and whether it hit, and the objects with what found them."""

    score: np.ndarray  # [N] descending
    hit: np.ndarray  # bool [N]
    truth_height: np.ndarray  # [M] px
    found_at: np.ndarray  # [M] score of the detection that found the object, -1 if none


def match(boxes: np.ndarray, scores: np.ndarray, truth: np.ndarray, iou: float = 0.5) -> Matched:
    """Greedy matching, best score first, each object once (PASCAL VOC). boxes [N,4], truth [M,4], px."""
    order = np.argsort(-scores, kind="stable")
    overlap = iou_matrix(boxes[order], truth)
    found = np.full(len(truth), -1.0)
    hit = np.zeros(len(order), bool)
    for i in range(len(order)):
        row = np.where(found < 0, overlap[i], 0) if len(truth) else np.zeros(1)
        k = int(row.argmax())
        if row[k] >= iou:
            hit[i], found[k] = True, scores[order[i]]
    return Matched(scores[order], hit, truth[:, 3] - truth[:, 1], found)


def average_precision(pictures: list[Matched]) -> float:
    """AP at the matching IoU, 101-point interpolation; NaN without objects."""
    n = sum(len(p.found_at) for p in pictures)
    if n == 0:
        return float("nan")
    score = np.concatenate([p.score for p in pictures])
    hit = np.concatenate([p.hit for p in pictures])[np.argsort(-score, kind="stable")]
    if len(hit) == 0:
        return 0.0
    true = np.cumsum(hit)
    recall, precision = true / n, true / np.arange(1, len(hit) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, 101))
    return float(np.mean([envelope[i] if i < len(envelope) else 0.0 for i in at]))


def threshold_for(pictures: list[Matched], false_per_picture: float) -> float:
    """The lowest score that lets through at most so many false detections a picture, on average."""
    wrong = np.sort(np.concatenate([p.score[~p.hit] for p in pictures]))[::-1]
    allowed = int(false_per_picture * len(pictures))
    return float(wrong[allowed]) if allowed < len(wrong) else 0.0


def small_recall(pictures: list[Matched], below_px: float, false_per_picture: float = 1.0) -> float:
    """Share of objects less than ``below_px`` high that are found at one false detection a picture."""
    t = threshold_for(pictures, false_per_picture)
    small = np.concatenate([p.found_at[p.truth_height < below_px] for p in pictures])
    return float((small > t).mean()) if len(small) else float("nan")


def interval(
    pictures: list[Matched], measure: Callable[[list[Matched]], float], rounds: int = 300, seed: int = 0
) -> dict[str, float]:
    """The measure, and its 95 % bootstrap interval over pictures."""
    r = np.random.default_rng(seed)
    n = len(pictures)
    values = [measure([pictures[i] for i in r.integers(0, n, n)]) for _ in range(rounds)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return {"value": round(measure(pictures), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def paired_difference(
    a: list[Matched], b: list[Matched], measure: Callable[[list[Matched]], float], rounds: int = 300, seed: int = 0
) -> dict[str, float]:
    """measure(a) - measure(b) on the same pictures, with its 95 % paired-bootstrap interval."""
    r = np.random.default_rng(seed)
    n = len(a)
    values = []
    for _ in range(rounds):
        pick = r.integers(0, n, n)
        values.append(measure([a[i] for i in pick]) - measure([b[i] for i in pick]))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return {"value": round(measure(a) - measure(b), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def reidentification(
    embedding: np.ndarray, who: np.ndarray, when_s: np.ndarray, gap_s: float = 2.0
) -> dict[str, float]:
    """AUC and rank-1 over views of known people.

    Positives: the same person at least ``gap_s`` apart. Negatives: two people whose appearances overlap in time, so
    that a tracker could really confuse them. AUC is the chance that a positive pair is more alike than a negative
    one; rank-1 the share of views whose nearest neighbour, among positives and negatives, is the same person.
    """
    alike = embedding @ embedding.T
    upper = np.triu(np.ones_like(alike, bool), 1)
    same = (who[:, None] == who[None]) & (np.abs(when_s[:, None] - when_s[None]) >= gap_s)
    span = {i: (when_s[who == i].min(), when_s[who == i].max()) for i in np.unique(who)}
    first, last = np.array([span[i][0] for i in who]), np.array([span[i][1] for i in who])
    rival = (who[:, None] != who[None]) & (first[:, None] <= last[None]) & (first[None] <= last[:, None])
    p, q = alike[same & upper], alike[rival & upper]
    ranks = np.argsort(np.argsort(np.concatenate([p, q])))[: len(p)]
    auc = (ranks.sum() - len(p) * (len(p) - 1) / 2) / (len(p) * len(q))
    ask = np.flatnonzero(same.any(1) & rival.any(1))
    nearest = np.where(same | rival, alike, -np.inf)[ask].argmax(1)
    return {
        "auc": float(auc),
        "rank1": float((who[nearest] == who[ask]).mean()),
        "views": len(who),
        "positives": len(p),
        "negatives": len(q),
    }

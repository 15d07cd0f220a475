"""Which detection continues which track: near pairs of all cameras in one list, gains, and the best assignment.

Pairs are found by a sweep along x, so their number grows with how crowded the pictures are and not with
tracks times detections. Every array here is over that list of pairs. Pairs without a rival are matched at
once; the rest is solved exactly, a camera at a time (Jonker-Volgenant, ``scipy.optimize``).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from vedette.streamer.tracking.config import TrackerConfig
from vedette.streamer.tracking.intake import I64, Sightings, as_score
from vedette.streamer.tracking.rows import BOX, CONFIRMED, F64, GROUP, SCORE

#: Longer than any picture is wide in units of its height: keeps the cameras apart on the sweep's axis.
_LANE = 4096.0


@dataclass(frozen=True, slots=True)
class Pairs:
    """Tracks and detections that may belong together: parallel arrays, sorted by track.

    overlap: IoU of the predicted box and the detection. gain: what matching them is worth, above 0.
    """

    track: I64
    sighting: I64
    overlap: F64
    gain: F64


def near_pairs(box: F64, view: I64, seen: Sightings) -> tuple[I64, I64]:
    """Indices of tracks and detections of one camera that are near enough in x to overlap; some do not.

    box: [4,N] tracks; view: [N] the camera of each, like ``seen.view``. Sorted by track.
    """
    widest = np.zeros(int(max(view.max(initial=-1), seen.view.max(initial=-1))) + 1)
    np.maximum.at(widest, seen.view, seen.box[2])
    lane = np.clip(seen.box[0], -1000.0, 3000.0) + seen.view * _LANE
    order = np.argsort(lane, kind="stable")
    lane = lane[order]
    reach = np.minimum(0.5 * (box[2] + widest[view]), 90.0)
    centre = np.clip(box[0], -1000.0, 3000.0) + view * _LANE
    low, high = np.searchsorted(lane, np.concatenate([centre - reach, centre + reach])).reshape(2, -1)
    count = high - low
    track = np.repeat(np.arange(len(view)), count)
    start = low - (np.cumsum(count) - count)
    return track, order[np.arange(len(track)) + start[track]]


def score_pairs(
    rows: F64, view: I64, seen: Sightings, unseen_s: F64, waited_s: F64, look: F64 | None, config: TrackerConfig
) -> Pairs:
    """The pairs that pass the gates, with their gains.

    rows: [K,N] predicted tracks, view: [N]. unseen_s: [N] seconds since the last match, this step included;
    waited_s: without it. look: [N,D] appearance or None. A gain is height-modulated IoU (Hybrid-SORT, 2024,
    eq. 6, ``upright`` its exponent) with the predicted box, minus the change of score (its track
    confidence modelling), plus the cosine of the appearances, plus a bonus for a trusted detection. One
    assignment over all of it replaces ByteTrack's cascade of two.
    """
    c = config
    track, sighting = near_pairs(rows[BOX], view, seen)
    keep = np.flatnonzero(rows[GROUP][track] == seen.group[sighting])
    if len(keep) < len(track):
        track, sighting = track[keep], sighting[keep]
    box = seen.box[:, sighting]
    overlap, tall = overlap_of(rows[BOX][:, track], box)
    score = seen.score[sighting]
    high = score >= as_score(c.score_high)
    trackable = (rows[CONFIRMED] > 0) & (waited_s <= c.low_unseen_s + 1e-6)
    least = c.min_overlap * np.exp(unseen_s / -c.overlap_fade_s)
    keep = np.flatnonzero(np.where(high, overlap >= least[track], (overlap >= c.min_overlap_low) & trackable[track]))
    if len(keep) < len(track):
        track, sighting, score, high = track[keep], sighting[keep], score[keep], high[keep]
        overlap, tall = overlap[keep], tall[keep]
    gain = overlap * tall**c.upright - c.score_weight * np.abs(rows[SCORE][track] - score)
    if look is not None and seen.embedding is not None and c.appearance_weight:
        gain += c.appearance_weight * np.einsum("nd,nd->n", look[track], seen.embedding[sighting])
    return Pairs(track, sighting, overlap, 0.1 + np.maximum(gain, 0.0) + c.high_bonus * high)


def overlap_of(a: F64, b: F64) -> tuple[F64, F64]:
    """IoU [N] of boxes a, b [4,N], and IoU of their vertical extents alone."""
    # overlap of two intervals = min(sum of halves - distance, the smaller interval), and at least 0
    meet = np.minimum(0.5 * (a[2:] + b[2:]) - np.abs(a[:2] - b[:2]), np.minimum(a[2:], b[2:]))
    np.maximum(meet, 0.0, out=meet)
    shared = meet[0] * meet[1]
    return shared / (a[2] * a[3] + b[2] * b[3] - shared), meet[1] / (a[3] + b[3] - meet[1])


def assign(pairs: Pairs, view: I64, tracks: int, sightings: int) -> tuple[I64, I64]:
    """The matches of greatest total gain: indices of tracks and of detections.

    view: [tracks] camera of every track, ascending. A pair that is the only one of its track and of its
    detection needs no solver; the rest is a dense block a camera.
    """
    track, sighting = pairs.track, pairs.sighting
    rivals = np.bincount(track, minlength=tracks)[track] + np.bincount(sighting, minlength=sightings)[sighting]
    alone = rivals == 2
    if alone.all():
        return track, sighting
    contested = ~alone
    t, s, gain = track[contested], sighting[contested], pairs.gain[contested]
    rows, row = _ranks(t, tracks)
    cols, col = _ranks(s, sightings)
    edges = [0, *(np.flatnonzero(np.diff(view[t])) + 1).tolist(), len(t)]
    found_t, found_s = [track[alone]], [sighting[alone]]
    for low, high in pairwise(edges):
        r, c = row[low:high], col[low:high]
        r0, c0 = r[0], c.min()
        block = np.zeros((r[-1] - r0 + 1, c.max() - c0 + 1))
        block[r - r0, c - c0] = gain[low:high]
        i, j = linear_sum_assignment(block, maximize=True)
        real = block[i, j] > 0
        found_t.append(rows[i[real] + r0])
        found_s.append(cols[j[real] + c0])
    return np.concatenate(found_t), np.concatenate(found_s)


def _ranks(index: I64, size: int) -> tuple[I64, I64]:
    """The distinct values of ``index`` in order, and for each entry its place among them."""
    present: NDArray[np.bool_] = np.zeros(size, np.bool_)
    present[index] = True
    place = np.cumsum(present) - 1
    return np.flatnonzero(present), place[index]

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
from vedette.streamer.tracking.intake import I64, Sightings
from vedette.streamer.tracking.rows import (
    BOX,
    CONFIRMED,
    COURSE,
    F64,
    GROUP,
    P_BOX,
    SCORE,
    SCORE_RATE,
    SEEN_BOX,
)

#: Longer than any picture is wide in units of its height: keeps the cameras apart on the sweep's axis.
_LANE = 4096.0


@dataclass(frozen=True, slots=True)
class Pairs:
    """Tracks and detections that may belong together: parallel arrays, sorted by track.

    overlap: IoU of the predicted box and the detection as they are. gain: what matching them is worth, above 0.
    """

    track: I64
    sighting: I64
    overlap: F64
    gain: F64


def near_pairs(box: F64, view: I64, seen: Sightings, grow: F64) -> tuple[I64, I64]:
    """Indices of tracks and detections of one camera whose boxes, grown by ``grow`` [N], meet.

    box: [4,N] tracks; view: [N] the camera of each, like ``seen.view``. A detection grows with the track
    it is compared with.
    """
    half = seen.box[2] * 0.5
    key = np.clip(seen.box[0], -1000.0, 3000.0) + seen.view * _LANE
    order = np.argsort(key, kind="stable")
    key = key[order]
    widest = np.zeros(int(max(view.max(initial=-1), seen.view.max(initial=-1))) + 1)
    np.maximum.at(widest, seen.view, half)
    reach = box[2] * 0.5 + 2.0 * grow + widest[view]
    centre = np.clip(box[0], -1000.0, 3000.0) + view * _LANE
    reach = np.minimum(reach, 90.0)
    low = np.searchsorted(key, centre - reach)
    count = np.searchsorted(key, centre + reach, side="right") - low
    track = np.repeat(np.arange(len(view)), count)
    offset = np.cumsum(count) - count
    sighting = order[np.arange(len(track)) + np.repeat(low - offset, count)]
    return track, sighting


def score_pairs(rows: F64, view: I64, seen: Sightings, age: F64, config: TrackerConfig, cosine: F64 | None) -> Pairs:
    """The pairs that pass the gate, with their gain.

    rows: [K,N] predicted tracks, view: [N], age: [N] seconds since each was seen. cosine: unused pairs
    are dropped by geometry first, so it is a function of the pair list's indices when given.
    """
    grow = config.expand * np.sqrt(rows[P_BOX][0])
    track, sighting = near_pairs(rows[BOX], view, seen, grow)
    a, b = rows[BOX][:, track], seen.box[:, sighting]
    g = grow[track]
    half_a, half_b = a[2:] * 0.5, b[2:] * 0.5
    apart = np.abs(a[:2] - b[:2])
    # overlap of two intervals = min(sum of halves - distance, the smaller interval)
    meet = np.minimum(half_a + half_b - apart, 2.0 * np.minimum(half_a, half_b))
    wide = meet + 2.0 * g
    keep = (wide[0] > 0) & (wide[1] > 0) & (rows[GROUP][track] == seen.group[sighting])
    if not keep.all():
        track, sighting, g = track[keep], sighting[keep], g[keep]
        a, b, meet, wide = a[:, keep], b[:, keep], meet[:, keep], wide[:, keep]
    tight = np.maximum(meet, 0.0)
    shared = tight[0] * tight[1]
    overlap = shared / (a[2] * a[3] + b[2] * b[3] - shared)
    grown_a, grown_b = a[2:] + 2.0 * g, b[2:] + 2.0 * g
    shared = wide[0] * wide[1]
    buffered = shared / (grown_a[0] * grown_a[1] + grown_b[0] * grown_b[1] - shared)
    upright = wide[1] / (grown_a[1] + grown_b[1] - wide[1])
    score = seen.score[sighting]
    high = score >= config.score_high
    gain = buffered * upright
    keep = buffered >= np.where(high, config.min_overlap, config.min_overlap_low)
    if config.course_weight:
        gain = gain + config.course_weight * score * _agreement(rows, track, seen.box, sighting)
    if config.score_weight:
        expected = np.clip(rows[SCORE] + rows[SCORE_RATE] * np.minimum(age, 0.1), config.score_low, 1.0)
        gain = gain - config.score_weight * np.abs(expected[track] - score)
    if cosine is not None:
        gain = gain + config.appearance_weight * cosine[track, sighting]
    gain = 0.5 + np.maximum(gain, -0.4) + config.high_bonus * high + config.confirmed_bonus * rows[CONFIRMED][track]
    return Pairs(track[keep], sighting[keep], overlap[keep], gain[keep])


def _agreement(rows: F64, track: I64, box: F64, sighting: I64) -> F64:
    """How well going to the detection continues the course, -1..1 (OC-SORT eq. 6): 1 - 2 * angle / pi."""
    course = rows[COURSE]
    step = box[:2, sighting] - rows[SEEN_BOX][:2, track]
    way = course[:, track]
    dot = way[0] * step[0] + way[1] * step[1]
    size = np.sqrt((way[0] ** 2 + way[1] ** 2) * (step[0] ** 2 + step[1] ** 2))
    cosine = np.divide(dot, size, out=np.zeros_like(dot), where=size > 1e-12)
    agreement: F64 = 1.0 - np.arccos(np.clip(cosine, -1.0, 1.0)) * (2.0 / np.pi)
    return agreement


def assign(pairs: Pairs, view: I64, tracks: int, sightings: int) -> tuple[I64, I64]:
    """The matches of greatest total gain: indices of tracks and of detections.

    view: [N] camera of every track, ascending. A pair that is the only one of its track and of its
    detection needs no solver; the rest is a dense block a camera.
    """
    track, sighting = pairs.track, pairs.sighting
    alone = (np.bincount(track, minlength=tracks)[track] == 1) & (
        np.bincount(sighting, minlength=sightings)[sighting] == 1
    )
    if alone.all():
        return track, sighting
    t, s, gain = track[~alone], sighting[~alone], pairs.gain[~alone]
    edges = np.flatnonzero(np.diff(view[t])) + 1
    bounds = np.concatenate(([0], edges, [len(t)])).tolist()
    rows, row = _ranks(t, tracks)
    cols, col = _ranks(s, sightings)
    found_t, found_s = [track[alone]], [sighting[alone]]
    for low, high in pairwise(bounds):
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

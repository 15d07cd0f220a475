"""Which detection continues which track: near pairs, what each is worth, and the best assignment.

A small picture is searched pair by pair in one dense sweep of array operations; crowds and several cameras
by a sweep along x, so that the number of pairs grows with how crowded the pictures are and not with tracks
times detections. Both find the same pairs. Every array from there on is over that list. Assignment is exact
(Jonker-Volgenant, ``scipy.optimize``), at once for a small picture, else without the pairs that have no rival
and a camera at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from vedette.streamer.tracking.config import TrackerConfig
from vedette.streamer.tracking.intake import Sightings
from vedette.streamer.tracking.rows import BOX, CONFIRMED, F64, GROUP, I64, SCORE, spread

#: Longer than any picture is wide in units of its height: keeps the cameras apart on the sweep's axis.
_LANE = 4096.0
#: Tracks times detections up to which one dense pass costs less than finding pairs first.
DENSE = 8192


@dataclass(slots=True)
class Pairs:
    """Tracks and detections that may belong together: parallel arrays, sorted by track.

    overlap: IoU of the predicted box and the detection. gain: what matching them is worth, 0 when they must not.
    """

    track: I64
    sighting: I64
    overlap: F64
    gain: F64


def pairs_of(ours: F64, view: I64 | None, theirs: F64, lanes: I64 | None) -> tuple[I64, I64]:
    """Indices of tracks and detections of one camera whose boxes may overlap. Sorted by track.

    ours [4+,N], theirs [4+,M]: edges. view, lanes: the camera of each, None for one.
    """
    n, m = ours.shape[1], theirs.shape[1]
    if view is None and n * m <= DENSE:
        (x1, y1, x2, y2), (left, top, right, bottom) = ours[:4, :, None], theirs[:4, None]
        meet = x1 < right
        meet &= x2 > left
        meet &= y1 < bottom
        meet &= y2 > top
        flat = meet.ravel().nonzero()[0]
        track = flat // m
        return track, flat - track * m
    return _sweep(
        ours,
        np.zeros(n, np.int64) if view is None else view,
        theirs,
        np.zeros(m, np.int64) if lanes is None else lanes,
    )


def _sweep(ours: F64, view: I64, theirs: F64, lanes: I64) -> tuple[I64, I64]:
    """The pairs that are near enough in x to overlap; some do not. view: [N] the camera of each track, lanes: [M]."""
    widest = np.zeros(1 + int(max(view.max(initial=0), lanes.max(initial=0))))
    np.maximum.at(widest, lanes, np.minimum(theirs[2] - theirs[0], 90.0))
    lane = np.clip(theirs[0], -1000.0, 3000.0) + lanes * _LANE
    order = np.argsort(lane, kind="stable")
    lane = lane[order]
    ends = np.clip(ours[0:3:2], -1000.0, 3000.0)
    ends[0] -= widest[view]
    ends += view * _LANE
    low, high = np.searchsorted(lane, ends.ravel()).reshape(2, -1)
    count = high - low
    track = np.repeat(np.arange(len(view)), count)
    start = low - (np.cumsum(count) - count)
    return track, order[np.arange(len(track)) + start[track]]


def score_pairs(
    rows: F64, view: I64 | None, seen: Sightings, unseen_s: F64, step: F64, look: F64 | None, config: TrackerConfig
) -> Pairs:
    """The pairs that are near, with their gains; 0 for those that fail a gate.

    rows: [K,N] predicted tracks. unseen_s: [N] seconds since the last match, this step included. step: [cameras]
    seconds. look: [N,D] appearance or None. A gain is height-modulated IoU (Hybrid-SORT, 2024, eq. 6) with
    the predicted box, minus the change of score (its track confidence modelling), plus the cosine of the
    appearances, plus a bonus for a trusted detection. One assignment over all of it replaces ByteTrack's
    cascade of two. Boxes are compared with a margin that grows with the step
    (C-BIoU, 2023, whose margin is constant): the longer nobody looked, the farther the box may be.
    """
    c = config
    margin = np.minimum(c.reach * step, c.reach_most)
    tracks = _facts_of(rows[BOX], rows[SCORE], rows[GROUP], spread(margin, view))
    least = np.exp(unseen_s / -c.overlap_fade_s, out=tracks[7])
    least *= c.min_overlap
    detections = _facts_of(seen.box, seen.score, seen.group, spread(margin, seen.view))
    track, sighting = pairs_of(tracks, view, detections, seen.view)
    if seen.high is not None:
        detections[7] = seen.high
    ours, theirs = tracks.take(track, 1), detections.take(sighting, 1)
    overlap, tall = _overlap(ours, theirs)
    least = ours[7]
    if seen.high is not None:
        steady = (rows[CONFIRMED] > 0) & (unseen_s - spread(step, view) <= c.low_unseen_s + 1e-6)
        least = np.where(theirs[7] > 0, least, np.where(steady, c.min_overlap_low, np.inf).take(track))
    fits = overlap >= least
    fits &= ours[6] == theirs[6]
    gain = ours[5] - theirs[5]
    np.abs(gain, out=gain)
    gain *= -c.score_weight
    tall *= overlap
    gain += tall
    if look is not None and seen.embedding is not None and c.appearance_weight:
        gain += c.appearance_weight * np.einsum("nd,nd->n", look[track], seen.embedding[sighting])
    np.maximum(gain, 0.0, out=gain)
    gain += 0.1 + c.high_bonus if seen.high is None else 0.1 + c.high_bonus * theirs[7]
    gain *= fits
    return Pairs(track, sighting, overlap, gain)


def _facts_of(box: F64, score: F64, group: F64 | I64, margin: F64 | float) -> F64:
    """What a pair needs of either side, [8,N]: edges and area with the margin, score, group; the last is the caller's."""
    facts = np.empty((8, box.shape[1]))
    half = (0.5 + margin) * box[2:]
    np.subtract(box[:2], half, out=facts[:2])
    np.add(box[:2], half, out=facts[2:4])
    np.multiply(half[0], half[1], out=facts[4])
    facts[4] *= 4.0
    facts[5] = score
    facts[6] = group
    return facts


def _overlap(a: F64, b: F64) -> tuple[F64, F64]:
    """IoU [N] of boxes whose edges and areas are in a, b [5+,N], and IoU of their vertical extents alone."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:4], b[2:4])
    high -= low
    np.maximum(high, 0.0, out=high)
    width, height = high
    shared = width * height
    whole = a[4] + b[4]
    whole -= shared
    shared /= whole
    extent = np.maximum(a[3], b[3])
    extent -= np.minimum(a[1], b[1])
    height /= extent
    return shared, height


def assign(pairs: Pairs, view: I64 | None, tracks: int, sightings: int) -> I64:
    """The matches of greatest total gain: the detection of every track, [tracks], -1 for none.

    view: [tracks] camera of every track, ascending, None for one camera.
    """
    if view is None and tracks * sightings <= DENSE:
        block = np.zeros(tracks * sightings)
        block[pairs.track * sightings + pairs.sighting] = pairs.gain
        i, j = linear_sum_assignment(block.reshape(tracks, sightings), maximize=True)
        found = np.where(block.take(i * sightings + j) > 0, j, -1)
        if tracks <= sightings:
            return found
        mine = np.full(tracks, -1, np.int64)
        mine[i] = found
        return mine
    mine = np.full(tracks, -1, np.int64)
    real = pairs.gain.nonzero()[0]
    track, sighting, gain = pairs.track[real], pairs.sighting[real], pairs.gain[real]
    rivals = np.bincount(track, minlength=tracks)[track] + np.bincount(sighting, minlength=sightings)[sighting]
    alone = rivals == 2
    mine[track[alone]] = sighting[alone]
    contested = (~alone).nonzero()[0]
    if len(contested):
        _contest(track[contested], sighting[contested], gain[contested], view, mine, sightings)
    return mine


def _contest(track: I64, sighting: I64, gain: F64, view: I64 | None, mine: I64, sightings: int) -> None:
    """Solve pairs that have rivals, a dense block a camera, into ``mine``."""
    rows, row = _ranks(track, len(mine))
    cols, col = _ranks(sighting, sightings)
    cuts = [] if view is None else (np.flatnonzero(np.diff(view[track])) + 1).tolist()
    for low, high in pairwise([0, *cuts, len(track)]):
        r, c = row[low:high], col[low:high]
        r0, c0 = r[0], c.min()
        block = np.zeros((r[-1] - r0 + 1, c.max() - c0 + 1))
        block[r - r0, c - c0] = gain[low:high]
        i, j = linear_sum_assignment(block, maximize=True)
        real = block[i, j] > 0
        mine[rows[i[real] + r0]] = cols[j[real] + c0]


def _ranks(index: I64, size: int) -> tuple[I64, I64]:
    """The distinct values of ``index`` in order, and for each entry its place among them."""
    present: NDArray[np.bool_] = np.zeros(size, np.bool_)
    present[index] = True
    place = np.cumsum(present) - 1
    return np.flatnonzero(present), place[index]

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
#: Cells of a block up to which solving costs less than looking whether it needs to be.
_SMALL = 400
#: Among matches of equal worth the solver's choice would depend on what else it is shown at once, other cameras included.
#: So pairs differ by less than anything that matters, by place among their camera's tracks and detections, modulo `_TIES`.
_TIES, _TIE_WEIGHT = 64, 1e-13
_TIE = _TIE_WEIGHT * (((np.arange(1, _TIES * _TIES + 1) ** 2 * 7919) % 10007 * 104729) % 10007)
#: the facts of the edges that lie across: right, bottom, left, top
_FACING = np.array([2, 3, 0, 1])


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

    ours [4+,N], theirs [4+,M]: edges, left and top negative. view, lanes: the camera of each, None for one.
    """
    n, m = ours.shape[1], theirs.shape[1]
    if view is None and n * m <= DENSE:
        # in float32, which is quicker: wrong only about boxes that touch by a hair, and those gain nothing
        mine, other = ours[:4].astype(np.float32), theirs.take(_FACING, 0).astype(np.float32)
        meet = mine[:, :, None] > np.negative(other, out=other)[:, None]
        both = meet[:2]
        both &= meet[2:]
        flat = (both[0] & both[1]).reshape(-1).nonzero()[0]
        track = flat // m
        return track, flat - track * m
    return _sweep(
        ours,
        np.zeros(n, np.int64) if view is None else view,
        theirs,
        np.zeros(m, np.int64) if lanes is None else lanes,
    )


def _sweep(ours: F64, view: I64, theirs: F64, lanes: I64) -> tuple[I64, I64]:
    """The pairs that overlap in y and are near enough in x to; some do not. view: [N] the camera of each track, lanes: [M]."""
    widest = np.zeros(1 + int(max(view.max(initial=0), lanes.max(initial=0))))
    np.maximum.at(widest, lanes, np.minimum(theirs[2] + theirs[0], 90.0))
    lane = np.clip(-theirs[0], -1000.0, 3000.0) + lanes * _LANE
    order = np.argsort(lane, kind="stable")
    lane = lane[order]
    ends = np.clip([-ours[0], ours[2]], -1000.0, 3000.0)
    ends[0] -= widest[view]
    ends += view * _LANE
    low, high = np.searchsorted(lane, ends.ravel()).reshape(2, -1)
    count = high - low
    track = np.repeat(np.arange(len(view)), count)
    start = low - (np.cumsum(count) - count)
    sighting = order[np.arange(len(track)) + start[track]]
    meet = ours[1].take(track) + theirs[3].take(sighting) > 0
    meet &= ours[3].take(track) + theirs[1].take(sighting) > 0
    near = meet.nonzero()[0]
    return track.take(near), sighting.take(near)


def score_pairs(
    rows: F64,
    view: I64 | None,
    seen: Sightings,
    unseen_s: F64,
    step: list[float],
    look: F64 | None,
    config: TrackerConfig,
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
    margin = [min(c.reach * dt, c.reach_most) for dt in step]
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
    gain += _TIE.take(_place(track, view) % _TIES * _TIES + _place(sighting, seen.view) % _TIES)
    gain *= fits
    return Pairs(track, sighting, overlap, gain)


def _place(index: I64, view: I64 | None) -> I64:
    """The place of each entry among those of its own camera; view: the camera of every possible entry, ascending."""
    return index if view is None else index - np.searchsorted(view, view).take(index)


def _facts_of(box: F64, score: F64, group: F64 | I64, margin: F64 | float) -> F64:
    """What a pair needs of either side, [8,N]: -left, -top, right, bottom, area, score, group; the last is the caller's.

    Left and top are negative, so that the common part of two boxes is the least of all four.
    """
    facts = np.empty((8, box.shape[1]))
    centre = box[:2]
    half = (0.5 + margin) * box[2:]
    np.subtract(half, centre, out=facts[:2])
    np.add(centre, half, out=facts[2:4])
    np.multiply(half[0], half[1], out=facts[4])
    facts[4] *= 4.0
    facts[5] = score
    facts[6] = group
    return facts


def _overlap(a: F64, b: F64) -> tuple[F64, F64]:
    """IoU [N] of boxes whose facts are a, b [5+,N], and IoU of their vertical extents alone."""
    common = np.minimum(a[:4], b[:4])
    size = common[:2]
    size += common[2:]
    np.maximum(size, 0.0, out=size)
    width, height = size
    shared = width * height
    whole = a[4] + b[4]
    whole -= shared
    shared /= whole
    top, bottom = np.maximum(a[1:4:2], b[1:4:2])
    bottom += top
    height /= bottom
    return shared, height


def assign(pairs: Pairs, view: I64 | None, mine: I64, sightings: int) -> None:
    """The matches of greatest total gain into ``mine`` [tracks], which is -1 all over: the detection of every track.

    view: [tracks] camera of every track, ascending, None for one camera. sightings: how many detections there are.
    """
    tracks = len(mine)
    if view is None and tracks * sightings <= DENSE:
        block = np.zeros(sightings * tracks)
        block[pairs.sighting * tracks + pairs.track] = pairs.gain
        _solve(block.reshape(sightings, tracks), mine)
        return
    real = pairs.gain.nonzero()[0]
    track, sighting, gain = pairs.track[real], pairs.sighting[real], pairs.gain[real]
    rivals = np.bincount(track, minlength=tracks)[track] + np.bincount(sighting, minlength=sightings)[sighting]
    alone = rivals == 2
    mine[track[alone]] = sighting[alone]
    contested = (~alone).nonzero()[0]
    if len(contested):
        _contest(track[contested], sighting[contested], gain[contested], view, mine, sightings)


def _solve(block: F64, mine: I64) -> None:
    """The matches of greatest total gain of ``block`` [sightings,tracks] into ``mine`` [tracks], which is -1 all over.

    Where every detection can have the track that is best for it, nothing can be better; only the rest needs solving.
    """
    if block.size > _SMALL:
        best = block.argmax(1)
        wanted = block.max(1).nonzero()[0]
        best = best.take(wanted)
        mine[best] = wanted
        if np.count_nonzero(mine >= 0) == len(wanted):
            return
        mine[best] = -1
    sighting, track = linear_sum_assignment(block, maximize=True)
    real = block[sighting, track] > 0
    mine[track[real]] = sighting[real]


def _contest(track: I64, sighting: I64, gain: F64, view: I64 | None, mine: I64, sightings: int) -> None:
    """Solve pairs that have rivals, a dense block a camera, into ``mine``."""
    rows, row = _ranks(track, len(mine))
    cols, col = _ranks(sighting, sightings)
    cuts = [] if view is None else (np.flatnonzero(np.diff(view[track])) + 1).tolist()
    for low, high in pairwise([0, *cuts, len(track)]):
        r, c = row[low:high], col[low:high]
        r0, c0 = r[0], c.min()
        block = np.zeros((c.max() - c0 + 1, r[-1] - r0 + 1))
        block[c - c0, r - r0] = gain[low:high]
        found = np.full(block.shape[1], -1)
        _solve(block, found)
        matched = (found >= 0).nonzero()[0]
        mine[rows[matched + r0]] = cols[found[matched] + c0]


def _ranks(index: I64, size: int) -> tuple[I64, I64]:
    """The distinct values of ``index`` in order, and for each entry its place among them."""
    present: NDArray[np.bool_] = np.zeros(size, np.bool_)
    present[index] = True
    place = np.cumsum(present) - 1
    return np.flatnonzero(present), place[index]

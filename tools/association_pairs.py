"""What a learned association sees: every track's history in a ring, every near pair, and, in training, who is who.

`Historian` is the tracker of the product with a ring behind each track; everything it needs is read from the tracker's rows, so
that nothing but the worth of a pair differs. Histories are spaced by time, not by picture, so that 30 and
5 pictures a second look alike. Lengths are in sizes of the predicted box, times in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import Detections
from vedette.streamer.tracking.association import Pairs
from vedette.streamer.tracking.config import TrackerConfig
from vedette.streamer.tracking.intake import Sightings
from vedette.streamer.tracking.rows import BOX, CONFIRMED, F64, HITS, I64, ID, RATE, SCORE, SEEN_BOX, SEEN_S, P, spread
from vedette.streamer.tracking.tracker import Tracker
from vedette.streamer.types import Tracks

F32 = NDArray[np.float32]
#: observations in a ring, facts of each (box, score, time), and the least time between two
RING, FACTS, SPACING_S = 8, 6, 0.08
TOKEN, STATE, PAIR = 8, 12, 16


@dataclass(slots=True)
class View:
    """One call: token [N,RING,TOKEN], valid [N,RING], state [N,STATE], pair [P,PAIR], gain [P] (geometry), track and sighting [P]."""

    token: F32
    valid: NDArray[np.bool_]
    state: F32
    pair: F32
    gain: F32
    track: I64
    sighting: I64


class Ring:
    """The histories of one camera, by id: fact [ids,RING,FACTS], newest first, who each observation was of, and how many there are."""

    def __init__(self) -> None:
        self.fact = np.zeros((64, RING, FACTS))
        self.who = np.full((64, RING), -1)
        self.count = np.zeros(64, np.int64)

    def write(self, who: I64, fact: F64, owner: I64) -> None:
        """Add fact [N,FACTS] to the ids ``who``; where the newest is younger than SPACING_S before its elder, in its place."""
        while who.max(initial=0) >= len(self.count):
            self.fact, self.count = np.concatenate([self.fact] * 2), np.concatenate([self.count, 0 * self.count])
            self.who = np.concatenate([self.who] * 2)
        new = self.count[who] == 0
        new |= fact[:, 5] > self.fact[who, 0, 5]
        who, fact, owner = who[new], fact[new], owner[new]
        late = (self.count[who] < 2) | (self.fact[who, 0, 5] - self.fact[who, 1, 5] >= SPACING_S)
        push = who[late]
        self.fact[push, 1:], self.who[push, 1:] = self.fact[push, :-1], self.who[push, :-1]
        self.count[push] = np.minimum(self.count[push] + 1, RING)
        self.fact[who, 0], self.who[who, 0] = fact, owner


def view_of(rows: F64, fact: F64, count: I64, seen: Sightings, pairs: Pairs, unseen: F64, step: F64 | float) -> View:
    """The features of a call. fact: [N,RING,FACTS], newest first, count: [N]."""
    w, h = rows[2], rows[3]
    size = np.stack([np.sqrt(w * h), h])
    last = rows[SEEN_BOX]
    now = rows[SEEN_S] + unseen
    age = np.maximum(now[:, None] - fact[:, :, 5], 0.0)
    token = np.empty((*fact.shape[:2], TOKEN))
    token[:, :, 0] = (fact[:, :, 0] - last[0][:, None]) / size[0][:, None]
    token[:, :, 1] = (fact[:, :, 1] - last[1][:, None]) / size[1][:, None]
    with np.errstate(divide="ignore"):
        token[:, :, 2:4] = np.log(np.maximum(fact[:, :, 2:4], 1e-6) / last[2:4].T[:, None])
    token[:, :, 4:6] = token[:, :, :2] / (age - unseen[:, None] + 0.1)[:, :, None]
    token[:, :, 6] = age / (age + 0.5)
    token[:, :, 7] = fact[:, :, 4]
    valid = np.arange(fact.shape[1]) < count[:, None]
    token *= valid[:, :, None]
    state = np.stack(
        [
            unseen / (unseen + 0.3),
            step / (np.asarray(step) + 0.1) + 0 * unseen,
            *(rows[RATE][:2] / size),
            *(rows[RATE][2:] / size),
            *np.sqrt(rows[P]),
            rows[SCORE],
            np.minimum(rows[HITS], 30) / 30,
            rows[CONFIRMED],
            np.minimum(h, 1.0),
        ],
        1,
    )
    track, sighting = pairs.track, pairs.sighting
    ours, theirs, scale = rows[BOX].take(track, 1), seen.box.take(sighting, 1), size.take(track, 1)
    before, lost = last.take(track, 1), unseen.take(track)
    off = (theirs[:2] - ours[:2]) / scale
    moved = (theirs[:2] - before[:2]) / scale
    grown = np.log(theirs[2:] / np.maximum(ours[2:], 1e-6))
    score = seen.score.take(sighting)
    half = (ours[2:] + theirs[2:]) / 2
    common = np.clip(half - np.abs(theirs[:2] - ours[:2]), 0, np.minimum(ours[2:], theirs[2:]))
    shared = common[0] * common[1]
    iou = shared / np.maximum(ours[2] * ours[3] + theirs[2] * theirs[3] - shared, 1e-9)
    pair = np.stack(
        [
            *off,
            *moved,
            *(moved / (lost + 0.1)),
            *grown,
            *(np.abs(off) / np.sqrt(rows[P]).take(track, 1)[0]),
            pairs.overlap,
            iou,
            common[1] / np.maximum(2 * half[1] - common[1], 1e-9),
            score,
            score - rows[SCORE].take(track),
            ((theirs[1] + theirs[3] / 2) - (ours[1] + ours[3] / 2)) / scale[1],
        ],
        1,
    )
    small = [np.clip(x, -4, 4).astype(np.float32) for x in (token, state, pair)]
    return View(small[0], valid, small[1], small[2], pairs.gain.astype(np.float32), track, sighting)


class Historian(Tracker):
    """The tracker with rings, and a worth of pairs of one's own: ``worth`` [P] from a View, or None for geometry's.

    ``truth`` [M], if set before a call, says who each of its detections is (-1: nobody); ``on_view`` gets every view with
    the owner of every track (the one most seen in its ring, -1 for nobody) and of every usable detection.
    """

    def __init__(
        self,
        config: TrackerConfig | None = None,
        worth: Callable[[View], F64] | None = None,
        on_view: Callable[[View, I64, I64], None] | None = None,
        swaps: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(config)
        self.worth, self.on_view, self.swaps = worth, on_view, swaps
        self.truth: list[I64] | None = None
        self._rng = np.random.default_rng(seed)
        self._rings: dict[str, Ring] = {}
        self._named: Sequence[str] = ()
        self._owners: dict[str, I64] = {}

    def update(
        self,
        cameras: Sequence[str],
        time_s: Sequence[float],
        detections: Sequence[Detections],
        aspect: Sequence[float] | None = None,
    ) -> list[Tracks]:
        """As `Tracker.update`; remembers whom every track was matched to."""
        self._named = cameras
        found = super().update(cameras, time_s, detections, aspect)
        if self.truth is not None:
            for camera, tracks, truth in zip(cameras, found, self.truth, strict=True):
                owner = np.full(int(tracks.id.max(initial=0)) + 1, -1)
                owner[tracks.id] = np.append(truth, -1)[tracks.detection]
                self._owners[camera] = owner
        return found

    def _score(
        self, rows: F64, view: I64 | None, seen: Sightings, unseen: F64, step: list[float], look: F64 | None
    ) -> Pairs:
        """Geometry's pairs, revalued."""
        pairs = super()._score(rows, view, seen, unseen, step, look)
        n = rows.shape[1]
        edges = [0, n] if view is None else np.searchsorted(view, np.arange(len(self._named) + 1)).tolist()
        fact, count, owner = np.zeros((n, RING, FACTS)), np.zeros(n, np.int64), np.full(n, -1)
        new = np.concatenate([rows[SEEN_BOX], rows[SCORE][None], rows[SEEN_S][None]]).T
        for i, camera in enumerate(self._named):
            part = slice(edges[i], edges[i + 1])
            ids = rows[ID, part].astype(np.int64)
            ring = self._rings.setdefault(camera, Ring())
            named = self._owners.get(camera)
            ring.write(ids, new[part], np.full(len(ids), -1) if named is None else named[ids])
            if self.swaps:
                self._swap(ring, ids, rows[BOX, part])
            fact[part], count[part] = ring.fact[ids], ring.count[ids]
            if self.truth is not None:
                owner[part] = _most(ring.who[ids], ring.count[ids])
        seen_by = view_of(rows, fact, count, seen, pairs, unseen, spread(step, view))
        if self.on_view is not None and self.truth is not None:
            row = np.arange(len(seen)) if seen.row is None else seen.row
            lane = np.zeros(len(seen), np.int64) if seen.view is None else seen.view
            start = np.cumsum([0, *(len(t) for t in self.truth)])
            self.on_view(seen_by, owner, np.concatenate(self.truth)[start[lane] + row])
        if self.worth is not None:
            pairs.gain = self.worth(seen_by)
        return pairs

    def _swap(self, ring: Ring, ids: I64, box: F64) -> None:
        """Now and then exchange the histories of two neighbours, as after a wrong match."""
        if len(ids) < 2 or self._rng.random() > self.swaps:
            return
        i = int(self._rng.integers(len(ids)))
        far = np.abs(box[:2] - box[:2, i : i + 1]).sum(0)
        far[i] = np.inf
        j = int(far.argmin())
        if far[j] < box[2, i] + box[3, i]:
            a, b = [ids[i], ids[j]], [ids[j], ids[i]]
            for each in (ring.fact, ring.who):
                each[a, 1:] = each[b, 1:]
            ring.count[a] = np.where(ring.count[b] > 1, ring.count[b], 1)


def _most(who: I64, count: I64) -> I64:
    """Who is most often in each ring [N,RING], the newest on a tie."""
    valid = np.arange(who.shape[1]) < count[:, None]
    votes = ((who[:, :, None] == who[:, None, :]) & valid[:, None, :]).sum(2) * valid * 16 - np.arange(who.shape[1])
    return np.asarray(who[np.arange(len(who)), votes.argmax(1)])

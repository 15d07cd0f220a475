"""Detections become tracks: one `Tracker` follows the objects of many cameras, in one set of arrays.

Works on boxes alone; appearance embeddings are used where the detector gives them. Time is an argument
in seconds of each camera's own clock: irregular and dropped frames are ordinary. The output for a frame
never depends on a later one. Unconfirmed tracks are part of the answer, flagged; their ids must not
leave the process.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import LABELS, Detections, group_of
from vedette.streamer.tracking.association import Pairs, assign, score_pairs
from vedette.streamer.tracking.config import TrackerConfig
from vedette.streamer.tracking.identity import Gallery, inherit, recall
from vedette.streamer.tracking.intake import I64, Sightings, as_score, gather, unit
from vedette.streamer.tracking.motion import Motion
from vedette.streamer.tracking.rows import (
    BORN_S,
    BOX,
    CONFIRMED,
    DETECTION,
    F64,
    GROUP,
    HITS,
    ID,
    LABEL,
    RATE,
    SCORE,
    SEEN_BOX,
    SEEN_S,
    SLOT,
    VOTES,
    empty_rows,
)
from vedette.streamer.types import Tracks

__all__ = ["Tracker", "TrackerConfig"]

#: Width / height of a picture nobody told the aspect of.
DEFAULT_ASPECT = 16 / 9


class Tracker:
    """Follows objects in any number of cameras; ids count up per camera and are never used twice.

    rejected: detections that could not be used, by reason (see `vedette.streamer.tracking.intake.gather`), and
    ``time_back`` / ``time_bad``: steps of a clock that went backwards or was not a number. Such a step
    counts as no time at all; the clock goes on from the new value. Not thread-safe.
    """

    def __init__(self, config: TrackerConfig | None = None, *, labels: Sequence[str] = LABELS) -> None:
        self.config = config or TrackerConfig()
        self.labels = tuple(labels)
        self.rejected: Counter[str] = Counter()
        self._motion = Motion(self.config)
        names = [group_of(label) for label in self.labels]
        order = {name: i for i, name in enumerate(dict.fromkeys(names))}
        self._groups: I64 = np.array([order[name] for name in names], np.int64)
        self._rows = empty_rows(len(self.labels))
        #: appearance [N,D] of the same tracks, from the first detection that brings one on
        self._look: F64 | None = None
        self._gallery = Gallery(self.config, len(self.labels))
        self._slots: dict[str, int] = {}
        self._next_id: dict[str, int] = {}
        #: the last time given, and the seconds that passed in all
        self._clock: dict[str, float] = {}
        self._now: dict[str, float] = {}

    def __len__(self) -> int:
        """Tracks alive, over all cameras."""
        return int(self._rows.shape[1])

    def update(
        self,
        cameras: Sequence[str],
        time_s: Sequence[float],
        detections: Sequence[Detections],
        aspect: Sequence[float] | None = None,
    ) -> list[Tracks]:
        """One frame of each camera given -> its tracks: confirmed, tentative and coasting (``since_seen_s`` > 0).

        cameras: distinct names. time_s: seconds on each camera's own clock. aspect: source width / height
        (16:9 where not given). Cameras that are not named do not move. Raises ValueError on a repeated
        camera, on lists of different lengths, on an aspect that is no positive number and on embeddings of
        different widths; the tracker is then as it was.
        """
        wide = _checked_aspect(cameras, time_s, detections, aspect)
        if not len(wide):
            return []
        seen = gather(detections, wide, self._groups, self.config, self.rejected)
        slots = np.array([self._slot(c) for c in cameras], np.int64)
        step, now = self._advance(cameras, time_s)
        rest, rows, view, look = self._take(slots, seen)
        if rest is not None:
            self._rows, self._look = self._rows[:, rest], None if self._look is None else self._look[rest]
        rows, view, look = self._step(rows, view, look, seen, slots, step, now, cameras)
        if rest is None:
            self._rows, self._look = rows, look
        else:
            self._rows = np.concatenate([self._rows, rows], axis=1)
            self._look = None if look is None or self._look is None else np.concatenate([self._look, look])
        return _answer(rows, view, now, wide)

    def reset(self, camera: str) -> None:
        """A new epoch: forget the camera's tracks and its clock's last value. Its ids go on counting."""
        slot = self._slots.get(camera)
        if slot is not None:
            keep = self._rows[SLOT] != slot
            self._rows = self._rows[:, keep]
            self._look = None if self._look is None else self._look[keep]
            self._gallery.forget_slot(slot)
        self._clock.pop(camera, None)

    def forget(self, camera: str) -> None:
        """The camera was removed: forget its tracks and its clock. Should it come back, its ids go on counting."""
        self.reset(camera)
        self._slots.pop(camera, None)
        self._now.pop(camera, None)

    def _slot(self, camera: str) -> int:
        slot = self._slots.get(camera)
        if slot is None:
            taken = set(self._slots.values())
            slot = next(i for i in range(len(taken) + 1) if i not in taken)
            self._slots[camera] = slot
            self._next_id.setdefault(camera, 1)
        return slot

    def _advance(self, cameras: Sequence[str], time_s: Sequence[float]) -> tuple[F64, F64]:
        """Seconds since each camera's last frame (never negative), and the seconds of its life (never going back)."""
        step, now = np.zeros(len(cameras)), np.zeros(len(cameras))
        for i, (camera, time) in enumerate(zip(cameras, time_s, strict=True)):
            last = self._clock.get(camera)
            passed = 0.0
            if not math.isfinite(time):
                self.rejected["time_bad"] += 1
            else:
                if last is not None and time < last:
                    self.rejected["time_back"] += 1
                elif last is not None:
                    passed = float(time) - last
                self._clock[camera] = float(time)
            step[i] = passed
            now[i] = self._now[camera] = self._now.get(camera, 0.0) + passed
        return step, now

    def _take(self, slots: I64, seen: Sightings) -> tuple[NDArray[np.bool_] | None, F64, I64, F64 | None]:
        """The tracks of the cameras given, ordered as the cameras are, and a mask of the others (None: no others)."""
        own = self._rows[SLOT].astype(np.int64)
        place = np.full(max(int(slots.max()), int(own.max(initial=0))) + 1, -1, np.int64)
        place[slots] = np.arange(len(slots))
        view = place[own]
        self._widen(seen)
        rest = view < 0
        if not rest.any():
            if (view[1:] >= view[:-1]).all():
                return None, self._rows, view, self._look
            order = np.argsort(view, kind="stable")
            return None, self._rows[:, order], view[order], None if self._look is None else self._look[order]
        order = np.argsort(view, kind="stable")[int(rest.sum()) :]
        return rest, self._rows[:, order], view[order], None if self._look is None else self._look[order]

    def _widen(self, seen: Sightings) -> None:
        """Have a place for appearances as wide as those that just came; zeros until one is known."""
        if seen.embedding is None:
            return
        width = seen.embedding.shape[1]
        if self._look is None or self._look.shape[1] != width:
            self._look = np.zeros((len(self), width))

    def _step(
        self,
        rows: F64,
        view: I64,
        look: F64 | None,
        seen: Sightings,
        slots: I64,
        step: F64,
        now: F64,
        cameras: Sequence[str],
    ) -> tuple[F64, I64, F64 | None]:
        """Predict, associate, correct, confirm, bury and begin; the new rows, ordered by camera."""
        c = self.config
        clock, dt = now[view], step[view]
        unseen = clock - rows[SEEN_S]
        self._motion.predict(rows, dt, unseen - dt)
        pairs = score_pairs(rows, view, seen, unseen, unseen - dt, look, c)
        track, sighting = assign(pairs, view, rows.shape[1], len(seen))
        rows[DETECTION] = -1
        risen = self._match(rows, track, sighting, seen, clock)
        if look is not None and seen.embedding is not None:
            _blend(look, track, seen.embedding[sighting], seen.score[sighting])
        alive = clock - rows[SEEN_S] <= np.where(rows[CONFIRMED] > 0, c.lost_s, c.tentative_lost_s) + 1e-6
        if look is not None:
            alive = self._identify(rows, look, risen, clock, alive)
        newborn = self._newborn(pairs, track, sighting, seen)
        if not alive.all():
            rows, view = rows[:, alive], view[alive]
            look = None if look is None else look[alive]
        if len(newborn):
            rows = np.concatenate([rows, self._begin(newborn, seen, slots, now, cameras)], axis=1)
            view = np.concatenate([view, seen.view[newborn]])
            order = np.argsort(view, kind="stable")
            rows, view = rows[:, order], view[order]
            if look is not None:
                fresh = np.zeros((len(newborn), look.shape[1])) if seen.embedding is None else seen.embedding[newborn]
                look = np.concatenate([look, fresh])[order]
        return rows, view, look

    def _match(self, rows: F64, track: I64, sighting: I64, seen: Sightings, clock: F64) -> I64:
        """Update the matched tracks in place; the indices of those that are confirmed by it."""
        if not len(track):
            return track
        c = self.config
        part = rows[:, track]
        time = clock[track]
        score = seen.score[sighting]
        self._motion.correct(part, seen.box[:, sighting])
        part[SCORE] += (1.0 - np.exp((part[SEEN_S] - time) / c.score_s)) * (score - part[SCORE])
        part[SEEN_S] = time
        part[HITS] += 1
        part[DETECTION] = seen.row[sighting]
        ripe = (part[HITS] >= c.confirm_hits) & (time - part[BORN_S] >= c.confirm_s - 1e-6)
        risen: I64 = track[ripe & (part[CONFIRMED] == 0)]
        part[CONFIRMED, ripe] = 1.0
        label = seen.label[sighting]
        part[VOTES + label, np.arange(len(track))] += score
        flipped = label != part[LABEL]
        if flipped.any():
            part[LABEL, flipped] = np.argmax(part[VOTES:, flipped], axis=0)
        rows[:, track] = part
        return risen

    def _identify(self, rows: F64, look: F64, risen: I64, clock: F64, alive: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Let tracks that were just confirmed take over an old id, and remember those that end; who lives on."""
        known: NDArray[np.bool_] = np.any(look, axis=1)
        ending = ~alive & (rows[CONFIRMED] > 0) & known
        if ending.any():
            self._gallery.remember(rows[:, ending], look[ending])
        risen = risen[known[risen]]
        if not len(risen):
            return alive
        coasting = np.flatnonzero(alive & (rows[CONFIRMED] > 0) & (rows[DETECTION] < 0) & known)
        old, old_look = rows[:, coasting], look[coasting]
        if self._gallery.embedding.shape[1] == look.shape[1]:
            old = np.concatenate([old, self._gallery.rows], axis=1)
            old_look = np.concatenate([old_look, self._gallery.embedding])
        if not old.shape[1]:
            return alive
        heir, source = recall(rows[:, risen], look[risen], old, old_look, clock[risen], self.config)
        inherit(rows, risen[heir], old, source)
        alive[coasting[source[source < len(coasting)]]] = False
        taken = np.zeros(len(self._gallery), np.bool_)
        taken[source[source >= len(coasting)] - len(coasting)] = True
        self._gallery.forget(taken)
        return alive

    def _newborn(self, pairs: Pairs, track: I64, sighting: I64, seen: Sightings) -> I64:
        """Detections that start a track: unmatched, sure, and not the second box of an object that has a track."""
        free = seen.score >= as_score(self.config.score_new)
        free[sighting] = False
        if not free.any():
            return np.zeros(0, np.int64)
        taken = np.zeros(int(pairs.track.max(initial=-1)) + 1, np.bool_)
        taken[track] = True
        covered = taken[pairs.track] & (pairs.overlap > self.config.birth_overlap)
        free[pairs.sighting[covered]] = False
        return np.flatnonzero(free)

    def _begin(self, newborn: I64, seen: Sightings, slots: I64, now: F64, cameras: Sequence[str]) -> F64:
        """Rows of tentative tracks that begin with the detections ``newborn``, in their order."""
        n, view = len(newborn), seen.view[newborn]
        rows = np.zeros((self._rows.shape[0], n))
        self._motion.begin(rows, seen.box[:, newborn])
        rows[SEEN_S] = rows[BORN_S] = now[view]
        rows[SCORE] = seen.score[newborn]
        rows[HITS] = 1
        rows[CONFIRMED] = self.config.confirm_hits <= 1 and self.config.confirm_s <= 0
        rows[SLOT] = slots[view]
        rows[LABEL] = seen.label[newborn]
        rows[GROUP] = seen.group[newborn]
        rows[DETECTION] = seen.row[newborn]
        rows[VOTES + seen.label[newborn], np.arange(n)] = rows[SCORE]
        count = np.bincount(view, minlength=len(cameras))
        first = np.array([self._next_id[camera] for camera in cameras])
        rows[ID] = first[view] + np.arange(n) - np.repeat(np.cumsum(count) - count, count)
        for i in np.flatnonzero(count).tolist():
            self._next_id[cameras[i]] += int(count[i])
        return rows


def _checked_aspect(
    cameras: Sequence[str], time_s: Sequence[float], detections: Sequence[Detections], aspect: Sequence[float] | None
) -> F64:
    """The aspects [n] of a call whose arguments fit together; raises ValueError otherwise."""
    n = len(cameras)
    if not len(time_s) == len(detections) == n or (aspect is not None and len(aspect) != n):
        raise ValueError(
            f"Tracker.update: needs one time, one Detections and one aspect a camera, got {n} cameras, "
            f"{len(time_s)} times, {len(detections)} detections, {'no' if aspect is None else len(aspect)} aspects"
        )
    if len(set(cameras)) != n:
        raise ValueError(f"Tracker.update: needs distinct cameras, got {list(cameras)}; call once per frame")
    wide = np.full(n, DEFAULT_ASPECT) if aspect is None else np.asarray(aspect, np.float64)
    if not ((wide > 0.01) & (wide < 100)).all():
        raise ValueError(f"Tracker.update: aspect needs to be width / height in 0.01..100, got {wide.tolist()}")
    return wide


def _answer(rows: F64, view: I64, now: F64, aspect: F64) -> list[Tracks]:
    """The Tracks of every camera, cut from rows that are ordered by camera."""
    wide = aspect[view]
    # a sure detection is a better box than the filter's, a doubtful one is not
    trust = rows[SCORE] * (rows[DETECTION] >= 0)
    box = rows[BOX] + trust * (rows[SEEN_BOX] - rows[BOX])
    corners = np.empty((4, len(view)))
    half = box[2:] * 0.5
    np.subtract(box[:2], half, out=corners[:2])
    np.add(box[:2], half, out=corners[2:])
    corners[::2] /= wide
    xyxy = corners.T.astype(np.float32, order="C")
    rate = rows[RATE][:2].copy()
    rate[0] /= wide
    velocity = rate.T.astype(np.float32, order="C")
    time = now[view]
    age, since = (time - rows[BORN_S]).astype(np.float32), (time - rows[SEEN_S]).astype(np.float32)
    ids, score = rows[ID].astype(np.int64), rows[SCORE].astype(np.float32)
    label, detection = rows[LABEL].astype(np.int32), rows[DETECTION].astype(np.int32)
    confirmed = rows[CONFIRMED] > 0
    edges = np.searchsorted(view, np.arange(len(now) + 1)).tolist()
    return [
        Tracks(
            ids[a:b],
            xyxy[a:b],
            velocity[a:b],
            score[a:b],
            label[a:b],
            age[a:b],
            since[a:b],
            confirmed[a:b],
            detection[a:b],
        )
        for a, b in pairwise(edges)
    ]


def _blend(look: F64, track: I64, fresh: F64, score: F64) -> None:
    """Move the matched tracks' appearance toward the fresh one, the surer the detection the farther (Deep-OC-SORT)."""
    if not len(track):
        return
    keep = (0.95 + 0.05 * (1.0 - score))[:, None]
    keep = np.where(look[track].any(axis=1, keepdims=True), keep, 0.0)
    look[track] = unit(keep * look[track] + (1.0 - keep) * fresh)

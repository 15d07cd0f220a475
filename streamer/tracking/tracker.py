"""Detections become tracks: one `Tracker` follows the objects of many cameras, those of a call in one set of arrays.

Works on boxes alone; appearance embeddings are used where the detector gives them. Time is an argument
in seconds of each camera's own clock: irregular and dropped frames are ordinary. The output for a frame
never depends on a later one. Unconfirmed tracks are part of the answer, flagged; their ids must not
leave the process.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import LABELS, Detections, group_of
from vedette.streamer.tracking.answer import answer_of
from vedette.streamer.tracking.association import Pairs, assign, score_pairs
from vedette.streamer.tracking.config import TrackerConfig
from vedette.streamer.tracking.identity import Gallery, counted
from vedette.streamer.tracking.intake import Sightings, as_score, gather, unit
from vedette.streamer.tracking.motion import Motion
from vedette.streamer.tracking.rows import (
    BORN_S,
    CONFIRMED,
    F64,
    GROUP,
    HITS,
    I64,
    ID,
    LABEL,
    LIMIT_S,
    OWN_VOTES,
    RETURNED_S,
    SCORE,
    SEEN_S,
    VOTES,
    empty_rows,
    spread,
)
from vedette.streamer.types import Tracks

__all__ = ["Tracker", "TrackerConfig"]

#: Width / height of a picture nobody told the aspect of.
DEFAULT_ASPECT = 16 / 9
Mask = NDArray[np.bool_]
_NOBODY: I64 = np.zeros(0, np.int64)


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
        self._none = empty_rows(len(self.labels))
        #: a camera's tracks, and their appearances [N,D] from the first detection that brought one on
        self._rows: dict[str, F64] = {}
        self._looks: dict[str, F64] = {}
        self._galleries: dict[str, Gallery] = {}
        self._next_id: dict[str, int] = {}
        #: the last time given, and the seconds that passed in all
        self._clock: dict[str, float] = {}
        self._now: dict[str, float] = {}

    def __len__(self) -> int:
        """Tracks alive, over all cameras."""
        return sum(rows.shape[1] for rows in self._rows.values())

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
        if not wide:
            return []
        seen = gather(detections, wide, self._groups, self.config, self.rejected)
        step, now = self._advance(cameras, time_s)
        rows, view, look = self._take(cameras, seen)
        rows, view, look, detection = self._step(rows, view, look, seen, step, now, cameras)
        self._keep(cameras, rows, view, look)
        return answer_of(rows, view, detection, now, wide, known=look is not None)

    def reset(self, camera: str) -> None:
        """A new epoch: forget the camera's tracks and its clock's last value. Its ids go on counting."""
        self._rows.pop(camera, None)
        self._looks.pop(camera, None)
        self._galleries.pop(camera, None)
        self._clock.pop(camera, None)

    def forget(self, camera: str) -> None:
        """The camera was removed: forget its tracks and its clock. Should it come back, its ids go on counting."""
        self.reset(camera)
        self._now.pop(camera, None)

    def _advance(self, cameras: Sequence[str], time_s: Sequence[float]) -> tuple[list[float], list[float]]:
        """Seconds since each camera's last frame (never negative), and the seconds of its life (never going back)."""
        step, now = [], []
        for camera, time in zip(cameras, time_s, strict=True):
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
            self._now[camera] = alive = self._now.get(camera, 0.0) + passed
            step.append(passed)
            now.append(alive)
        return step, now

    def _take(self, cameras: Sequence[str], seen: Sightings) -> tuple[F64, I64 | None, F64 | None]:
        """The tracks of the cameras given, ordered as the cameras are, the camera of each, and their appearances."""
        parts = [self._rows.get(camera, self._none) for camera in cameras]
        look = None
        if seen.embedding is not None or self._looks:
            looks = [self._looks.get(camera) for camera in cameras]
            width = next((e.shape[1] for e in (seen.embedding, *looks) if e is not None), 0)
            fitting = [
                np.zeros((p.shape[1], width)) if e is None or e.shape[1] != width else e
                for p, e in zip(parts, looks, strict=True)
            ]
            look = np.concatenate(fitting) if width else None
        if len(parts) == 1:
            return parts[0], None, look
        view = np.repeat(np.arange(len(parts)), [p.shape[1] for p in parts])
        return np.concatenate(parts, axis=1), view, look

    def _keep(self, cameras: Sequence[str], rows: F64, view: I64 | None, look: F64 | None) -> None:
        """Put the tracks of a call back to their cameras."""
        if view is None:
            self._rows[cameras[0]] = rows
            if look is not None:
                self._looks[cameras[0]] = look
            return
        edges = np.searchsorted(view, np.arange(len(cameras) + 1)).tolist()
        for i, camera in enumerate(cameras):
            # copies: a view would keep the tracks of all cameras of the call in memory
            self._rows[camera] = rows[:, edges[i] : edges[i + 1]].copy()
            if look is not None:
                self._looks[camera] = look[edges[i] : edges[i + 1]].copy()

    def _step(
        self,
        rows: F64,
        view: I64 | None,
        look: F64 | None,
        seen: Sightings,
        step: list[float],
        now: list[float],
        cameras: Sequence[str],
    ) -> tuple[F64, I64 | None, F64 | None, I64]:
        """Predict, associate, correct, confirm, bury and begin; the new rows, ordered by camera, and their detections."""
        clock = spread(now, view)
        tracks, sightings, matches = rows.shape[1], len(seen), 0
        pairs, risen = None, None
        mine: I64 = np.full(tracks, -1)
        if look is not None:
            rows[RETURNED_S] = 0.0
        if tracks:
            self._motion.predict(rows, spread(step, view))
            unseen = clock - rows[SEEN_S]
            if sightings:
                pairs = self._score(rows, view, seen, unseen, step, look)
                assign(pairs, view, mine, sightings)
            matched = mine >= 0
            if matches := int(np.count_nonzero(matched)):
                risen = self._match(rows, mine, matched, seen, clock, unseen)
                if look is not None and seen.embedding is not None:
                    track = matched.nonzero()[0]
                    _blend(look, track, seen.embedding[mine[track]], seen.score[mine[track]])
            alive = matched | (unseen <= rows[LIMIT_S])
        newborn = _NOBODY if matches == sightings else self._newborn(pairs, mine, seen)
        detection = mine if seen.row is None or not sightings else np.where(mine >= 0, seen.row[mine], -1)
        if tracks:
            if look is not None:
                self._identify(rows, view, look, risen, detection, now, alive, cameras)
            if np.count_nonzero(alive) < tracks:
                keep = alive.nonzero()[0]
                rows, detection, view = rows.take(keep, 1), detection[keep], None if view is None else view[keep]
                look = None if look is None else look[keep]
        if not len(newborn):
            return rows, view, look, detection
        return self._grow(rows, view, look, detection, newborn, seen, now, cameras)

    def _score(
        self, rows: F64, view: I64 | None, seen: Sightings, unseen: F64, step: list[float], look: F64 | None
    ) -> Pairs:
        """The pairs of tracks and detections that are near, and what each is worth."""
        return score_pairs(rows, view, seen, unseen, step, look, self.config)

    def _match(
        self, rows: F64, mine: I64, matched: Mask, seen: Sightings, clock: F64 | float, unseen: F64
    ) -> I64 | None:
        """Update the matched tracks in place; the indices of those that are confirmed by it, None for nobody."""
        c = self.config
        self._motion.correct(rows, seen.box.take(mine, 1), matched)
        score = seen.score.take(mine)
        fresh = np.exp(unseen / -c.score_s)
        np.subtract(1.0, fresh, out=fresh)
        fresh *= score - rows[SCORE]
        fresh *= matched
        rows[SCORE] += fresh
        np.copyto(rows[SEEN_S], clock, where=matched)
        rows[HITS] += matched
        label = seen.label.take(mine)
        flipped = label != rows[LABEL]
        flipped &= matched
        score *= matched
        if np.count_nonzero(flipped):
            who = flipped.nonzero()[0]
            votes = counted(rows[:, who])
            votes[label[who], np.arange(len(who))] += score[who]
            rows[VOTES:, who], rows[OWN_VOTES, who] = votes, 0.0
            rows[LABEL, who] = np.argmax(votes, axis=0)
            score[who] = 0.0
        rows[OWN_VOTES] += score
        if np.count_nonzero(rows[CONFIRMED]) == len(mine):
            return None
        ripe = matched & (rows[CONFIRMED] == 0) & (rows[HITS] >= c.confirm_hits)
        ripe &= clock - rows[BORN_S] >= c.confirm_s - 1e-6
        risen: I64 = ripe.nonzero()[0]
        rows[CONFIRMED, risen], rows[LIMIT_S, risen] = 1.0, c.lost_s + 1e-6
        return risen

    def _identify(
        self,
        rows: F64,
        view: I64 | None,
        look: F64,
        risen: I64 | None,
        detection: I64,
        now: list[float],
        alive: Mask,
        cameras: Sequence[str],
    ) -> None:
        """Let tracks that were just confirmed take over an old id, and remember those that end; updates ``alive``."""
        known: Mask = np.any(look, axis=1)
        confirmed = (rows[CONFIRMED] > 0) & known
        ending = ~alive & confirmed
        rising = np.zeros(len(alive), np.bool_)
        if risen is not None:
            rising[risen] = known[risen]
        busy = ending | rising
        if not busy.any():
            return
        for i in [0] if view is None else np.unique(view[busy]).tolist():
            here = np.ones(len(alive), np.bool_) if view is None else view == i
            gallery = self._galleries.setdefault(cameras[i], Gallery(self.config, len(self.labels)))
            if (gone := ending & here).any():
                gallery.remember(rows[:, gone], look[gone])
            if (fresh := np.flatnonzero(rising & here)).size:
                coasting = np.flatnonzero(here & alive & confirmed & (detection < 0))
                alive[gallery.claim(rows, look, fresh, coasting, now[i])] = False

    def _newborn(self, pairs: Pairs | None, mine: I64, seen: Sightings) -> I64:
        """Detections that start a track: unmatched, sure, and not the second box of an object that has a track."""
        free = seen.score >= as_score(self.config.score_new)
        if pairs is None:
            return free.nonzero()[0]
        taken = mine >= 0
        free[mine[taken]] = False
        if np.count_nonzero(free):
            covered = taken[pairs.track] & (pairs.overlap > self.config.birth_overlap)
            free[pairs.sighting[covered]] = False
        return free.nonzero()[0]

    def _grow(
        self,
        rows: F64,
        view: I64 | None,
        look: F64 | None,
        detection: I64,
        newborn: I64,
        seen: Sightings,
        now: list[float],
        cameras: Sequence[str],
    ) -> tuple[F64, I64 | None, F64 | None, I64]:
        """The tracks and, behind those of its camera, a tentative one for every detection ``newborn``."""
        row = newborn if seen.row is None else seen.row[newborn]
        rows = np.concatenate([rows, self._begin(newborn, seen, now, cameras)], axis=1)
        detection = np.concatenate([detection, row])
        if look is not None:
            fresh = np.zeros((len(newborn), look.shape[1])) if seen.embedding is None else seen.embedding[newborn]
            look = np.concatenate([look, fresh])
        if view is None or seen.view is None:
            return rows, view, look, detection
        view = np.concatenate([view, seen.view[newborn]])
        order = np.argsort(view, kind="stable")
        return rows[:, order], view[order], None if look is None else look[order], detection[order]

    def _begin(self, newborn: I64, seen: Sightings, now: list[float], cameras: Sequence[str]) -> F64:
        """Rows of tentative tracks that begin with the detections ``newborn``, in their order."""
        c, n = self.config, len(newborn)
        view = np.zeros(n, np.int64) if seen.view is None else seen.view[newborn]
        rows = np.zeros((self._none.shape[0], n))
        self._motion.begin(rows, seen.box[:, newborn])
        rows[SEEN_S] = rows[BORN_S] = spread(now, seen.view if seen.view is None else view)
        rows[SCORE] = rows[OWN_VOTES] = seen.score[newborn]
        rows[HITS] = 1
        rows[CONFIRMED] = sure = c.confirm_hits <= 1 and c.confirm_s <= 0
        rows[LIMIT_S] = (c.lost_s if sure else c.tentative_lost_s) + 1e-6
        rows[LABEL] = seen.label[newborn]
        rows[GROUP] = seen.group[newborn]
        count = np.bincount(view, minlength=len(cameras))
        first = np.array([self._next_id.setdefault(camera, 1) for camera in cameras])
        rows[ID] = first[view] + np.arange(n) - np.repeat(np.cumsum(count) - count, count)
        for i in np.flatnonzero(count).tolist():
            self._next_id[cameras[i]] += int(count[i])
        return rows


def _checked_aspect(
    cameras: Sequence[str], time_s: Sequence[float], detections: Sequence[Detections], aspect: Sequence[float] | None
) -> list[float]:
    """The aspects of a call whose arguments fit together; raises ValueError otherwise."""
    n = len(cameras)
    if not len(time_s) == len(detections) == n or (aspect is not None and len(aspect) != n):
        raise ValueError(
            f"Tracker.update: needs one time, one Detections and one aspect a camera, got {n} cameras, "
            f"{len(time_s)} times, {len(detections)} detections, {'no' if aspect is None else len(aspect)} aspects"
        )
    if n > 1 and len(set(cameras)) != n:
        raise ValueError(f"Tracker.update: needs distinct cameras, got {list(cameras)}; call once per frame")
    if aspect is None:
        return [DEFAULT_ASPECT] * n
    wide = [float(w) for w in aspect]
    if not all(0.01 < w < 100 for w in wide):
        raise ValueError(f"Tracker.update: aspect needs to be width / height in 0.01..100, got {wide}")
    return wide


def _blend(look: F64, track: I64, fresh: F64, score: F64) -> None:
    """Move the matched tracks' appearance toward the fresh one, the surer the detection the farther (Deep-OC-SORT)."""
    if not len(track):
        return
    keep = (0.95 + 0.05 * (1.0 - score))[:, None]
    keep = np.where(look[track].any(axis=1, keepdims=True), keep, 0.0)
    look[track] = unit(keep * look[track] + (1.0 - keep) * fresh)

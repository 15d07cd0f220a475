"""Detections become tracks: one `Tracker` follows the objects of many cameras, in one set of arrays.

Works on boxes alone; appearance embeddings are used where the detector gives them. Time is an argument
in seconds of each camera's own clock: irregular and dropped frames are ordinary. The output for a frame
never depends on a later one. Unconfirmed tracks are part of the answer, flagged; their ids must not
leave the process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from vedette.engines.api import LABELS, Detections, group_of
from vedette.streamer.tracking.association import Pairs, assign, score_pairs
from vedette.streamer.tracking.config import TrackerConfig
from vedette.streamer.tracking.intake import I64, Sightings, gather, unit
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
    SCORE_RATE,
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
    counts as no time at all; the clock goes on from the new value.
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
        self._embedding: F64 | None = None
        self._slots: dict[str, int] = {}
        self._next_id: dict[str, int] = {}
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
        camera, on lists of different lengths and on an aspect that is not a positive number.
        """
        n = len(cameras)
        if not len(time_s) == len(detections) == n or (aspect is not None and len(aspect) != n):
            raise ValueError(
                f"Tracker.update: needs one time, one Detections and one aspect a camera, got {n} cameras, "
                f"{len(time_s)} times, {len(detections)} detections, {'no' if aspect is None else len(aspect)} aspects"
            )
        if len(set(cameras)) != n:
            raise ValueError(f"Tracker.update: needs distinct cameras, got {list(cameras)}; call once per frame")
        if n == 0:
            return []
        wide = np.full(n, DEFAULT_ASPECT) if aspect is None else np.asarray(aspect, np.float64)
        if not ((wide > 0) & (wide < 100)).all():
            raise ValueError(f"Tracker.update: aspect needs to be width / height > 0, got {list(wide)}")
        slots = np.array([self._slot(c) for c in cameras], np.int64)
        step, now = self._advance(cameras, time_s)
        seen = gather(detections, wide, self._groups, self.config, self.rejected)
        rest, rows, view, embedding = self._take(slots)
        self._step(rest, rows, view, embedding, seen, slots, step, now, cameras)
        return self._answer(slots, now, wide)

    def reset(self, camera: str) -> None:
        """A new epoch: forget the camera's tracks. Its ids go on counting."""
        slot = self._slots.get(camera)
        if slot is not None:
            self._keep(self._rows[SLOT] != slot)
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
        """Seconds since each camera's last frame (never negative), and its own clock that never goes back."""
        step, now = np.zeros(len(cameras)), np.zeros(len(cameras))
        for i, (camera, time) in enumerate(zip(cameras, time_s, strict=True)):
            last = self._clock.get(camera)
            passed = 0.0
            if not np.isfinite(time):
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

    def _keep(self, keep: NDArray[np.bool_]) -> None:
        self._rows = self._rows[:, keep]
        if self._embedding is not None:
            self._embedding = self._embedding[keep]

    def _take(self, slots: I64) -> tuple[NDArray[np.bool_], F64, I64, F64 | None]:
        """The tracks of the cameras given, ordered as the cameras are; ``rest`` masks those of the others."""
        place = np.full(max(int(slots.max()), int(self._rows[SLOT].max(initial=0))) + 1, -1, np.int64)
        place[slots] = np.arange(len(slots))
        view = place[self._rows[SLOT].astype(np.int64)]
        rest = view < 0
        order = np.argsort(view, kind="stable")[int(rest.sum()) :]
        embedding = None if self._embedding is None else self._embedding[order]
        return rest, self._rows[:, order], view[order], embedding

    def _step(
        self,
        rest: NDArray[np.bool_],
        rows: F64,
        view: I64,
        embedding: F64 | None,
        seen: Sightings,
        slots: I64,
        step: F64,
        now: F64,
        cameras: Sequence[str],
    ) -> None:
        c = self.config
        clock = now[view]
        unseen = clock - step[view] - rows[SEEN_S]
        self._motion.predict(rows, step[view], unseen)
        cosine = None
        if embedding is not None and seen.embedding is not None and c.appearance_weight:
            cosine = embedding @ seen.embedding.T if embedding.shape[1] == seen.embedding.shape[1] else None
        pairs = score_pairs(rows, view, seen, clock - rows[SEEN_S], c, cosine)
        track, sighting = assign(pairs, view, rows.shape[1], len(seen))
        rows[DETECTION] = -1
        self._match(rows, track, sighting, seen, clock)
        if embedding is not None and seen.embedding is not None and embedding.shape[1] == seen.embedding.shape[1]:
            _blend(embedding, track, seen.embedding[sighting], seen.score[sighting])
        alive = np.where(
            rows[CONFIRMED] > 0, clock - rows[SEEN_S] <= c.lost_s, clock - rows[SEEN_S] <= c.tentative_lost_s
        )
        free = np.ones(len(seen), np.bool_)
        free[sighting] = False
        newborn = self._newborn(free & (seen.score >= c.score_new), pairs, track)
        born = self._begin(newborn, seen, slots, now, cameras)
        if alive.all():
            parts = [rows, born]
        else:
            parts = [rows[:, alive], born]
        parts.insert(0, self._rows[:, rest])
        width = None if seen.embedding is None else seen.embedding.shape[1]
        if width is not None or self._embedding is not None:
            self._embedding = self._join(rest, embedding, alive, newborn, seen)
        self._rows = np.concatenate(parts, axis=1)

    def _join(
        self,
        rest: NDArray[np.bool_],
        embedding: F64 | None,
        alive: NDArray[np.bool_],
        newborn: I64,
        seen: Sightings,
    ) -> F64:
        """The embeddings of all tracks in the order of the rows; zeros for those that never had one."""
        known = self._embedding if seen.embedding is None else seen.embedding
        assert known is not None
        width = known.shape[1]

        def part(e: F64 | None, n: int) -> F64:
            return e if e is not None and e.shape[1] == width else np.zeros((n, width))

        old = None if self._embedding is None else self._embedding[rest]
        kept = None if embedding is None else embedding[alive]
        new = None if seen.embedding is None else seen.embedding[newborn]
        return np.concatenate([part(old, int(rest.sum())), part(kept, int(alive.sum())), part(new, len(newborn))])

    def _match(self, rows: F64, track: I64, sighting: I64, seen: Sightings, clock: F64) -> None:
        """Update the matched tracks in place."""
        if not len(track):
            return
        c = self.config
        part = rows[:, track]
        gap = clock[track] - part[SEEN_S]
        score = seen.score[sighting]
        self._motion.correct(part, seen.box[:, sighting], gap)
        part[SCORE_RATE] = (score - part[SCORE]) / np.maximum(gap, 1e-3)
        part[SCORE] = score
        part[SEEN_S] = clock[track]
        part[HITS] += 1
        part[DETECTION] = seen.row[sighting]
        part[CONFIRMED] = np.maximum(
            part[CONFIRMED],
            (part[HITS] >= c.confirm_hits) & (part[SEEN_S] - part[BORN_S] >= c.confirm_s - 1e-6),
        )
        label = seen.label[sighting]
        part[VOTES + label, np.arange(len(track))] += score
        flipped = label != part[LABEL]
        if flipped.any():
            part[LABEL, flipped] = np.argmax(part[VOTES:, flipped], axis=0)
        rows[:, track] = part

    def _newborn(self, free: NDArray[np.bool_], pairs: Pairs, track: I64) -> I64:
        """Detections that start a track: unmatched, sure, and not the second box of an object that has a track."""
        if not free.any():
            return np.zeros(0, np.int64)
        taken = np.zeros(int(pairs.track.max(initial=-1)) + 1, np.bool_)
        taken[track] = True
        covered = taken[pairs.track] & (pairs.overlap > self.config.birth_overlap)
        free[pairs.sighting[covered]] = False
        return np.flatnonzero(free)

    def _begin(self, newborn: I64, seen: Sightings, slots: I64, now: F64, cameras: Sequence[str]) -> F64:
        """Tentative tracks of the detections ``newborn``, in the order of the detections."""
        n = len(newborn)
        rows = np.zeros((self._rows.shape[0], n))
        if not n:
            return rows
        c = self.config
        view = seen.view[newborn]
        self._motion.begin(rows, seen.box[:, newborn])
        rows[SEEN_S] = rows[BORN_S] = now[view]
        rows[SCORE] = seen.score[newborn]
        rows[HITS] = 1
        rows[CONFIRMED] = c.confirm_hits <= 1 and c.confirm_s <= 0
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

    def _answer(self, slots: I64, now: F64, aspect: F64) -> list[Tracks]:
        """What update returns, cut from the arrays."""
        _, rows, view, _ = self._take(slots)
        wide = aspect[view]
        box = rows[BOX].copy()
        box[2:] *= 0.5
        xyxy = np.concatenate([box[:2] - box[2:], box[:2] + box[2:]])
        xyxy[::2] /= wide
        corners = xyxy.T.astype(np.float32)
        rate = rows[RATE][:2].copy()
        rate[0] /= wide
        velocity = rate.T.astype(np.float32)
        ids = rows[ID].astype(np.int64)
        score = rows[SCORE].astype(np.float32)
        label = rows[LABEL].astype(np.int32)
        age = (now[view] - rows[BORN_S]).astype(np.float32)
        since = (now[view] - rows[SEEN_S]).astype(np.float32)
        confirmed = rows[CONFIRMED] > 0
        detection = rows[DETECTION].astype(np.int32)
        edges = np.searchsorted(view, np.arange(len(slots) + 1)).tolist()
        return [
            Tracks(
                ids[a:b], corners[a:b], velocity[a:b], score[a:b], label[a:b], age[a:b], since[a:b],
                confirmed[a:b], detection[a:b],
            )
            for a, b in pairwise(edges)
        ]  # fmt: skip


def _blend(embedding: F64, track: I64, fresh: F64, score: F64) -> None:
    """Move the matched tracks' appearance toward the fresh one, the surer the detection the farther (Deep-OC-SORT)."""
    keep = (0.95 + 0.05 * (1.0 - score))[:, None]
    mixed = keep * embedding[track] + (1.0 - keep) * fresh
    embedding[track] = unit(mixed)

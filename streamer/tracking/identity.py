"""Who is it again? Return of an object under its old id, by appearance, before its new id is known to anyone.

A track that is about to be confirmed is compared with the tracks of its camera that were lost or forgotten
before it began. When one of them looks the same, and no other does, the newcomer takes over its id, its age
and its votes. Ids of unconfirmed tracks never leave the tracker, so nobody ever sees an id change.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from vedette.streamer.tracking.config import TrackerConfig
from vedette.streamer.tracking.rows import (
    BORN_S,
    F64,
    GROUP,
    HITS,
    I64,
    ID,
    LABEL,
    OWN_VOTES,
    RETURNED_S,
    SEEN_S,
    VOTES,
    empty_rows,
)


class Gallery:
    """Forgotten tracks of one camera that had an appearance: rows [K,M] and embeddings [M,D], bounded."""

    def __init__(self, config: TrackerConfig, labels: int) -> None:
        self._config = config
        self.rows: F64 = empty_rows(labels)
        self.embedding: F64 = np.zeros((0, 0))

    def remember(self, rows: F64, embedding: F64) -> None:
        """Add tracks that were just forgotten. The newest ``remember_max`` stay."""
        if embedding.shape[1] != self.embedding.shape[1]:
            self.rows, self.embedding = self.rows[:, :0], np.zeros((0, embedding.shape[1]))
        rows, embedding = np.concatenate([self.rows, rows], axis=1), np.concatenate([self.embedding, embedding])
        newest = np.argsort(-rows[SEEN_S], kind="stable")[: self._config.remember_max]
        newest.sort()
        self.rows, self.embedding = rows[:, newest], embedding[newest]

    def forget(self, gone: NDArray[np.bool_]) -> None:
        """Drop the entries that the mask [M] names."""
        self.rows, self.embedding = self.rows[:, ~gone], self.embedding[~gone]

    def claim(self, rows: F64, look: F64, risen: I64, coasting: I64, now: float) -> I64:
        """Give the just confirmed tracks ``risen`` the ids of those they are; the ``coasting`` tracks that are over.

        rows: [K,N] the camera's tracks, changed in place. look: [N,D]. now: the camera's time in seconds.
        """
        old, old_look = rows[:, coasting], look[coasting]
        if self.embedding.shape[1] == look.shape[1]:
            old = np.concatenate([old, self.rows], axis=1)
            old_look = np.concatenate([old_look, self.embedding])
        if not old.shape[1]:
            return coasting[:0]
        heir, source = recall(rows[:, risen], look[risen], old, old_look, now, self._config)
        inherit(rows, risen[heir], old, source)
        alive = source < len(coasting)
        taken = np.zeros(self.rows.shape[1], np.bool_)
        taken[source[~alive] - len(coasting)] = True
        self.forget(taken)
        return coasting[source[alive]]


def recall(fresh: F64, fresh_look: F64, old: F64, old_look: F64, now: float, config: TrackerConfig) -> tuple[I64, I64]:
    """Which of the tracks ``fresh`` [K,N] are which of ``old`` [K,M]: two index arrays.

    fresh_look, old_look: embeddings [N,D], [M,D] of unit length (zeros: unknown). now: seconds. A pair
    needs one group, an old track not seen since the new one began and not longer ago than ``remember_s``,
    a cosine of at least ``return_cosine``, and no rival within ``return_margin``.
    """
    cosine = fresh_look @ old_look.T
    possible = (
        (fresh[GROUP][:, None] == old[GROUP])
        & (old[SEEN_S] < fresh[BORN_S][:, None])
        & (now - old[SEEN_S] <= config.remember_s)
    )
    cosine = np.where(possible, cosine, -1.0)
    clear = cosine >= config.return_cosine
    if cosine.shape[1] > 1:
        best_two = np.partition(cosine, -2, axis=1)[:, -2:]
        clear &= (best_two[:, 1] - best_two[:, 0] >= config.return_margin)[:, None]
    if not clear.any():
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    i, j = linear_sum_assignment(np.where(clear, cosine, 0.0), maximize=True)
    real = clear[i, j]
    return i[real].astype(np.int64), j[real].astype(np.int64)


def inherit(rows: F64, heir: I64, old: F64, source: I64) -> None:
    """Give the tracks ``heir`` of ``rows`` the older id, birth, votes and label of the tracks ``source`` of ``old``, in place."""
    rows[RETURNED_S, heir] = rows[BORN_S, heir] - old[SEEN_S, source]
    for row in (ID, BORN_S):
        rows[row, heir] = old[row, source]
    rows[HITS, heir] += old[HITS, source]
    votes = counted(rows[:, heir]) + counted(old[:, source])
    rows[OWN_VOTES, heir] = 0.0
    rows[VOTES:, heir] = votes
    rows[LABEL, heir] = np.argmax(votes, axis=0)


def counted(rows: F64) -> F64:
    """All votes [labels,N] of tracks ``rows`` [K,N], those for the present label included."""
    votes = rows[VOTES:].copy()
    votes[rows[LABEL].astype(np.int64), np.arange(rows.shape[1])] += rows[OWN_VOTES]
    return votes

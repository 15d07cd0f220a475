"""Who is it again? Return of an object under its old id, by appearance, before its new id is known to anyone.

A track that is about to be confirmed is compared with the tracks that were lost or forgotten before it
began. When one of them looks the same, and no other does, the newcomer takes over its id, its age and its
votes. Ids of unconfirmed tracks never leave the tracker, so nobody ever sees an id change.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from vedette.streamer.tracking.config import TrackerConfig
from vedette.streamer.tracking.intake import I64
from vedette.streamer.tracking.rows import BORN_S, F64, GROUP, HITS, ID, LABEL, SEEN_S, SLOT, VOTES, empty_rows


class Gallery:
    """Forgotten tracks that had an appearance: rows [K,M] and embeddings [M,D], bounded in number and in time."""

    def __init__(self, config: TrackerConfig, labels: int) -> None:
        self._config = config
        self._labels = labels
        self.rows: F64 = empty_rows(labels)
        self.embedding: F64 = np.zeros((0, 0))

    def __len__(self) -> int:
        return int(self.rows.shape[1])

    def remember(self, rows: F64, embedding: F64) -> None:
        """Add tracks that were just forgotten. The newest ``remember_max`` of every camera stay."""
        if embedding.shape[1] != self.embedding.shape[1]:
            self.rows, self.embedding = empty_rows(self._labels), np.zeros((0, embedding.shape[1]))
        self.rows = np.concatenate([self.rows, rows], axis=1)
        self.embedding = np.concatenate([self.embedding, embedding])
        slot = self.rows[SLOT]
        order = np.lexsort((-self.rows[SEEN_S], slot))
        rank = np.arange(len(order)) - np.searchsorted(slot[order], slot[order])
        keep = np.sort(order[rank < self._config.remember_max])
        if len(keep) < len(order):
            self.rows, self.embedding = self.rows[:, keep], self.embedding[keep]

    def forget(self, gone: NDArray[np.bool_]) -> None:
        """Drop the entries that the mask [M] names."""
        self.rows, self.embedding = self.rows[:, ~gone], self.embedding[~gone]

    def forget_slot(self, slot: int) -> None:
        """Drop all entries of one camera."""
        self.forget(self.rows[SLOT] == slot)


def recall(fresh: F64, fresh_look: F64, old: F64, old_look: F64, now: F64, config: TrackerConfig) -> tuple[I64, I64]:
    """Which of the tracks ``fresh`` [K,N] are which of ``old`` [K,M]: two index arrays.

    fresh_look, old_look: embeddings [N,D], [M,D] of unit length (zeros: unknown). now: [N] seconds. A pair
    needs one camera, one group, an old track not seen since the new one began and not longer ago than
    ``remember_s``, a cosine of at least ``return_cosine``, and no rival within ``return_margin``.
    """
    cosine = fresh_look @ old_look.T
    possible = (
        (fresh[SLOT][:, None] == old[SLOT])
        & (fresh[GROUP][:, None] == old[GROUP])
        & (old[SEEN_S] < fresh[BORN_S][:, None])
        & (now[:, None] - old[SEEN_S] <= config.remember_s)
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
    """Give the tracks ``heir`` of ``rows`` the id, birth, votes and label of the tracks ``source`` of ``old``, in place."""
    for row in (ID, BORN_S):
        rows[row, heir] = old[row, source]
    rows[HITS, heir] += old[HITS, source]
    rows[VOTES:, heir] += old[VOTES:, source]
    rows[LABEL, heir] = np.argmax(rows[VOTES:, heir], axis=0)

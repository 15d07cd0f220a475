"""What a call answers: the Tracks of every camera, cut from the rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from vedette.streamer.tracking.rows import (
    BORN_S,
    BOX,
    CONFIRMED,
    F64,
    I64,
    ID,
    LABEL,
    RATE,
    RETURNED_S,
    SCORE,
    SEEN_BOX,
    SEEN_S,
    spread,
)
from vedette.streamer.types import Tracks


def answer_of(
    rows: F64, view: I64 | None, detection: I64, now: list[float], aspect: list[float], *, known: bool
) -> list[Tracks]:
    """The Tracks of every camera. rows: [K,N] ordered by camera; view, detection: [N]; now, aspect: [cameras].

    known: there are appearances, by which an object can be recognised.
    """
    n = rows.shape[1]
    narrow = 1.0 / spread(aspect, view)
    # a sure detection is a better box than the filter's, a doubtful one is not
    box = rows[SEEN_BOX] - rows[BOX]
    box *= rows[SCORE] * (detection >= 0)
    box += rows[BOX]
    box[::2] *= narrow
    centre, half = box[:2], 0.5 * box[2:]
    xyxy, velocity = np.empty((n, 4), np.float32), np.empty((n, 2), np.float32)
    np.subtract(centre, half, out=xyxy[:, :2].T)
    np.add(centre, half, out=xyxy[:, 2:].T)
    np.multiply(rows[RATE.start], narrow, out=velocity[:, 0])
    velocity[:, 1] = rows[RATE.start + 1]
    since, age = np.subtract(spread(now, view), rows[SEEN_S : BORN_S + 1], out=np.empty((2, n), np.float32))
    t = Tracks(
        rows[ID].astype(np.int64),
        xyxy,
        velocity,
        rows[SCORE].astype(np.float32),
        rows[LABEL].astype(np.int32),
        age,
        since,
        rows[CONFIRMED] > 0,
        detection.astype(np.int32),
        None,
        rows[RETURNED_S].astype(np.float32) if known else None,
    )
    if view is None:
        return [t]
    edges = np.searchsorted(view, np.arange(len(now) + 1)).tolist()
    return [
        Tracks(
            t.id[a:b],
            t.xyxy[a:b],
            t.velocity_per_s[a:b],
            t.score[a:b],
            t.label[a:b],
            t.age_s[a:b],
            t.since_seen_s[a:b],
            t.confirmed[a:b],
            t.detection[a:b],
            None,
            None if t.returned_s is None else t.returned_s[a:b],
        )
        for a, b in pairwise(edges)
    ]

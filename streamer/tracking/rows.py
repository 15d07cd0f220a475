"""Where every fact about a track stands: one float64 matrix ``[VOTES + labels, N]`` for the tracks of a call.

A struct of arrays in one allocation: a fact is a contiguous row, a track is a column, and dropping or
adding tracks is a single copy. Float64 holds ids exactly up to 2**53. Lengths are in picture heights (x
is multiplied by the picture's aspect), times in seconds of the camera's own clock.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: the Kalman state: centre x, centre y, width, height, then their rates per second
BOX: Final = slice(0, 4)
RATE: Final = slice(4, 8)
#: the detection that was last matched, as it was
SEEN_BOX: Final = slice(8, 12)
#: the covariance, in squared box sizes: position-position, position-rate, rate-rate, each of the centre and of the size
P: Final = slice(12, 14)
CROSS: Final = slice(14, 16)
R: Final = slice(16, 18)
COVARIANCE: Final = slice(12, 18)
#: when it was last seen, and when first
SEEN_S: Final = 18
BORN_S: Final = 19
#: smoothed score of the matched detections
SCORE: Final = 20
HITS: Final = 21
CONFIRMED: Final = 22
#: how long it may be unseen
LIMIT_S: Final = 23
ID: Final = 24
LABEL: Final = 25
GROUP: Final = 26
#: score-weighted votes for LABEL that are not yet in its row of VOTES
OWN_VOTES: Final = 27
#: in the step in which it took an older id back: how long that had been out of sight, else 0
RETURNED_S: Final = 28
#: score-weighted votes, one row a label
VOTES: Final = 29


def empty_rows(labels: int) -> F64:
    """No tracks: the matrix with zero columns."""
    return np.zeros((VOTES + labels, 0))


def spread(values: list[float], view: I64 | None) -> F64 | float:
    """A camera's value for each of its tracks; the bare value when there is one camera (``view`` None)."""
    return values[0] if view is None else np.array(values).take(view)

"""Where every fact about a track stands: one float64 matrix ``[VOTES + labels, N]`` for all tracks of all cameras.

A struct of arrays in one allocation: a fact is a contiguous row, a track is a column, and dropping or
adding tracks is a single copy. Float64 holds ids and slots exactly up to 2**53. Lengths are in picture
heights (x is multiplied by the picture's aspect), times in seconds of the camera's own clock.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

#: the Kalman state: centre x, centre y, width, height, then their rates per second
BOX: Final = slice(0, 4)
RATE: Final = slice(4, 8)
#: its covariance: four independent 2x2 blocks (position-position, position-rate, rate-rate)
P_BOX: Final = slice(8, 12)
P_CROSS: Final = slice(12, 16)
P_RATE: Final = slice(16, 20)
#: the detection that was last matched, as it was; when; and when the first was
SEEN_BOX: Final = slice(30, 34)
SEEN_S: Final = 20
BORN_S: Final = 21
#: smoothed score of the matched detections
SCORE: Final = 22
HITS: Final = 23
CONFIRMED: Final = 24
ID: Final = 25
SLOT: Final = 26
LABEL: Final = 27
GROUP: Final = 28
#: row of the current frame's Detections, -1 when coasting
DETECTION: Final = 29
#: score-weighted votes, one row a label
VOTES: Final = 34


def empty_rows(labels: int) -> F64:
    """No tracks: the matrix with zero columns."""
    return np.zeros((VOTES + labels, 0))

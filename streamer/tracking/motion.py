"""How boxes move: four independent constant-velocity Kalman filters a track, in closed form, for all tracks at once.

Centre x, centre y, width and height do not share noise in SORT, ByteTrack or OC-SORT, so the 8x8 filter
falls apart into four 2x2 ones whose products are written out: a dozen array operations whatever the
number of tracks. Noise is proportional to the box (Wojke et al., "Simple online and realtime tracking with
a deep association metric", 2017, code; BoT-SORT: horizontal noise by width), so in units of the box x and y
have one covariance, width and height another, and neither knows how large the box is. Noise is
continuous in time (Bar-Shalom, "Estimation with Applications to Tracking and Navigation", 6.2): the outcome
depends on how many seconds passed, not on how many frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vedette.streamer.tracking.config import TrackerConfig
from vedette.streamer.tracking.rows import BOX, COVARIANCE, CROSS, F64, RATE, SEEN_BOX, P, R


class Motion:
    """The filter's constants, squared once."""

    def __init__(self, config: TrackerConfig) -> None:
        c = config
        self._measure = np.array([c.measure_std, c.measure_size_std])[:, None] ** 2
        drift = np.array([c.drift_std, c.size_drift_std])[:, None] ** 2
        accel = np.array([c.accel_std, c.size_accel_std])[:, None] ** 2
        none = np.zeros_like(drift)
        # what dt, dt squared and dt cubed add to (position-position, position-rate, rate-rate)
        self._noise = [np.stack(q) for q in ((drift, none, accel), (none, accel / 2, none), (accel / 3, none, none))]
        self._birth = c.birth_rate_std**2

    def predict(self, rows: F64, dt: F64 | float) -> None:
        """Move ``rows`` [K,N] forward by ``dt`` seconds (one for all, or [N]) in place."""
        box, p, c, r = rows[BOX], rows[P], rows[CROSS], rows[R]
        box += rows[RATE] * dt
        np.maximum(box[2:], 1e-6, out=box[2:])
        step = r * dt
        grown = c + c
        grown += step
        grown *= dt
        p += grown
        c += step
        first, second, third = self._noise
        covariance = rows[COVARIANCE].reshape(3, 2, -1)
        noise = third * dt
        noise += second
        noise *= dt
        noise += first
        noise *= dt
        covariance += noise

    def correct(self, rows: F64, box: F64, seen: NDArray[np.bool_]) -> None:
        """Take the detections ``box`` [4,N] into the predicted ``rows`` [K,N] where ``seen`` [N], in place."""
        p, c = rows[P], rows[CROSS]
        gain = rows[12:16].reshape(2, 2, -1) / (p + self._measure)
        gain *= seen
        miss = (box - rows[BOX]).reshape(2, 2, -1)
        state = rows[0:8].reshape(2, 2, 2, -1)
        state += gain[:, :, None] * miss
        k0, k1 = gain
        rows[R] -= k1 * c
        np.subtract(1.0, k0, out=k0)
        c *= k0
        p *= k0
        np.copyto(rows[SEEN_BOX], box, where=seen)

    def begin(self, rows: F64, box: F64) -> None:
        """Write the state of tracks that were just born from ``box`` [4,N] into ``rows``."""
        rows[BOX] = box
        rows[SEEN_BOX] = box
        rows[P] = self._measure
        rows[R] = self._birth

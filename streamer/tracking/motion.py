"""How boxes move: four independent constant-velocity Kalman filters a track, in closed form, for all tracks at once.

Centre x, centre y, width and height do not share noise in SORT, ByteTrack or OC-SORT, so the 8x8 filter
falls apart into four 2x2 ones whose products are written out: a dozen array operations whatever the
number of tracks. Noise is proportional to the box (Wojke et al., "Simple online and realtime tracking with
a deep association metric", 2017, code; BoT-SORT: horizontal noise by width) and continuous in time
(Bar-Shalom, "Estimation with Applications to Tracking and Navigation", 6.2): the outcome depends on how many
seconds passed, not on how many frames.
"""

from __future__ import annotations

import numpy as np

from vedette.streamer.tracking.config import TrackerConfig
from vedette.streamer.tracking.rows import BOX, F64, P_BOX, P_CROSS, P_RATE, RATE, SEEN_BOX


class Motion:
    """The filter's constants, squared once."""

    def __init__(self, config: TrackerConfig) -> None:
        c = config
        self._measure = np.array([c.measure_std] * 2 + [c.measure_size_std] * 2)[:, None] ** 2
        self._drift = np.array([c.drift_std] * 2 + [c.size_drift_std] * 2)[:, None] ** 2
        self._accel = np.array([c.accel_std] * 2 + [c.size_accel_std] * 2)[:, None] ** 2
        self._birth = c.birth_rate_std**2
        self._coast_s = c.coast_s

    def predict(self, rows: F64, dt: F64, unseen_s: F64) -> None:
        """Move ``rows`` [K,N] forward by ``dt`` [N] seconds in place.

        Rates of tracks that were unseen for ``unseen_s`` > 0 before this step fade with the time constant ``coast_s``.
        """
        box, rate, p, c, r = rows[BOX], rows[RATE], rows[P_BOX], rows[P_CROSS], rows[P_RATE]
        coasting = unseen_s > 1e-6
        if coasting.any():
            rate *= np.where(coasting, np.exp(-dt / self._coast_s), 1.0)
        scale = dt * square_of(box)
        box += rate * dt
        np.maximum(box[2:], 1e-6, out=box[2:])
        noise = self._accel * scale
        p += dt * (2.0 * c + dt * r) + (self._drift * scale + noise * (dt * dt / 3.0))
        c += dt * (r + noise * 0.5)
        r += noise

    def correct(self, rows: F64, box: F64) -> None:
        """Take the matched detections ``box`` [4,N] into the predicted ``rows`` [K,N], in place."""
        p, c = rows[P_BOX], rows[P_CROSS]
        total = p + self._measure * square_of(box)
        k0, k1 = p / total, c / total
        miss = box - rows[BOX]
        rows[BOX] += k0 * miss
        rows[RATE] += k1 * miss
        rows[P_RATE] -= k1 * c
        k0 = 1.0 - k0
        c *= k0
        p *= k0
        np.maximum(rows[2:4], 1e-6, out=rows[2:4])
        rows[SEEN_BOX] = box

    def begin(self, rows: F64, box: F64) -> None:
        """Write the state of tracks that were just born from ``box`` [4,N] into ``rows``."""
        square = square_of(box)
        rows[BOX] = box
        rows[SEEN_BOX] = box
        rows[P_BOX] = self._measure * square
        rows[P_RATE] = self._birth * square


def square_of(box: F64) -> F64:
    """The squared lengths [4,N] that noise is proportional to: height for y and height, width * height for x and width."""
    out = np.empty_like(box)
    np.multiply(box[3], box[3], out=out[1])
    np.multiply(box[2], box[3], out=out[0])
    out[2:] = out[:2]
    return out

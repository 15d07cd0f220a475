"""Does it grow? What a series of samples says about its slope, and how sure that is.

Only the last half of a run is judged: caches fill and heaps find their level before. The slope is the least-squares one
over block means; its 95 % interval is the wider of two, one that takes the blocks as independent, one that takes their
differences as such, as of a wandering level: memory does both. A verdict needs the whole interval on one side of the
limit, else there is none: a run too short or too rough says nothing rather than something wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

#: What is looked at only to be forgotten: share of the run.
WARM_UP = 0.5
#: Blocks the rest is divided into, and the least time it must span, seconds.
BLOCKS, LEAST_S = 12, 600.0
#: MB an hour that one process, and all together, may not be shown to exceed.
MOST_EACH, MOST_ALL = 2.0, 6.0


@dataclass(frozen=True, slots=True)
class Slope:
    """per_hour: the slope; low, high: its 95 % interval. span_s: what was judged. mean: its level."""

    per_hour: float
    low: float
    high: float
    mean: float
    span_s: float

    def verdict(self, most: float) -> str:
        """``grows``, ``level``, or ``not judged``, by a limit in units an hour."""
        if self.span_s < LEAST_S:
            return "not judged"
        if self.low > most:
            return "grows"
        return "level" if self.high <= most else "not judged"


def slope(times_s: Sequence[float], values: Sequence[float]) -> Slope | None:
    """The slope after the warm-up; None when there are fewer than four samples a block."""
    times, level = np.asarray(times_s, float), np.asarray(values, float)
    if not len(times):
        return None
    kept = times >= times[0] + WARM_UP * (times[-1] - times[0])
    hours, level = times[kept] / 3600, level[kept]
    if len(hours) < 4 * BLOCKS:
        return None
    x = np.array([block.mean() for block in np.array_split(hours, BLOCKS)])
    y = np.array([block.mean() for block in np.array_split(level, BLOCKS)])
    fit = stats.linregress(x, y)
    still = float(stats.t.ppf(0.975, BLOCKS - 2) * fit.stderr)
    steps = np.diff(y) / np.diff(x)
    wandering = float(stats.t.ppf(0.975, BLOCKS - 2) * steps.std(ddof=1) / np.sqrt(BLOCKS - 1))
    half, middle = max(still, wandering), float(fit.slope)
    low, high, span_s = middle - half, middle + half, float(hours[-1] - hours[0]) * 3600
    return Slope(*(round(number, 3) for number in (middle, low, high, float(level.mean()), span_s)))


def told(found: Slope | None, most: float) -> dict[str, Any]:
    """For the report: the slope, the limit and the verdict."""
    if found is None:
        return {"limit": most, "verdict": "not judged"}
    return asdict(found) | {"limit": most, "verdict": found.verdict(most)}

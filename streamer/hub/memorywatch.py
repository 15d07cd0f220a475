"""Whether this process suddenly holds much more memory than when it was calm.

ZeroMQ keeps a message of many parts until its last part has come, and bounds neither their number nor their sum: a
peer that never ends its message fills the memory (measured: 500 MB in 4 s on loopback). High-water marks do not count
it, so the process looks at itself.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

#: More than this above the calm level is a flood; a hub with 100 subscribers that do not read takes about 250 MB.
FLOOD_BYTES = 384 * 1024 * 1024
#: After an alarm nothing is judged for so long: what was dropped takes a moment to be given back.
SETTLE_S = 3.0
#: The calm level follows slow growth (a cache, more cameras) by this share of the difference a look.
DRIFT = 0.01


def resident_bytes() -> int:
    """Memory of this process that is really there."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def give_back() -> None:
    """Have the C library return what it keeps for later; without glibc nothing happens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class MemoryWatch:
    """Look once a second or so. flood_bytes: raising it forgives bigger bursts and lets an attacker take more."""

    def __init__(self, *, flood_bytes: int = FLOOD_BYTES, measure: Callable[[], int] = resident_bytes) -> None:
        self.flood_bytes, self._measure = flood_bytes, measure
        self.calm_bytes: float | None = None
        self._settled_s = float("-inf")
        self._must_settle = False

    def flooded(self, now_s: float) -> bool:
        """True once when the memory jumped above the calm level; then a new calm level is found."""
        if now_s < self._settled_s:
            return False
        if self._must_settle:
            give_back()
        now_bytes = self._measure()
        if self.calm_bytes is None or self._must_settle:
            self.calm_bytes, self._must_settle = now_bytes, False
            return False
        if now_bytes > self.calm_bytes + self.flood_bytes:
            self._settled_s, self._must_settle = now_s + SETTLE_S, True
            return True
        self.calm_bytes += (now_bytes - self.calm_bytes) * DRIFT
        return False

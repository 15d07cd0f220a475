"""When to open a source again: pure policy with time as an argument, and the cheap probe between opens.

Unreachable sources are probed once a second by a bare TCP connect, and opened the moment they answer again. What
answers but fails is retried after a jittered backoff: at most 2 s, or up to 30 s when it refused our credentials or
its data is bad (trying faster would lock accounts and fill disks with logs).
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable

Address = tuple[str, int]

FIRST_S = 0.2
UNREACHABLE_CAP_S = 2.0
REFUSED_FIRST_S = 2.0
REFUSED_CAP_S = 30.0
#: Pictures must have come for this long before a failure counts as the first one again.
HEALTHY_S = 5.0
PROBE_EVERY_S = 1.0
PROBE_TIMEOUT_S = 0.8


class Backoff:
    """How long to wait before the next try: doubles with each failure, 50..100 % of it by chance, capped."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()
        self._failures = 0
        self._refusals = 0

    def next_s(self, *, refused: bool) -> float:
        """The pause after one more failure."""
        if refused:
            whole = min(REFUSED_CAP_S, REFUSED_FIRST_S * 2.0**self._refusals)
            self._refusals = min(self._refusals + 1, 16)
        else:
            whole = min(UNREACHABLE_CAP_S, FIRST_S * 2.0**self._failures)
            self._failures = min(self._failures + 1, 16)
            self._refusals = 0
        return whole * self._rng.uniform(0.5, 1.0)

    def healthy(self, streaming_s: float) -> None:
        """Pictures have come for this long without a break; enough of it forgets all failures."""
        if streaming_s >= HEALTHY_S:
            self._failures = self._refusals = 0


class Cadence:
    """Learns how often a camera delivers, and from that how long silence may last.

    30 pictures a second: 2 s of silence are too long. One a second: 30 s are.
    """

    #: silence is at least this many usual intervals, and this many times the longest recent one
    INTERVALS = 30.0
    LONGEST = 3.0
    FLOOR_S = 2.0
    CAP_S = 120.0
    #: intervals before the estimate counts
    ENOUGH = 5

    def __init__(self, interval_s: float | None = None) -> None:
        self.interval_s = interval_s
        self._recent: list[float] = []
        self._last: tuple[float, float] | None = None

    def restart(self) -> None:
        """A connection begins: the gap before its first picture says nothing."""
        self._last = None

    def saw(self, mono_s: float, source_s: float) -> None:
        """A picture arrived at ``mono_s`` with the camera's own timestamp ``source_s``."""
        if self._last is not None:
            # Pictures that waited in a buffer arrive at once; their own timestamps tell the real distance.
            arrived, stamped = mono_s - self._last[0], source_s - self._last[1]
            self._recent.append(max(arrived, stamped if stamped < self.CAP_S else 0.0, 1e-3))
            del self._recent[:-32]
            if len(self._recent) >= self.ENOUGH:
                self.interval_s = sum(self._recent) / len(self._recent)
        self._last = (mono_s, source_s)

    def silence_s(self, unknown_s: float) -> float:
        """Silence longer than this means that the source is dead; ``unknown_s`` while nothing is learned yet."""
        if self.interval_s is None:
            return unknown_s
        longest = max(self._recent, default=0.0)
        return min(self.CAP_S, max(self.FLOOR_S, self.INTERVALS * self.interval_s, self.LONGEST * longest))


def reachable(address: Address, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Whether somebody accepts a TCP connection there."""
    try:
        socket.create_connection(address, timeout_s).close()
    except (OSError, UnicodeError):
        return False
    return True


def wait_to_open(
    address: Address | None,
    delay_s: float,
    *,
    pause: Callable[[float], bool],
    tick: Callable[[], None],
    probe: Callable[[Address], bool] = reachable,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Return True when it is time to open the source (again), False when ``pause`` said stop.

    pause: waits that many seconds, true when everything should stop. tick: called at least every quarter of a second
    (and before each probe), so that waiting shows as progress. A source that was seen down is opened as soon as it
    is up, and not before; one that was up all the time after ``delay_s``.
    """
    end = clock() + delay_s
    next_probe = clock()
    was_down = is_down = False
    while True:
        tick()
        if address is not None and clock() >= next_probe:
            next_probe = clock() + PROBE_EVERY_S
            is_down = not probe(address)
            if was_down and not is_down:
                return True
            was_down = was_down or is_down
        now = clock()
        if not is_down and now >= end:
            return True
        left = next_probe - now if is_down else end - now
        if pause(min(0.25, max(0.0, left))):
            return False

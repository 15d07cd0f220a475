"""Which pictures to take, when to release them, and what time they are from. Time is an argument."""

from __future__ import annotations

#: A timestamp that jumps farther than this is a mistake of the source, seconds.
JUMP_S = 10.0


class SourceClock:
    """Seconds since the epoch began, on the source's own clock, always increasing.

    Timestamps that are missing, repeated, backwards or jump by more than 10 s are replaced by the time that passed here.
    """

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None  # stamp, arrival
        self._now = 0.0

    def at(self, stamp_s: float, mono_s: float) -> float:
        """The time of a picture stamped ``stamp_s`` that arrived at ``mono_s``."""
        if self._last is not None:
            step = stamp_s - self._last[0]
            if not 0 < step <= JUMP_S:
                step = min(JUMP_S, max(1e-4, mono_s - self._last[1]))
            self._now += step
        self._last = (stamp_s, mono_s)
        return self._now


class Sampler:
    """Takes at most ``fps`` pictures a second of source time, evenly, and all when the source delivers no more."""

    def __init__(self, fps: float) -> None:
        self._period_s = 1.0 / fps
        self._next_s: float | None = None
        self._last_s: float | None = None

    def takes(self, source_s: float) -> bool:
        """Whether the picture of this time is taken."""
        # Half a source interval early is nearer to the beat than half an interval late.
        early = 0.5 * min(self._period_s, source_s - self._last_s) if self._last_s is not None else 0.0
        self._last_s = source_s
        if self._next_s is None:
            self._next_s = source_s
        if source_s < self._next_s - early - 1e-9:
            return False
        # Keep the beat; after a gap begin a new one instead of catching up.
        self._next_s = max(self._next_s + self._period_s, source_s + 0.5 * self._period_s)
        return True


class RealTime:
    """Releases a file's pictures at the pace they were taken; a reader that fell behind by a second starts anew."""

    def __init__(self) -> None:
        self._start_s: float | None = None

    def wait_s(self, source_s: float, mono_s: float) -> float:
        """How long to hold the picture of ``source_s`` back."""
        if self._start_s is None or mono_s - self._start_s - source_s > 1.0:
            self._start_s = mono_s - source_s
        return max(0.0, self._start_s + source_s - mono_s)

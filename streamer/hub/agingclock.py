"""What time it is for retention: a wall clock that ran far ahead of the time that passed must not cost the evidence.

The clock told here is never ahead of the wall clock, and never gains more than `PACE` on the time this machine has
lived through, whatever the wall clock says: not by a jump, not by a restart after it. So a clock ten years ahead for a
day costs the alerts of `PACE` days at most, and one that is right is followed again, after a long downtime too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger("vedette.retention")

#: Seconds believed for one that passed; raise: what a machine missed while it was off ages sooner, and a wrong clock
#: costs more. 4 keeps up on a machine that runs six hours a day.
PACE = 4.0
#: Behind the wall clock by more, it is said once.
TOLD_S = 86_400.0


class AgingClock:
    """believed_s: the newest time an earlier life believed in (UNIX seconds). wall_s, mono_s: clocks, arguments so that
    tests can move them."""

    def __init__(
        self,
        believed_s: float,
        *,
        wall_s: Callable[[], float] = time.time,
        mono_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.believed_s = believed_s
        self._wall_s, self._mono_s = wall_s, mono_s
        self._looked_s = mono_s()
        self._told = False

    def now_s(self) -> float:
        """UNIX seconds that things may be judged old by."""
        wall_s, mono_s = self._wall_s(), self._mono_s()
        most_s = self.believed_s + PACE * (mono_s - self._looked_s)
        self._looked_s = mono_s
        # never back: a machine that wakes up in 1970 has not lost what it knew
        self.believed_s = max(self.believed_s, min(wall_s, most_s))
        ahead_s = wall_s - self.believed_s
        if ahead_s > TOLD_S and not self._told:
            text = "the wall clock is %.1f days ahead of the time known to have passed; alerts age %g times as fast until it agrees"
            log.error(text, ahead_s / 86_400, PACE)
        self._told = ahead_s > TOLD_S
        return min(wall_s, self.believed_s)

"""When to start a dead child again: twice at once, then ever more slowly, and from the beginning after health.

Pure: time and chance are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

#: Restarts that do not wait: most deaths are accidents, and a camera should be back before anyone notices.
FREE_RESTARTS = 2


@dataclass(frozen=True, slots=True)
class Policy:
    """How the waiting grows.

    first_s: the first wait after the free restarts. cap_s: the longest wait; raising it spares a hopeless machine and
    delays the return of what could be healed. healthy_s: a life this long is health, and forgets earlier deaths.
    """

    first_s: float = 0.5
    factor: float = 2.0
    cap_s: float = 30.0
    healthy_s: float = 60.0


class Backoff:
    """One child's memory of its deaths."""

    def __init__(self, policy: Policy, random: Random) -> None:
        self._policy = policy
        self._random = random
        self._deaths = 0

    def died(self, lived_s: float) -> float:
        """Seconds to wait before the next life, given how long the last one lasted.

        Waits are spread over 75..125 % of their length, so that many children that died together do not return together.
        """
        if lived_s >= self._policy.healthy_s:
            self._deaths = 0
        self._deaths += 1
        waits = self._deaths - FREE_RESTARTS
        if waits <= 0:
            return 0.0
        # the exponent is bounded: 2.0**1100 would raise after a year of deaths
        wait_s = min(self._policy.cap_s, self._policy.first_s * self._policy.factor ** min(waits - 1, 64))
        return wait_s * self._random.uniform(0.75, 1.25)

"""Silence after an incident: the same rule does not start again for the same object too soon."""

from __future__ import annotations

from collections.abc import Hashable


class Cooldown:
    """Counts from the end of an incident (from its start while it is open). seconds: 0 never silences."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until: dict[Hashable, float] = {}

    def ready(self, key: Hashable, time_s: float) -> bool:
        """Whether an incident of ``key`` may start now."""
        return time_s >= self._until.get(key, time_s)

    def touch(self, key: Hashable, time_s: float) -> None:
        """An incident of ``key`` started or ended now."""
        if self.seconds <= 0:
            return
        self._until = {k: until for k, until in self._until.items() if until > time_s}  # bounded by what is silenced
        self._until[key] = time_s + self.seconds

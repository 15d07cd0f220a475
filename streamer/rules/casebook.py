"""Cases of one rule on one camera: from the first sight of what it looks for, through an incident, to its end.

Rules about what somebody does (`fall`, `run`), about a thing (`abandoned`) and about the picture (`fight`) differ in what
they look for; how a case becomes an incident, cools down, ends and is forgotten is the same and lives here. A case is
known by what it is about: a track, a thing, None for the whole picture.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from vedette.streamer.rules.cooldown import Cooldown
from vedette.streamer.rules.view import Box, Signal, View, rounded
from vedette.streamer.types import Phase


@dataclass(slots=True)
class Case:
    """since_s: since when it is so, None while it is not. last_s: when it was so last. score, peak: of the last sight, and the best.

    serial: number of the open incident, 0 while there is none. tracks, label, box: whom and where the alert names.
    """

    since_s: float | None = None
    last_s: float = 0.0
    score: float = 0.0
    peak: float = 0.0
    serial: int = 0
    tracks: tuple[int, ...] = ()
    label: str | None = None
    box: Box | None = None

    def hold(self, time_s: float, score: float, *, since_s: float | None = None) -> None:
        """It is so now; a case that begins has been so since ``since_s`` (now when absent)."""
        if self.since_s is None:
            self.since_s, self.peak = time_s if since_s is None else since_s, 0.0
        self.last_s, self.score, self.peak = time_s, score, max(self.peak, score)


C = TypeVar("C", bound=Case)


class Casebook(Generic[C]):
    """new: makes an empty case. trace: the explanation of a case at a time. cooldown_s, zone: of the rule."""

    def __init__(
        self, new: type[C], trace: Callable[[C, float], Mapping[str, Any]], cooldown_s: float, zone: str | None = None
    ) -> None:
        self._new, self._trace, self._zone = new, trace, zone
        self._cooldown = Cooldown(cooldown_s)
        self._cases: dict[Hashable, C] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._cases)

    def __contains__(self, key: object) -> bool:
        return key in self._cases

    def case(self, key: Hashable) -> C:
        """The case of a key, a new one when there is none."""
        found = self._cases.get(key)
        if found is None:
            found = self._cases[key] = self._new()
        return found

    def items(self) -> list[tuple[Hashable, C]]:
        """Every case, oldest first; cases may be forgotten meanwhile."""
        return list(self._cases.items())

    def forget(self, key: Hashable) -> None:
        """Nothing is known of it any more."""
        del self._cases[key]

    def ready(self, key: Hashable, view: View) -> bool:
        """Whether an incident may start now: the rule is awake and the key does not cool down."""
        return view.awake and self._cooldown.ready(key, view.time_s)

    def start(self, key: Hashable, view: View) -> list[Signal]:
        """The ``start`` of a case that holds, unless it has started, the rule sleeps or the key cools down."""
        case = self._cases[key]
        if case.serial or not self.ready(key, view):
            return []
        self._cooldown.touch(key, view.time_s)
        self._serial += 1
        case.serial = self._serial
        return [self.tell("start", key, view.time_s)]

    def end(self, key: Hashable, reason: str) -> list[Signal]:
        """The ``end`` of a case that has started; it is over from when it was so last."""
        case = self._cases[key]
        signals = []
        if case.serial:
            self._cooldown.touch(key, case.last_s)
            signals = [self.tell("end", key, case.last_s, reason)]
        case.serial, case.since_s = 0, None
        return signals

    def drop(self, reason: str) -> list[Signal]:
        """End what is open and forget everything; cool-downs stay."""
        signals = [signal for key, case in self.items() if case.serial for signal in self.end(key, reason)]
        self._cases = {}
        return signals

    def tell(self, phase: Phase, key: Hashable, time_s: float, reason: str | None = None) -> Signal:
        """One step in the life of a case's incident."""
        case = self._cases[key]
        assert case.since_s is not None
        trace = dict(self._trace(case, time_s))
        if phase == "end":
            trace |= {"duration_s": rounded(max(0.0, time_s - case.since_s)), "reason": reason}
        score = case.peak if phase == "end" else case.score
        return Signal(phase, case.serial, case.tracks, case.label, score, case.box, case.since_s, self._zone, trace)

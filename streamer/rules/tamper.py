"""The camera itself: covered, blurred, moved, too dark, too bright.

Judges what the capture process measured (`vedette.streamer.picturestats`) against the usual view it has learned:

* ``dark``, ``bright``: the mean grey level is beyond its limit, and the contrast is less than half of the usual.
* ``covered``: few of the usual edges are in place, and contrast or fine detail is lost too.
* ``moved``: few of the usual edges are in place in a picture that is as rich in detail as ever.
* ``blurred``: the edges are where they were, fine detail is lost, and more of it than the contrast explains.

It starts when one of them has held for ``seconds`` (dips below `DIP_S` are forgiven), is updated when it turns into
another, and ends when the view has been as usual for `END_S`, by limits that are `EASE` easier; or when the capture
process has taken the new view for the usual one (ten minutes of a sharp other view). Nothing is judged while the view is
being learned (5 s), nor where it has too few edges to be told from another (then only ``dark`` and ``bright`` are).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vedette.streamer.picturestats import PictureStats
from vedette.streamer.rules.base import Check, RuleConfig, explained
from vedette.streamer.rules.cooldown import Cooldown
from vedette.streamer.rules.view import Places, Signal, View, rounded
from vedette.streamer.types import Phase

Fault = Literal["dark", "bright", "covered", "moved", "blurred"]

#: Contrast below this share of the usual one is lost.
CONTRAST_LOST = 0.5
#: A fault that is away for less than this does not start the clock anew, seconds.
DIP_S = 1.0
#: The view must be as usual for this long before the incident ends, seconds.
END_S = 2.0
#: A fault ends at a limit that is easier by this factor than the one it started at.
EASE = 1.3


class TamperConfig(RuleConfig):
    """of: which faults. seconds: for how long; raise: fewer alarms by passing lorries and headlights, later ones.

    edges: share of the usual edges at or below which the view is gone; raise: smaller covers and shifts are told, and so
    are large vehicles close by. sharpness: share of the usual sharpness and detail at or below which they are lost.
    dark, bright: limits of the mean grey level, 0..1.
    """

    not_for: ClassVar[str] = (
        "cameras that move by themselves (PTZ, vehicles, drones); a proof that nobody touched the camera: a slow turn, a "
        "printed picture of the scene or a fault within the first 5 s after a start is not told"
    )

    kind: Literal["tamper"] = "tamper"
    of: Annotated[tuple[Fault, ...], Field(min_length=1)] = ("dark", "bright", "covered", "moved", "blurred")
    seconds: Annotated[float, Field(ge=0, le=3600)] = 3.0
    edges: Annotated[float, Field(gt=0, lt=1)] = 0.25
    sharpness: Annotated[float, Field(gt=0, lt=1)] = 0.3
    dark: Annotated[float, Field(ge=0, le=1)] = 0.06
    bright: Annotated[float, Field(ge=0, le=1)] = 0.92

    def rule(self, places: Places) -> TamperRule:
        del places
        return TamperRule(self)


class TamperRule:
    """`TamperConfig` at work on one camera."""

    def __init__(self, config: TamperConfig) -> None:
        self._config = config
        self._cooldown = Cooldown(config.cooldown)
        self._serial = 0
        self._open: Fault | None = None
        self._usual: tuple[float | None, float | None] = None, None
        self._forget()

    def _forget(self) -> None:
        self._open = None
        self._since_s: float | None = None
        self._fault_s = 0.0
        self._turned: tuple[Fault, float] | None = None
        self._peak = 0.0
        self._last: tuple[Fault, list[Check]] | None = None

    def step(self, view: View) -> list[Signal]:
        if view.picture is None:
            return []
        found = self._judge(view.picture)
        if found is None:
            return self._as_usual(view.time_s)
        fault, checks = found
        if self._since_s is None:
            self._since_s, self._peak = view.time_s, 0.0
            self._usual = view.picture.usual_contrast, view.picture.usual_sharpness
        self._fault_s, self._last = view.time_s, found
        self._peak = max(self._peak, _score(checks))
        if self._open is not None:
            return self._turn(fault, view.time_s)
        due = view.time_s - self._since_s >= self._config.seconds
        if not (due and view.awake and self._cooldown.ready(None, view.time_s)):
            return []
        self._open = fault
        self._serial += 1
        self._cooldown.touch(None, view.time_s)
        return [self._signal("start", view.time_s)]

    def drop(self, time_s: float, reason: str) -> list[Signal]:
        signals = [self._signal("end", time_s, reason)] if self._open is not None else []
        self._forget()
        return signals

    def _judge(self, picture: PictureStats) -> tuple[Fault, list[Check]] | None:
        """The fault that this picture shows; easier limits, and the usual view of its start, while one is open."""
        usual_contrast, usual_sharpness = picture.usual_contrast, picture.usual_sharpness
        if self._since_s is not None:  # what is usual now may already be what the fault made of it
            usual_contrast, usual_sharpness = self._usual
        contrast = picture.contrast / usual_contrast if usual_contrast else None
        sharpness = picture.sharpness / usual_sharpness if usual_sharpness else None
        for fault in ("dark", "bright", "covered", "moved", "blurred"):
            if fault in self._config.of:
                detail = None if contrast is None or sharpness is None else sharpness * contrast**2
                checks = self._checks(fault, picture, contrast, sharpness, detail)
                if checks is not None:
                    return fault, checks
        return None

    def _checks(
        self,
        fault: Fault,
        picture: PictureStats,
        contrast: float | None,
        sharpness: float | None,
        detail: float | None,
    ) -> list[Check] | None:
        """The values that make the fault, None when it is not there."""
        config, ease = self._config, EASE if self._open is not None else 1.0
        flat = Check("contrast, of the usual", contrast, min(0.9, CONTRAST_LOST * ease), "share", at_least=False)
        soft = Check("sharpness, of the usual", sharpness, min(0.9, config.sharpness * ease), "share", at_least=False)
        poor = Check("fine detail, of the usual", detail, min(0.9, config.sharpness * ease), "share", at_least=False)
        gone = Check("usual edges in place", picture.edges, min(0.9, config.edges * ease), "share", at_least=False)
        if fault in ("dark", "bright"):
            level = (
                Check("mean grey level", picture.mean, config.dark * ease, "", at_least=False)
                if fault == "dark"
                else Check("mean grey level", picture.mean, 1 - (1 - config.bright) * ease, "")
            )
            return [level, flat] if level.met and flat.met is not False else None
        if fault == "blurred":
            return [soft, poor, replace(gone, at_least=True)] if soft.met and poor.met and gone.met is False else None
        lost = bool(flat.met or poor.met)
        if not gone.met or lost != (fault == "covered"):
            return None
        return [gone, flat if flat.met else poor] if lost else [gone]

    def _turn(self, fault: Fault, time_s: float) -> list[Signal]:
        """One fault has become another: told once it has held for a second."""
        if fault == self._open:
            self._turned = None
            return []
        if self._turned is None or self._turned[0] != fault:
            self._turned = fault, time_s
        if time_s - self._turned[1] < DIP_S:
            return []
        self._open, self._turned = fault, None
        return [self._signal("update", time_s)]

    def _as_usual(self, time_s: float) -> list[Signal]:
        away_s = time_s - self._fault_s
        if self._open is None:
            if away_s >= DIP_S:
                self._since_s = None
            return []
        if away_s < END_S:
            return []
        signals = [self._signal("end", time_s, "as usual")]
        self._cooldown.touch(None, time_s)
        self._forget()
        return signals

    def _signal(self, phase: Phase, time_s: float, reason: str | None = None) -> Signal:
        assert self._last is not None
        assert self._since_s is not None
        config, checks = self._config, list(self._last[1])
        held_s = (self._fault_s if phase == "end" else time_s) - self._since_s
        trace = explained(
            f"the camera is {self._open} for {config.seconds:g} s",
            [*checks, Check("for", held_s, config.seconds, "s")],
            fault=self._open,
        )
        if phase == "end":
            trace |= {"duration_s": rounded(held_s), "reason": reason}
        score = self._peak if phase == "end" else _score(checks)
        return Signal(phase, self._serial, (), None, score, None, self._since_s, None, trace)


def _score(checks: Sequence[Check]) -> float:
    """0.5 at the limit of the first check, 1 at the farthest value there is."""
    first = checks[0]
    assert first.value is not None
    room = 1 - first.threshold if first.at_least else first.threshold
    beyond = abs(first.value - first.threshold) / max(room, 1e-6)
    return min(1.0, 0.5 + 0.5 * beyond)

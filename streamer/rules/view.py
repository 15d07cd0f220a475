"""What a rule is given for every picture, and what it gives back. A leaf: no rule, no clock, no I/O.

A rule is a small state machine of one camera. `View` is one picture: the confirmed tracks of the rule's
classes at a moment of the camera's own clock. `Signal` is one step in the life of an incident; the
`vedette.streamer.infer.incidents` book turns it into an Event. Every incident has a start and an end.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vedette.streamer.geometry import Point
from vedette.streamer.picturestats import PictureStats
from vedette.streamer.types import F32, Phase, Tracks

#: A rule that begins to watch a running scene (after a restart, a reconnect or a reload) takes objects that
#: were born within this time for objects that had been there before.
REARM_S = 1.5

#: How far inside the picture an anchor at its border is taken to be, in picture sizes.
BORDER_IN = np.float32(1e-3)

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Places:
    """The zones and lines of a camera that a rule may name."""

    zones: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    lines: Mapping[str, Sequence[Point]] = field(default_factory=dict)


class Reasons(Protocol):
    """Why the evidence of one picture is what it is. Every answer costs milliseconds: ask only when something is told."""

    def past(self) -> Sequence[tuple[float, float]]:
        """What each past step adds to the logit of the scene's evidence: (seconds ago, share), newest last."""
        ...

    def past_of(self, number: int) -> Sequence[tuple[float, float]]:
        """What the logit of a track's evidence loses without each past step: (seconds before its newest, loss), newest last."""
        ...

    def places(self) -> F32 | None:
        """f32 [rows,columns]: what the logit of the scene's evidence loses if nothing moves in that part of this picture."""
        ...


@dataclass(frozen=True)
class View:
    """One picture as one rule sees it.

    tracks: confirmed tracks of the rule's classes, coasting ones (``detection`` -1) included. labels: names by
    ``Tracks.label``. time_s: the camera's clock, never goes back. start_s: when on that clock the rule began to
    watch. rearm: whether what was there then had been there before, unseen by this rule. awake: whether the
    schedule lets an incident start now. aspect: picture width / height. picture: what the capture process measured of it.
    evidence_names: columns of ``tracks.evidence``. scene: learned evidence of the whole picture by name, unknown ones absent.
    why: what the model can say about its evidence; None where it cannot.
    """

    tracks: Tracks
    labels: Sequence[str]
    time_s: float
    start_s: float = 0.0
    rearm: bool = False
    awake: bool = True
    aspect: float = 16 / 9
    picture: PictureStats | None = None
    evidence_names: Sequence[str] = ()
    scene: Mapping[str, float] = field(default_factory=dict)
    why: Reasons | None = None

    def evidence(self, name: str) -> F32:
        """f32 [N] probability of ``name`` by track, NaN where it is not known."""
        known = self.tracks.evidence
        if known is None or name not in self.evidence_names:
            return np.full(len(self.tracks), np.nan, np.float32)
        column: F32 = known[:, list(self.evidence_names).index(name)]
        return column

    @cached_property
    def anchor(self) -> F32:
        """f32 [N,2] where each object stands: the bottom centre of its box, kept just inside the picture.

        A box that the picture's border cuts off ends on or beyond it, and a zone drawn up to the border means it.
        """
        box = self.tracks.xyxy
        anchor: F32 = np.clip(np.stack([(box[:, 0] + box[:, 2]) / 2, box[:, 3]], axis=1), BORDER_IN, 1 - BORDER_IN)
        return anchor

    @cached_property
    def seen(self) -> NDArray[np.bool_]:
        """bool [N]: which tracks were matched to a detection of this very picture."""
        return self.tracks.detection >= 0

    def known_before(self, born_s: float) -> bool:
        """Whether an object born at that time counts as having been there before the rule began to watch."""
        return self.rearm and born_s <= self.start_s + REARM_S


@dataclass(frozen=True, slots=True)
class Signal:
    """One step of an incident. key: which one, unique among the rule's open incidents.

    tracks: ids within the camera. score: of the moment for ``start`` and ``update``, the peak for ``end``.
    since_s: when what the rule looks for began. explain: the condition and its values against their thresholds.
    """

    phase: Phase
    key: Hashable
    tracks: tuple[int, ...]
    label: str | None
    score: float
    box: Box | None
    since_s: float
    zone: str | None = None
    explain: Mapping[str, Any] = field(default_factory=dict)


class Rule(Protocol):
    """A rule at work on one camera."""

    def step(self, view: View) -> list[Signal]:
        """What this picture starts, changes and ends."""
        ...

    def drop(self, time_s: float, reason: str) -> list[Signal]:
        """End everything that is open (end of file, new epoch, reload) and forget all tracks."""
        ...


def box_of(tracks: Tracks, i: int) -> Box:
    """The normalised box of row ``i``, clipped to the picture and rounded so that it prints the same everywhere."""
    x1, y1, x2, y2 = (round(min(max(float(v), 0.0), 1.0), 4) for v in tracks.xyxy[i])
    return x1, y1, x2, y2


def rounded(value: float) -> float:
    """Three digits: seconds to the millisecond, scores and coordinates to what a person can use."""
    return round(float(value), 3)

"""What every rule has in the configuration: its keys, its schedule, its classes, and how it becomes a running rule."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from vedette.engines.api import CLASS_GROUPS, LABELS

if TYPE_CHECKING:
    from vedette.streamer.rules.view import Places, Rule

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SCHEDULE = re.compile(
    r"^(?:(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))? )?(?P<h1>\d\d):(?P<m1>\d\d)-(?P<h2>\d\d):(?P<m2>\d\d)$"
)

ClassName = Annotated[str, Field(description="a label of the detector or a group of labels such as vehicle")]


def check_classes(names: list[str]) -> list[str]:
    """The names unchanged when each is a label or a group; ValueError with the known ones otherwise."""
    known = (*LABELS, *CLASS_GROUPS)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown class, known are {', '.join(known)}")
    return names


def labels_of(names: list[str]) -> frozenset[str]:
    """Every label that the names mean, groups expanded."""
    return frozenset(label for name in names for label in CLASS_GROUPS.get(name, (name,)))


class Schedule(BaseModel):
    """When a rule is awake, local time: ``Mon-Fri 18:00-06:00`` (may pass midnight), days optional."""

    model_config = ConfigDict(frozen=True)
    days: frozenset[int]
    start_min: int
    end_min: int

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """The schedule that ``text`` means, or ValueError with an example."""
        found = _SCHEDULE.fullmatch(text.strip().lower())
        problem = 'needs a form like "Mon-Fri 18:00-06:00" or "22:00-05:30"'
        if not found:
            raise ValueError(problem)
        h1, m1, h2, m2 = (int(found[g]) for g in ("h1", "m1", "h2", "m2"))
        if h1 > 23 or h2 > 24 or m1 > 59 or m2 > 59 or (h2 == 24 and m2):
            raise ValueError(problem)
        days = frozenset(range(7))
        if found["first"]:
            first, last = found["first"], found["last"] or found["first"]
            if first not in _DAYS or last not in _DAYS:
                raise ValueError(problem)
            i, j = _DAYS.index(first), _DAYS.index(last)
            days = frozenset((i + k) % 7 for k in range((j - i) % 7 + 1))
        return cls(days=days, start_min=h1 * 60 + m1, end_min=h2 * 60 + m2)

    def awake(self, weekday: int, minute: int) -> bool:
        """Whether a local moment (Monday is 0, minute of the day) lies inside; the end is exclusive."""
        if self.start_min < self.end_min:
            return weekday in self.days and self.start_min <= minute < self.end_min
        # past midnight: the early part belongs to the day before
        late = weekday in self.days and minute >= self.start_min
        early = (weekday - 1) % 7 in self.days and minute < self.end_min
        return late or early


@dataclass(frozen=True, slots=True)
class Check:
    """One value against its threshold. what: in plain words. unit: ``s``, ``heights``, ``share``... "" for a count.

    at_least: the rule wants the value at or above the threshold; False: at or below. value None: not known.
    """

    what: str
    value: float | None
    threshold: float
    unit: str = ""
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the value is on the side that the rule looks for; None when there is no value."""
        if self.value is None:
            return None
        return self.value >= self.threshold if self.at_least else self.value <= self.threshold

    def to_json(self) -> dict[str, Any]:
        """``{"what", "value", "is", "threshold", "unit", "met"}``."""
        return {
            "what": self.what,
            "value": None if self.value is None else round(float(self.value), 3),
            "is": "at least" if self.at_least else "at most",
            "threshold": round(float(self.threshold), 3),
            "unit": self.unit,
            "met": self.met,
        }


def explained(condition: str, checks: Sequence[Check], **more: Any) -> dict[str, Any]:
    """The trace of a rule, the one shape of every ``explain``: what the rule looks for in plain words, and every value
    it judged against its threshold. more: keys of this rule alone.

    The book of incidents adds ``since`` (RFC 3339) and ``held_s``: since when, and for how long, the condition has held;
    an ``end`` also has ``reason``, ``duration_s`` and ``peak_score``.
    """
    return {"condition": condition, "checks": [check.to_json() for check in checks], **more}


class RuleConfig(BaseModel):
    """Keys that every rule takes. name: unique per camera, made from kind and place when absent.

    not_for: what an alert of this kind must not be used for, told by ``vedette doctor`` and README.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    not_for: ClassVar[str] = ""

    kind: str
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.:-]{1,64}$")] | None = None
    classes: Annotated[list[ClassName], Field(min_length=1)] | None = None
    schedule: str | None = None
    cooldown: Annotated[float, Field(ge=0, le=86400)] = 0.0
    severity: Literal["info", "warning", "critical"] = "warning"

    @field_validator("classes")
    @classmethod
    def _known_classes(cls, value: list[str] | None) -> list[str] | None:
        return None if value is None else check_classes(value)

    @field_validator("schedule")
    @classmethod
    def _readable_schedule(cls, value: str | None) -> str | None:
        if value is not None:
            Schedule.parse(value)
        return value

    def place(self) -> dict[Literal["zone", "line"], str]:
        """Names of the zone or line of the camera that this rule needs; none by default."""
        return {}

    def learned(self) -> tuple[str, ...]:
        """Names of the learned evidence that this rule reads; configuring such a rule switches the temporal engine on."""
        return ()

    def title(self) -> str:
        """The rule's name in alerts: ``name``, else kind and place."""
        return self.name or ":".join((self.kind, *self.place().values()))

    def rule(self, places: Places) -> Rule:
        """The running rule of one camera, with no memory yet. Every kind has its own."""
        raise NotImplementedError(f"rules: kind {self.kind!r} has no rule of its own")

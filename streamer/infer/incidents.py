"""The book of incidents of one camera: signals of rules become Events with an id, a rev and a reason.

An incident gets its id when it starts, from what makes it that incident (`vedette.streamer.types.incident_id`), so the
same input gives the same ids. Everything that follows carries the same id and the next rev, and the end closes
the page. Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from vedette.streamer.alert import rfc3339
from vedette.streamer.picturestats import PictureStats
from vedette.streamer.rules.base import RuleConfig
from vedette.streamer.rules.view import Signal
from vedette.streamer.types import Event, incident_id, public_track_id


@dataclass(frozen=True, slots=True)
class Moment:
    """Which picture of which camera, and when. Fields as in `vedette.streamer.types.Frame`; aspect: width / height."""

    camera: str
    epoch: int
    seq: int
    mono_ns: int
    source_s: float
    wall_s: float
    aspect: float = 16 / 9
    stats: PictureStats | None = None


#: Incidents of a camera that can be told of once more, open or not.
MOST_PAGES = 512


@dataclass(slots=True)
class _Open:
    id: str
    rev: int


class Incidents:
    """What is open on one camera, by rule and the rule's own key."""

    def __init__(self, site: str, camera: str, boot: str, producer: str = "infer") -> None:
        self._site, self._camera, self._boot, self._producer = site, camera, boot, producer
        self._open: dict[tuple[str, Hashable], _Open] = {}
        self._pages: dict[str, _Open] = {}  # also of what has ended lately, oldest first

    def __len__(self) -> int:
        """Incidents that have started and not ended."""
        return len(self._open)

    def again(self, event_id: str) -> int | None:
        """The rev of one more telling of an incident, also after its end; None when it is not remembered."""
        entry = self._pages.get(event_id)
        if entry is None:
            return None
        entry.rev += 1
        return entry.rev

    def event(self, rule: RuleConfig, signal: Signal, moment: Moment, time_s: float) -> Event:
        """The next event of an incident. time_s: the camera's clock at ``moment``.

        Raises KeyError on an update or end of what never started, ValueError on a second start: a rule's fault.
        """
        title = rule.title()
        page = (title, signal.key)
        tracks = tuple(public_track_id(self._camera, self._boot, number) for number in signal.tracks)
        if signal.phase == "start":
            if page in self._open:
                raise ValueError(f"incidents: {title} started {signal.key!r} twice")
            first = f"{moment.epoch}:{moment.seq}"
            entry = _Open(incident_id(self._site, self._camera, self._boot, title, first, tracks), 0)
            self._open[page] = entry
            self._pages[entry.id] = entry
            if len(self._pages) > MOST_PAGES:
                del self._pages[next(iter(self._pages))]
        else:
            entry = self._open[page]
            entry.rev += 1
        if signal.phase == "end":
            del self._open[page]
        score = round(float(signal.score), 4)
        held_s = max(0.0, time_s - signal.since_s)
        explain = {**signal.explain, "since": rfc3339(max(0.0, moment.wall_s - held_s)), "held_s": round(held_s, 3)}
        if signal.phase == "end":
            explain["peak_score"] = score
        return Event(
            id=entry.id,
            rev=entry.rev,
            producer=self._producer,
            boot=self._boot,
            camera=self._camera,
            rule=title,
            kind=rule.kind,
            phase=signal.phase,
            severity=rule.severity,
            mono_ns=moment.mono_ns,
            wall_s=moment.wall_s,
            track_ids=tracks,
            label=signal.label,
            score=score,
            box=signal.box,
            zone=signal.zone,
            explain=explain,
        )

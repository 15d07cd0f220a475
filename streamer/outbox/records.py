"""What goes into the alert store, and what comes out of a commit."""

from __future__ import annotations

from dataclasses import dataclass, field

from vedette.streamer.alert import NO_EVIDENCE, topic_of
from vedette.streamer.types import Event

Evidence = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Picture:
    """A snapshot or a clip that is already safely on disk. path: relative to the store."""

    path: str
    nbytes: int
    sha256: str
    clip: bool = False

    def evidence(self, before: Evidence | None = None) -> Evidence:
        """The alert's ``evidence``: this, and what an earlier telling of the incident showed."""
        if self.clip:
            return {**(before or NO_EVIDENCE), "clip": self.path, "clip_sha256": self.sha256}
        return {**(before or NO_EVIDENCE), "snapshot": self.path, "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class Draft:
    """An event that waits for its row."""

    event: Event
    picture: Picture | None = None
    timed: bool = True  # False: no picture of it was ever decoded, so no latency either


@dataclass(frozen=True, slots=True)
class Boot:
    """A producer said hello: what its earlier lives left open is closed."""

    producer: str
    boot: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A committed alert. body: its JSON, exactly as every reader gets it."""

    seq: int
    camera: str
    kind: str
    id: str
    rev: int
    body: bytes

    @property
    def topic(self) -> str:
        """Where it is published."""
        return topic_of(self.camera, self.kind)


@dataclass(slots=True)
class Outcome:
    """What a commit did. stored: new rows in order. duplicates: events that were there already."""

    stored: list[Stored] = field(default_factory=list)
    duplicates: int = 0
    interrupted: int = 0
    total_ms: list[float] = field(default_factory=list)

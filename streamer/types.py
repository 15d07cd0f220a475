"""The plain data that flows: Frame -> (Batch, Detections: ``engines.api``) -> Tracks -> Event -> Alert.

A leaf: it knows numpy and ``engines.api`` and nobody else. Units are in the names, coordinates are
normalised 0..1 of the full picture, differences come from ``mono_ns`` and wall time is for people.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import Letterbox
from vedette.streamer.picturestats import PictureStats

F32 = NDArray[np.float32]
Phase = Literal["start", "update", "end"]
Severity = Literal["info", "warning", "critical"]

#: Camera names: they become topics, file names and metric labels, so they are kept this plain.
CAMERA_NAME = re.compile(r"^[a-z0-9_-]{1,32}$")

#: Events the system raises about cameras themselves.
SYSTEM_KINDS = ("camera_offline", "camera_frozen", "camera_back")


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of one camera, already masked and letterboxed to the engine's input.

    epoch: connection counter, bumped at each reconnect; nothing temporal survives a change.
    seq: per epoch, from 0, counts pictures taken from the source whether or not they were delivered.
    mono_ns: monotonic clock of this host when the picture was decoded. source_s: the source's own
    timestamp in seconds since the epoch began (drives velocity, dwell and rotary position).
    wall_s: UTC seconds, for people. pixels: u8 [H,W,3] BGR. stats: what was measured of the picture, None when nothing was.
    """

    camera: str
    epoch: int
    seq: int
    mono_ns: int
    source_s: float
    wall_s: float
    pixels: NDArray[np.uint8]
    letterbox: Letterbox
    stats: PictureStats | None = None


@dataclass(frozen=True, slots=True)
class Tracks:
    """What one camera's tracker believes after a frame: parallel arrays of N objects.

    id: i64 [N], unique per tracker for ever. xyxy: f32 [N,4] normalised. velocity_per_s: f32 [N,2],
    centre, picture widths and heights a second. score: f32 [N]. label: i32 [N] index into the engine's
    labels (stable per track: majority over its life). age_s, since_seen_s: f32 [N] seconds since birth and
    since the last detection that was matched. confirmed: bool [N]; unconfirmed ids never leave the process.
    detection: i32 [N] row of the frame's Detections matched to it, -1 when coasting.
    evidence: f32 [N,C] class probabilities from the temporal engine, NaN when unknown, or None.
    returned_s: f32 [N], above 0 in the one picture in which an object was recognised and took its older id back:
    seconds it had been out of sight; 0 otherwise. None: the detector gives no appearance.
    """

    id: NDArray[np.int64]
    xyxy: F32
    velocity_per_s: F32
    score: F32
    label: NDArray[np.int32]
    age_s: F32
    since_seen_s: F32
    confirmed: NDArray[np.bool_]
    detection: NDArray[np.int32]
    evidence: F32 | None = None
    returned_s: F32 | None = None

    def __post_init__(self) -> None:
        n = len(self.id)
        if self.xyxy.shape != (n, 4) or self.velocity_per_s.shape != (n, 2):
            raise ValueError(
                f"Tracks: xyxy needs [{n},4] and velocity_per_s [{n},2], "
                f"got {list(self.xyxy.shape)} and {list(self.velocity_per_s.shape)}"
            )
        columns = (self.score, self.label, self.age_s, self.since_seen_s, self.confirmed, self.detection)
        if [len(column) for column in columns if column.ndim == 1] == [n] * len(columns):
            return
        for name in ("score", "label", "age_s", "since_seen_s", "confirmed", "detection"):
            if getattr(self, name).shape != (n,):
                raise ValueError(f"Tracks.{name}: needs [{n}], got {list(getattr(self, name).shape)}")

    def __len__(self) -> int:
        return len(self.id)

    def __getitem__(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> Tracks:
        """The same type with the rows that ``keep`` (mask or indices) selects."""
        return Tracks(
            self.id[keep],
            self.xyxy[keep],
            self.velocity_per_s[keep],
            self.score[keep],
            self.label[keep],
            self.age_s[keep],
            self.since_seen_s[keep],
            self.confirmed[keep],
            self.detection[keep],
            None if self.evidence is None else self.evidence[keep],
            None if self.returned_s is None else self.returned_s[keep],
        )

    @classmethod
    def empty(cls) -> Tracks:
        """No objects."""
        f, i = np.zeros(0, np.float32), np.zeros(0, np.int32)
        return cls(
            np.zeros(0, np.int64),
            np.zeros((0, 4), np.float32),
            np.zeros((0, 2), np.float32),
            f,
            i,
            f,
            f,
            np.zeros(0, np.bool_),
            i,
        )


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened: internal until the hub commits it as an alert.

    id: `incident_id` of the incident; start, updates and end share it and differ by rev (0, 1, 2...).
    producer, boot: which process life raised it ("infer", "supervisor"); the hub closes what a dead life left
    open. track_ids: public ids ``camera/boot/n``. box: normalised xyxy or None. wall_s: UTC of the picture.
    explain: the rule's trace, JSON-able. mono_ns: decode time of the picture it was seen in.
    latency_ms: capture (decode to the engine's input) and infer (engine, tracker and rules).
    """

    __pydantic_config__: ClassVar[Any] = {"allow_inf_nan": False}  # checked where it crosses a process boundary

    id: str
    rev: int
    producer: str
    boot: str
    camera: str
    rule: str
    kind: str
    phase: Phase
    severity: Severity
    mono_ns: int
    wall_s: float
    track_ids: tuple[str, ...] = ()
    label: str | None = None
    score: float | None = None
    box: tuple[float, float, float, float] | None = None
    zone: str | None = None
    explain: dict[str, Any] = field(default_factory=dict)
    latency_ms: dict[str, float | None] = field(default_factory=dict)


def incident_id(site: str, camera: str, boot: str, rule: str, first_frame: str, track_ids: tuple[str, ...]) -> str:
    """The id of an incident: 24 hex digits of SHA-256 over what makes it that incident.

    first_frame names the picture it began in (``epoch:seq``), so the same input gives the same id.
    """
    text = "\x1f".join((site, camera, boot, rule, first_frame, *track_ids))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def public_track_id(camera: str, boot: str, number: int) -> str:
    """``camera/boot/n``: restarted counters never collide because every life of infer has its own boot."""
    return f"{camera}/{boot}/{number}"

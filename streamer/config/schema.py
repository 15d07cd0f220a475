"""The configuration as frozen, checked models. Every key is here once; ``configs/`` is the manual.

Values are checked alone by their types and together by the validators below; unknown keys are errors.
Durations are seconds, coordinates normalised 0..1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from vedette.streamer.address import is_loopback_host
from vedette.streamer.geometry import line_problem, polygon_problem
from vedette.streamer.rules import KINDS as RULE_KINDS
from vedette.streamer.rules.base import RuleConfig, check_classes
from vedette.streamer.sinks import KINDS as SINK_KINDS
from vedette.streamer.sinks.base import SinkConfig
from vedette.streamer.types import CAMERA_NAME

if TYPE_CHECKING:
    AnyRule = RuleConfig
    AnySink = SinkConfig
else:
    from vedette.streamer.config.choices import one_of

    AnyRule = one_of(RULE_KINDS)
    AnySink = one_of(SINK_KINDS)

Point = tuple[float, float]
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,32}$")]
CameraName = Annotated[str, Field(pattern=CAMERA_NAME.pattern)]
Size = Annotated[str, Field(pattern=r"^[1-9]\d{1,3}x[1-9]\d{1,3}$")]

#: Ways to name a camera: anything else is refused, so that a URL can never run a program.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
SCHEMES = ("rtsp", "rtsps", "http", "https", "file", "gst")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _polygon(points: list[Point]) -> list[Point]:
    problem = polygon_problem(points)
    if problem:
        raise ValueError(problem)
    return points


def _line(points: list[Point]) -> list[Point]:
    problem = line_problem(points)
    if problem:
        raise ValueError(problem)
    return points


Polygon = Annotated[list[Point], AfterValidator(_polygon)]
Line = Annotated[list[Point], AfterValidator(_line)]


class EngineSection(_Section):
    """Which detector runs, where, and how precisely. size: engine input, width x height. temporal: the model of learned
    evidence, for every camera; None: the shipped one, where a rule asks for it. window: frames it attends to, None: its own.
    skip_still: how long the detector's answer stands at first while nothing moves, seconds (`vedette.streamer.infer.stillness`); 0: never.
    None: 1 in the daemon, 0 in ``vedette process``. rest: H.264 and HEVC cameras decode only keyframes while nothing moves
    (`vedette.streamer.sources.packets`); what is too small to change the size of a packet is then seen up to 2 s later."""

    detector: str = "vedette-nano"
    backend: Literal["auto", "onnxruntime", "tensorrt"] = "auto"
    precision: Literal["auto", "fp32", "fp16", "int8"] = "auto"
    size: Size = "416x256"
    temporal: Annotated[str, Field(min_length=1)] | None = None
    window: Annotated[int, Field(ge=1, le=1024)] | None = None
    threads: Annotated[int, Field(ge=1, le=64)] | None = None
    skip_still: Annotated[float, Field(ge=0, le=60)] | None = None
    rest: bool = False
    family: Literal["yolox", "nanodet", "detr", "detr-imagenet", "detr-softmax", "yolo-e2e"] | None = None
    labels: list[str] | None = None

    @property
    def input_hw(self) -> tuple[int, int]:
        """Height and width of the engine's input."""
        width, height = (int(side) for side in self.size.split("x"))
        return height, width


class ClipSection(_Section):
    """A film beside the snapshot, from ``before`` to ``after`` seconds around the start. fps, max_side: of the film; raise
    for smoother and larger ones: more disk, more CPU at an alert, and less far back in the same ``ring_mb``."""

    before: Annotated[float, Field(ge=0, le=60)] = 5.0
    after: Annotated[float, Field(ge=0, le=60)] = 5.0
    fps: Annotated[float, Field(ge=1, le=15)] = 5.0
    max_side: Annotated[int, Field(ge=64, le=1920)] = 960


class EvidenceSection(_Section):
    """What the capture process remembers for evidence. ring_mb: memory for past pictures."""

    enabled: bool = True
    ring_mb: Annotated[int, Field(ge=1, le=4096)] = 48
    jpeg_quality: Annotated[int, Field(ge=10, le=100)] = 85
    max_side: Annotated[int, Field(ge=64, le=8192)] = 1920
    clip: ClipSection | None = None


class CameraDefaults(_Section):
    """Every key a camera takes except its source. fps: pictures a second that are analysed, at most."""

    fps: Annotated[float, Field(gt=0, le=120)] = 10.0
    classes: Annotated[list[str], AfterValidator(check_classes), Field(min_length=1)] = ["person", "vehicle"]
    transport: Literal["tcp", "udp"] = "tcp"
    loop: bool = False
    pace: Literal["realtime", "max"] = "realtime"
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.35
    frozen_after: Annotated[float, Field(ge=1, le=3600)] = 10.0
    offline_after: Annotated[float, Field(ge=1, le=3600)] = 5.0
    privacy: list[Polygon] = []
    zones: dict[Name, Polygon] = {}
    lines: dict[Name, Line] = {}
    rules: list[AnyRule] = []
    evidence: EvidenceSection = EvidenceSection()

    @model_validator(mode="after")
    def _rules_have_their_places(self) -> CameraDefaults:
        problems: list[tuple[tuple[str | int, ...], str, object]] = []
        titles: dict[str, int] = {}
        for i, rule in enumerate(self.rules):
            for what, name in rule.place().items():
                known = self.zones if what == "zone" else self.lines
                if name not in known:
                    have = ", ".join(sorted(known)) or "none"
                    problems.append((("rules", i, what), f"no such {what} (this camera has: {have})", name))
            title = rule.title()
            if title in titles:
                problems.append((("rules", i), f"same name as rules[{titles[title]}]; give one a `name`", title))
            titles.setdefault(title, i)
        if problems:
            raise Problems(problems)
        return self


class Problems(ValueError):
    """Several faults found together: (path below this section, rule, value) each."""

    def __init__(self, found: list[tuple[tuple[str | int, ...], str, object]]) -> None:
        self.found = found
        super().__init__("; ".join(f"{rule}, got {value!r}" for _, rule, value in found))


class CameraSection(CameraDefaults):
    """One camera. source: rtsp(s)://, http(s)://, file:// or a bare path, /dev/videoN, gst: pipeline."""

    source: Annotated[str, Field(min_length=1, max_length=4096)]

    @field_validator("source")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if value.startswith("gst:"):
            return value
        scheme = found[0].rstrip(":") if (found := _SCHEME.match(value)) else ""
        if scheme and (scheme not in SCHEMES or "://" not in value):
            raise ValueError(f"needs one of {', '.join(s + '://' for s in SCHEMES[:-1])}, a path, /dev/videoN or gst:")
        if scheme.startswith(("rtsp", "http")) and not urlsplit(value).hostname:
            raise ValueError("needs a host after the scheme")
        return value

    @model_validator(mode="after")
    def _useless_settings(self) -> CameraSection:
        live = self.source.startswith(("rtsp://", "rtsps://", "http://", "https://", "/dev/video", "gst:"))
        set_here = self.model_fields_set
        problems: list[tuple[tuple[str | int, ...], str, object]] = []
        if live and "loop" in set_here and self.loop:
            problems.append((("loop",), "useless: only files can loop", self.loop))
        if live and "pace" in set_here and self.pace == "max":
            problems.append((("pace",), "useless: only files can run faster than real time", self.pace))
        if problems:
            raise Problems(problems)
        return self


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme == "ipc" and len(value) > len("ipc://"):
        return value
    if parts.scheme == "tcp" and parts.hostname and port is not None:
        return value
    raise ValueError("needs tcp://ADDRESS:PORT or ipc:///PATH")


Endpoint = Annotated[str, AfterValidator(_endpoint)]


def _listen(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError("needs ADDRESS:PORT")
    return value


class RetentionSection(_Section):
    """How long alerts and their pictures stay. max_gb: evidence pictures and clips, oldest go first."""

    days: Annotated[float, Field(gt=0, le=36500)] = 30.0
    max_gb: Annotated[float, Field(gt=0)] = 10.0


class CurveSection(_Section):
    """Who may subscribe over tcp. keys: the folder `vedette keys` keeps; only the keys in it come in."""

    keys: Annotated[str, Field(min_length=1)]


class AlertsSection(_Section):
    """Where alerts are published, replayed from, stored and sent."""

    publish: Endpoint = "tcp://127.0.0.1:5556"
    replay: Endpoint = "tcp://127.0.0.1:5557"
    store: Annotated[str, Field(min_length=1)] = "/var/lib/vedette"
    sinks: list[AnySink] = []
    retention: RetentionSection = RetentionSection()
    curve: CurveSection | None = None

    @model_validator(mode="after")
    def _distinct(self) -> AlertsSection:
        problems: list[tuple[tuple[str | int, ...], str, object]] = []
        if self.publish == self.replay:
            problems.append((("replay",), "needs another address than publish", self.replay))
        seen: set[str] = set()
        for i, sink in enumerate(self.sinks):
            if sink.title() in seen:
                problems.append((("sinks", i), "same name as another sink; give one a `name`", sink.title()))
            seen.add(sink.title())
        if problems:
            raise Problems(problems)
        return self


class TokenSection(_Section):
    """Somebody who may ask. token: from ``${ENV}`` or ``!file``, or the hash that `vedette keys token` prints.
    cameras: what it may see, everything when absent."""

    name: Name
    token: Annotated[str, Field(min_length=16, max_length=512)]
    cameras: Annotated[list[CameraName], Field(min_length=1)] | None = None


class HttpSection(_Section):
    """The small HTTP server: health, metrics, cameras, alerts. listen: ADDRESS:PORT, port 0 picks one, null turns it
    off. tokens: who may ask; without any everybody of this machine may, and nobody else can."""

    listen: Annotated[str, AfterValidator(_listen)] | None = "127.0.0.1:8642"
    tokens: list[TokenSection] = []

    @model_validator(mode="after")
    def _nobody_unknown(self) -> HttpSection:
        problems: list[tuple[tuple[str | int, ...], str, object]] = []
        if self.listen is not None and not self.tokens and not is_loopback_host(self.listen.rpartition(":")[0]):
            rule = "others could read it without a token; listen on 127.0.0.1, or add http.tokens (`vedette keys token NAME`)"
            problems.append((("listen",), rule, self.listen))
        for i, row in enumerate(self.tokens):
            if any(row.name == other.name for other in self.tokens[:i]):
                problems.append((("tokens", i, "name"), "same name as another token", row.name))
            if any(row.token == other.token for other in self.tokens[:i]):
                problems.append((("tokens", i, "token"), "same token as another row", "***"))
        if problems:
            raise Problems(problems)
        return self


class Config(_Section):
    """The whole file. ``cameras`` hold their own keys over ``defaults``; loading has already merged them."""

    version: Literal[1]
    site: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "site"
    engine: EngineSection = EngineSection()
    defaults: CameraDefaults = CameraDefaults()
    cameras: dict[CameraName, CameraSection]
    alerts: AlertsSection = AlertsSection()
    http: HttpSection = HttpSection()

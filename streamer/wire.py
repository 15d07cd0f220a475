"""Every message that crosses a process boundary, and the checks it must pass.

Links (ipc sockets in the run folder; the reader binds, the writer connects, either may start first):

``frames.sock``    capture DEALER (identity = camera name) <-> infer ROUTER
    capture -> infer   ``frame`` FrameHeader [pixels]      pixels only when ``ring`` is null (remote camera)
                       ``hello`` {"incarnation","sent"}    at start, and again while no credit is free
                                                          (sent: frames sent so far)
                       ``snapshot`` {"key","mono_ns"} jpeg empty jpeg: the picture is gone
    infer -> capture   ``boot`` {"boot","sent","held"}     answer to hello, and (sent -1) to a frame paid for by another
                                                          boot. A new boot reclaims every slot; a known one all
                                                          but ``held`` when nothing was sent since that hello
                       ``credit`` {"incarnation","boot","slots":[...]}  where the ring's lane cannot carry it
                                                          (`vedette.streamer.bus.creditlane`)
                       ``calm`` {"calm"}  nothing is in doubt about your pictures: you may look less often while they stand still
                       ``cut`` {"key","mono_ns","box","clip"}  please cut a snapshot of that moment, or a clip around it
``events.sock``    infer, supervisor DEALER (identity = producer) <-> hub ROUTER
    producer -> hub    ``hello`` {"producer","boot"[,"born_ns"]} first, and again every second; born_ns (monotonic): a
                                                          hello of an earlier life than the one known is ignored
                       ``event`` Event jpeg [hub boot]      kept and resent until acknowledged; one that was meant for
                                                          another boot of the hub is answered by ``hello`` only
    hub -> producer    ``hello`` {"boot"}                   the hub is (again) there: resend what is not acknowledged
                       ``ack`` {"id","rev"}                 committed (or already was)
                       ``acks`` {"keys":[[id,rev],...]}     the same for a whole transaction
                       ``refuse`` {"id","rev","why"}        can never be committed: it breaks the alert schema
``telemetry.sock`` everyone PUSH -> hub PULL, lossy, counted
                       topic json                          ``track.<camera>``, ``status.<camera>``, ``process``

Every frame is ``[kind, json, *blobs]``; JSON is UTF-8, finite numbers only, never pickle. A message that
fails a check raises WireError; the reader counts it and goes on.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import SchemaValidator
from pydantic_core.core_schema import CoreConfig

from vedette.engines.api import Letterbox
from vedette.streamer.errors import WireError
from vedette.streamer.jsontext import dump_json, is_finite, load_json
from vedette.streamer.picturestats import PictureStats
from vedette.streamer.types import CAMERA_NAME, Event

FRAMES = "frames.sock"
EVENTS = "events.sock"
TELEMETRY = "telemetry.sock"

#: Largest JSON part of any message, bytes.
MAX_JSON = 256 * 1024
#: Largest picture side accepted from a capture process, pixels.
MAX_SIDE = 8192
#: Largest evidence picture, bytes.
MAX_JPEG = 16 * 1024 * 1024

T = TypeVar("T")
Camera = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]


def ipc(run_dir: Path | str, name: str) -> str:
    """The endpoint of a link in a run folder."""
    return f"ipc://{run_dir}/{name}"


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What describes a frame whose pixels wait in slot ``slot`` of ring file ``ring`` (or follow inline).

    incarnation: this life of the capture process. letterbox: source_w, source_h, scale, pad_x, pad_y.
    boot: the reader whose credit paid for the slot; any other reader drops the frame, because a slot that was
    reclaimed may be written again at any moment. slot: the credit to hand back, also when pixels are inline.
    stats: what the capture process measured of the picture.
    """

    __pydantic_config__: ClassVar[Any] = {"strict": True, "allow_inf_nan": False}

    camera: Camera
    incarnation: Annotated[str, Field(max_length=64)]
    epoch: Annotated[int, Field(ge=0)]
    seq: Annotated[int, Field(ge=0)]
    mono_ns: Annotated[int, Field(ge=0)]
    source_s: float
    wall_s: float
    height: Annotated[int, Field(ge=1, le=MAX_SIDE)]
    width: Annotated[int, Field(ge=1, le=MAX_SIDE)]
    letterbox: tuple[
        Annotated[int, Field(ge=1, le=65536)],
        Annotated[int, Field(ge=1, le=65536)],
        Annotated[float, Field(gt=0)],
        Annotated[int, Field(ge=0, le=MAX_SIDE)],
        Annotated[int, Field(ge=0, le=MAX_SIDE)],
    ]
    ring: Annotated[str, Field(pattern=r"^[a-z0-9_.-]{1,96}$")] | None = None
    slot: Annotated[int, Field(ge=0, le=255)] | None = None
    boot: Annotated[str, Field(max_length=64)] = ""
    stats: PictureStats | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the u8 [H,W,3] picture."""
        return self.height * self.width * 3

    def to_letterbox(self) -> Letterbox:
        """The letterbox with its canvas filled in."""
        source_w, source_h, scale, pad_x, pad_y = self.letterbox
        return Letterbox(source_w, source_h, self.width, self.height, scale, pad_x, pad_y)


def encode(message: object) -> bytes:
    """JSON bytes of a dict or a dataclass instance. Raises WireError on NaN, infinity or what JSON cannot hold."""
    try:
        return dump_json(message)
    except (TypeError, ValueError) as error:
        raise WireError(f"wire: cannot encode {type(message).__name__}: {error}") from error


def decode(raw: bytes) -> dict[str, Any]:
    """The JSON object in ``raw``. Raises WireError when it is oversized, not JSON or not an object."""
    if len(raw) > MAX_JSON:
        raise WireError(f"wire: JSON part of {len(raw)} bytes; at most {MAX_JSON} are accepted")
    try:
        value = load_json(raw)
    except ValueError as error:
        raise WireError(f"wire: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise WireError(f"wire: needs a JSON object, got {type(value).__name__}")
    return value


@cache
def _validator(kind: Hashable) -> SchemaValidator:
    # values are ids and times, new with every message: each would stay in pydantic's cache of 16,384 strings
    return SchemaValidator(TypeAdapter(cast(Any, kind)).core_schema, CoreConfig(cache_strings="keys"))


def parse(kind: type[T], raw: bytes) -> T:
    """A validated ``kind`` (FrameHeader, Event or any typed dataclass or TypedDict) from JSON bytes, or WireError."""
    if len(raw) > MAX_JSON:
        raise WireError(f"wire: JSON part of {len(raw)} bytes; at most {MAX_JSON} are accepted")
    try:
        value: T = _validator(cast(Hashable, kind)).validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or kind.__name__
        raise WireError(f"wire: {kind.__name__}.{where}: {first['msg']}, got {first['input']!r:.80}") from error
    return value


def parse_event(raw: bytes) -> Event:
    """An Event whose camera name and phases are checked, or WireError."""
    event = parse(Event, raw)
    if CAMERA_NAME.fullmatch(event.camera) is None:
        raise WireError(f"wire: Event.camera: needs [a-z0-9_-]{{1,32}}, got {event.camera!r:.80}")
    if not is_finite(event.explain):  # the one field whose type lets NaN through
        raise WireError("wire: Event.explain: needs finite numbers")
    return event

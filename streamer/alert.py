"""What leaves the building: an internal Event becomes the public alert, schema ``vedette.alert/1``.

Pure functions; ``alert.schema.json`` beside this file is the JSON Schema of what they make.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from vedette.streamer.errors import WireError
from vedette.streamer.jsontext import dump_json
from vedette.streamer.types import Event

SCHEMA = "vedette.alert/1"

_ID = re.compile(r"^[0-9A-Za-z][0-9A-Za-z_.:-]{0,95}$")
_KIND = re.compile(r"^[a-z0-9_-]{1,64}$")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: 9999-12-31: the last moment RFC 3339 can write.
_LAST_S = 253402300799.0
MAX_REV = 2**31 - 1
#: Text fields and lists of an event, at most.
MAX_TEXT = 256
MAX_TRACKS = 256

NO_EVIDENCE: dict[str, str | None] = {"snapshot": None, "clip": None, "sha256": None}


def check_event(event: Event) -> Event:
    """The event unchanged when it can become an alert; WireError with the field otherwise.

    The id becomes a file name and the kind a topic, so both are kept plain.
    """
    if _ID.fullmatch(event.id) is None:
        raise WireError(f"event.id: needs 1 to 96 of [0-9A-Za-z_.:-], got {event.id!r:.80}")
    if _KIND.fullmatch(event.kind) is None:
        raise WireError(f"event.kind: needs 1 to 64 of [a-z0-9_-], got {event.kind!r:.80}")
    if not 0 <= event.rev <= MAX_REV:
        raise WireError(f"event.rev: needs 0..{MAX_REV}, got {event.rev}")
    if not 0 <= event.mono_ns < 2**63:
        raise WireError(f"event.mono_ns: needs 0..2^63, got {event.mono_ns!r:.40}")
    if not 0 <= event.wall_s <= _LAST_S:
        raise WireError(f"event.wall_s: needs seconds since 1970, got {event.wall_s}")
    if len(event.track_ids) > MAX_TRACKS:
        raise WireError(f"event.track_ids: at most {MAX_TRACKS}, got {len(event.track_ids)}")
    texts = (event.producer, event.boot, event.rule, event.label, event.zone, *event.track_ids)
    if any(len(text) > MAX_TEXT for text in texts if text is not None):
        raise WireError(f"event: a text field is longer than {MAX_TEXT} characters")
    return event


def rfc3339(wall_s: float) -> str:
    """UTC with milliseconds and a Z: ``1970-01-01T00:00:01.500Z``."""
    second, millisecond = divmod(round(wall_s * 1000), 1000)
    return f"{_to_the_second(second)}.{millisecond:03d}Z"


@lru_cache(maxsize=64)
def _to_the_second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S")


def topic_of(camera: str, kind: str) -> str:
    """The topic an alert is published under."""
    return f"alert.{camera}.{kind}"


def alert_from_event(
    event: Event,
    *,
    site: str,
    stream: str | None,
    seq: int,
    prev: int | None,
    evidence: dict[str, str | None] | None = None,
    total_ms: float | None = None,
) -> dict[str, Any]:
    """The public alert of an event, keys in the documented order.

    stream: UUID of the store, None outside the daemon. seq: from 1. prev: seq of this camera's previous alert.
    evidence: snapshot and clip are paths relative to the store, sha256 is the snapshot's. total_ms: from the
    decoded picture to the commit.
    """
    return {
        "schema": SCHEMA,
        "stream": stream,
        "seq": seq,
        "prev": prev,
        "id": event.id,
        "rev": event.rev,
        "site": site,
        "camera": event.camera,
        "rule": event.rule,
        "kind": event.kind,
        "phase": event.phase,
        "severity": event.severity,
        "time": rfc3339(event.wall_s),
        "track_ids": list(event.track_ids),
        "label": event.label,
        "score": _rounded(event.score, 4),
        "box": None if event.box is None else [_rounded(side, 5) for side in event.box],
        "zone": event.zone,
        "explain": event.explain,
        "evidence": dict(evidence or NO_EVIDENCE),
        "latency_ms": {
            "capture": _rounded(event.latency_ms.get("capture"), 3),
            "infer": _rounded(event.latency_ms.get("infer"), 3),
            "total": _rounded(total_ms, 3),
        },
    }


def interrupted(event: Event, *, mono_ns: int, wall_s: float) -> Event:
    """The end of an incident whose producer died: next rev, ``explain.reason`` is ``interrupted``."""
    return replace(
        event,
        rev=event.rev + 1,
        phase="end",
        mono_ns=mono_ns,
        wall_s=wall_s,
        explain={"reason": "interrupted", "boot": event.boot},
        latency_ms={},
    )


def encode_alert(alert: dict[str, Any]) -> bytes:
    """UTF-8 JSON without spaces. Raises ValueError on NaN and infinity, TypeError on what JSON cannot hold."""
    return dump_json(alert)


@cache
def alert_schema() -> dict[str, Any]:
    """The shipped JSON Schema of `vedette.alert/1`."""
    schema: dict[str, Any] = json.loads(files("vedette.streamer").joinpath("alert.schema.json").read_text("utf-8"))
    return schema


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)

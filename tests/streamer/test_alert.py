"""The public alert: what the schema file says is what the code makes, and nothing else becomes one."""

from __future__ import annotations

import dataclasses
import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.streamer.alert import (
    alert_from_event,
    alert_schema,
    check_event,
    encode_alert,
    interrupted,
    rfc3339,
    topic_of,
)
from vedette.streamer.errors import WireError
from vedette.streamer.types import Event

EVENT = Event(
    "ab12",
    1,
    "infer",
    "b1",
    "dock",
    "zone:gate",
    "zone",
    "update",
    "warning",
    5,
    1_700_000_000.1234,
    ("dock/b1/7",),
    label="person",
    score=0.123456,
    box=(0.1, 0.2, 0.333333333, 1.0),
    zone="gate",
    explain={"on": "enter"},
    latency_ms={"capture": 1.23456, "infer": 7},
)
STREAM = "2d619b15-84e6-4fd4-83f3-d3e761fa8e6d"
DOCUMENTED_KEYS = [
    "schema",
    "stream",
    "seq",
    "prev",
    "id",
    "rev",
    "site",
    "camera",
    "rule",
    "kind",
    "phase",
    "severity",
    "time",
    "track_ids",
    "label",
    "score",
    "box",
    "zone",
    "explain",
    "evidence",
    "latency_ms",
]


def test_an_alert_has_the_documented_keys_in_their_order() -> None:
    """Keys, nesting, rounding and the time format are those of the contract."""
    alert = alert_from_event(EVENT, site="yard", stream=STREAM, seq=9, prev=4, total_ms=42.00004)
    assert list(alert) == DOCUMENTED_KEYS
    assert alert["time"] == "2023-11-14T22:13:20.123Z"
    assert alert["score"] == 0.1235
    assert alert["box"] == [0.1, 0.2, 0.33333, 1.0]
    assert alert["evidence"] == {"snapshot": None, "clip": None, "sha256": None}
    assert alert["latency_ms"] == {"capture": 1.235, "infer": 7.0, "total": 42.0}
    jsonschema.validate(json.loads(encode_alert(alert)), alert_schema())


def test_outside_the_daemon_stream_and_latencies_are_null() -> None:
    """`vedette process` uses the same function, and the schema allows what it leaves out."""
    event = dataclasses.replace(EVENT, latency_ms={})
    alert = alert_from_event(event, site="yard", stream=None, seq=1, prev=None)
    assert alert["stream"] is None
    assert set(alert["latency_ms"].values()) == {None}
    jsonschema.validate(alert, alert_schema())


def test_the_schema_demands_every_documented_key_and_no_other() -> None:
    """A consumer that validates finds out about every change of the contract."""
    schema = alert_schema()
    assert schema["required"] == list(schema["properties"]) == DOCUMENTED_KEYS
    assert schema["additionalProperties"] is False
    alert = alert_from_event(EVENT, site="yard", stream=STREAM, seq=9, prev=4)
    for key in DOCUMENTED_KEYS:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({k: v for k, v in alert.items() if k != key}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**alert, "more": 1}, schema)


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"id": "../../x"},
        {"id": ".hidden"},
        {"id": "a/b"},
        {"id": "x" * 97},
        {"kind": "a.b"},
        {"kind": "Zone"},
        {"kind": ""},
        {"rev": -1},
        {"rev": 2**31},
        {"wall_s": -1.0},
        {"wall_s": 1e300},
        {"track_ids": ("a",) * 257},
        {"label": "x" * 257},
        {"boot": "x" * 257},
    ],
)
def test_what_could_not_become_a_file_name_topic_or_time_is_refused(change: dict[str, object]) -> None:
    """The id names a file, the kind a topic, the time a day: refused before any of them is used."""
    with pytest.raises(WireError, match=next(iter(change)) if next(iter(change)) not in ("label", "boot") else "text"):
        check_event(dataclasses.replace(EVENT, **change))  # type: ignore[arg-type]


def test_an_interrupted_incident_ends_with_the_next_rev_and_says_why() -> None:
    """Same id, rev + 1, phase end, explain.reason, and no latency: no picture was seen."""
    end = interrupted(EVENT, mono_ns=77, wall_s=8.0)
    assert (end.id, end.rev, end.phase, end.explain["reason"]) == ("ab12", 2, "end", "interrupted")
    assert end.latency_ms == {}
    assert end.track_ids == EVENT.track_ids


@given(st.floats(min_value=0, max_value=253402300799, allow_nan=False))
def test_every_time_an_event_may_have_is_written_in_one_form(wall_s: float) -> None:
    """Always UTC, milliseconds, Z; never microseconds, never an offset."""
    jsonschema.validate(rfc3339(wall_s), alert_schema()["properties"]["time"])


def test_the_topic_ends_a_camera_with_a_dot() -> None:
    """Subscribing to ``alert.dock.`` does not hear dock2."""
    assert topic_of("dock", "zone") == "alert.dock.zone"
    assert not topic_of("dock2", "zone").startswith("alert.dock.")

"""Messages between processes: what is right passes unchanged, everything else is a WireError."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.streamer.errors import WireError
from vedette.streamer.types import Event
from vedette.streamer.wire import MAX_JSON, FrameHeader, decode, encode, parse, parse_event

HEADER = FrameHeader("dock", "a1", 2, 7, 10**12, 1.5, 1.7e9, 256, 416, (1280, 720, 0.325, 0, 11), "dock.1.ring", 3)
EVENT = Event("ab12", 0, "infer", "b1", "dock", "zone:gate", "zone", "start", "warning", 5, 1.7e9, ("dock/b1/1",))


def test_headers_and_events_survive_the_wire() -> None:
    """Encoding and parsing gives the same value back."""
    assert parse(FrameHeader, encode(HEADER)) == HEADER
    assert parse_event(encode(EVENT)) == EVENT


@pytest.mark.parametrize(
    "change",
    [
        {"ring": "../../etc/passwd"},
        {"ring": "a/b"},
        {"slot": -1},
        {"slot": True},
        {"height": 0},
        {"width": 10**6},
        {"camera": "Dock"},
        {"camera": "x" * 33},
        {"seq": "7"},
        {"mono_ns": 1.5},
        {"letterbox": [1, 2, 3]},
        {"letterbox": [1280, 720, 0, 0, 0]},
        {"wall_s": None},
    ],
)
def test_bad_headers_are_refused(change: dict[str, object]) -> None:
    """Wrong types, path traversal, absurd sizes: refused with the field's name."""
    raw = json.dumps({**dataclasses.asdict(HEADER), **change}).encode()
    with pytest.raises(WireError, match=next(iter(change))):
        parse(FrameHeader, raw)


@pytest.mark.parametrize("name", ["", "a b", "../x", "É", "x" * 40])
def test_events_need_a_plain_camera_name(name: str) -> None:
    """A camera name becomes a topic and a folder, so only plain ones pass."""
    with pytest.raises(WireError, match="camera"):
        parse_event(json.dumps({**dataclasses.asdict(EVENT), "camera": name}).encode())


def test_nan_never_leaves_or_enters() -> None:
    """NaN is neither encoded nor accepted."""
    with pytest.raises(WireError):
        encode(dataclasses.replace(EVENT, score=float("nan")))
    with pytest.raises(WireError):
        parse_event(encode(EVENT).replace(b'"score":null', b'"score":NaN'))
    told = encode(dataclasses.replace(EVENT, explain={"dwell": [1.5]}))
    for number in (b"NaN", b"-Infinity", b"1e999"):  # explain takes anything JSON can say, and JSON cannot say this
        with pytest.raises(WireError):
            parse_event(told.replace(b"1.5", number))
        with pytest.raises(WireError):
            decode(told.replace(b"1.5", number))
    assert parse_event(told.replace(b"1.5", b'"NaN 1e999"')).explain == {"dwell": ["NaN 1e999"]}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner)))
def test_what_is_encoded_is_what_json_says_or_an_error(value: object) -> None:
    """The fast encoder and the standard library agree on every value, and on what is refused."""
    try:
        expected = json.loads(json.dumps({"value": value}, allow_nan=False))
    except ValueError:
        with pytest.raises(WireError):
            encode({"value": value})
    else:
        assert json.loads(encode({"value": value})) == expected


def test_oversized_json_is_refused_before_it_is_read() -> None:
    """Size is checked first."""
    with pytest.raises(WireError, match="bytes"):
        decode(b" " * (MAX_JSON + 1))


@given(st.binary(max_size=300))
def test_garbage_never_escapes_as_another_error(raw: bytes) -> None:
    """Whatever the bytes are, only WireError comes out."""
    for read in (decode, parse_event, lambda r: parse(FrameHeader, r)):
        try:
            read(raw)
        except WireError:
            continue


def test_deep_nesting_is_an_error_not_a_crash() -> None:
    """A bomb of brackets is refused."""
    with pytest.raises(WireError):
        decode(b"[" * 100_000)


def test_no_value_that_was_read_is_kept() -> None:
    """Ids are new with every message: a thousand messages later nothing of them is left in the process."""
    messages = [encode({"key": f"dock/boot/{i}"}) for i in range(2000)]
    events = [encode(dataclasses.replace(EVENT, id=f"dock/boot/{i}", boot=f"boot-{i}")) for i in range(2000)]
    headers = [encode(dataclasses.replace(HEADER, incarnation=f"inc-{i}")) for i in range(2000)]
    decode(messages[0]), parse_event(events[0]), parse(FrameHeader, headers[0])
    before = sys.getallocatedblocks()
    for raw in messages:
        decode(raw)
    for raw in events:
        parse_event(raw)
    for raw in headers:
        parse(FrameHeader, raw)
    assert sys.getallocatedblocks() - before < 500

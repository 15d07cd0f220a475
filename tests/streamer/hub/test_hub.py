"""The hub process: commits before it speaks, survives what it is sent, and refuses to share a store."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
import zmq

from vedette.streamer.alert import alert_schema
from vedette.streamer.bench._hub import HubProcess, numbered_event
from vedette.streamer.eventlink import EventLink
from vedette.streamer.outbox.reader import OutboxReader
from vedette.streamer.telemetry import TelemetryLink
from vedette.streamer.wire import MAX_JPEG, MAX_JSON

JPEG = b"\xff\xd8\xff\xe0 picture \xff\xd9"
Socket = zmq.Socket[bytes]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A running hub that all tests of this file use."""
    with HubProcess(tmp_path_factory.mktemp("hub") / "store") as running:
        yield running


@pytest.fixture
def context() -> Iterator[zmq.Context[Socket]]:
    """ZeroMQ, closed afterwards."""
    made: zmq.Context[Socket] = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def subscriber(hub: HubProcess, context: zmq.Context[Socket]) -> Socket:
    """Hears everything; it is connected when the first status came."""
    made = context.socket(zmq.SUB)
    made.connect(hub.publish)
    made.subscribe(b"")
    assert made.poll(5000)
    return made


def hear(socket: Socket, wanted: Callable[[str, dict[str, Any]], object], within_s: float = 10.0) -> dict[str, Any]:
    """The first message that is wanted."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if socket.poll(100):
            topic, raw = socket.recv_multipart()
            message = json.loads(raw)
            if wanted(topic.decode(), message):
                return message  # type: ignore[no-any-return]
    raise AssertionError("the wanted message did not come")


def status(socket: Socket, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The first status.hub for which the condition holds."""
    return hear(socket, lambda topic, message: topic == "status.hub" and wanted(message))


def ask(context: zmq.Context[Socket], hub: HubProcess, request: bytes) -> dict[str, Any]:
    """One replay question."""
    with context.socket(zmq.REQ) as asker:
        asker.setsockopt(zmq.LINGER, 0)
        asker.connect(hub.replay)
        asker.send(request)
        assert asker.poll(5000), "no answer"
        answer: dict[str, Any] = json.loads(asker.recv())
        return answer


def test_an_event_becomes_a_published_alert_with_its_picture(hub: HubProcess, subscriber: Socket) -> None:
    """Acknowledged, published under its topic, valid by the schema, and the picture lies where the alert says."""
    with EventLink(hub.events, "infer", "boot-1") as link:
        link.send(numbered_event(1000, camera="pier"), JPEG)
        assert link.drain(5)
    alert = hear(subscriber, lambda topic, m: topic == "alert.pier.zone" and m["id"] == "e1000")
    jsonschema.validate(alert, alert_schema())
    assert alert["latency_ms"]["total"] > 0
    assert (hub.store / alert["evidence"]["snapshot"]).read_bytes() == JPEG


def test_an_acknowledgement_means_the_row_is_in_the_store(hub: HubProcess) -> None:
    """Whoever reads the store after the acknowledgement finds the alert."""
    with EventLink(hub.events, "infer", "boot-1") as link:
        link.send(numbered_event(1001))
        assert link.drain(5)
        reader = OutboxReader(hub.store)
        assert any(a.id == "e1001" for a in reader.page(0).alerts)
        reader.close()


def test_what_is_no_jpeg_is_not_stored_as_one(hub: HubProcess, subscriber: Socket) -> None:
    """The alert goes out without a picture and the loss is counted."""
    with EventLink(hub.events, "infer", "boot-1") as link:
        link.send(numbered_event(1002), b"<script>")
        assert link.drain(5)
    alert = hear(subscriber, lambda _t, m: m.get("id") == "e1002")
    assert alert["evidence"] == {"snapshot": None, "clip": None, "sha256": None}
    assert status(subscriber, lambda m: m["counters"].get("pictures_malformed"))


def test_malformed_messages_are_counted_and_change_nothing(hub: HubProcess, context: Any, subscriber: Socket) -> None:
    """Wrong kinds, wrong JSON, wrong fields, too many parts, nothing at all: counted, and the next event is taken."""
    good = json.dumps({"id": "x1", "rev": 0})
    wrong: list[list[bytes]] = [
        [b""],
        [b"event"],
        [b"event", b"not json"],
        [b"event", b"[]", b""],
        [b"event", good.encode(), b""],
        [b"event", b"{" * 5000, b""],
        [b"event", b'{"id": NaN}', b""],
        [b"event", b" " * (MAX_JSON + 1), b""],
        [b"hello", b"{}"],
        [b"hello", b'{"producer": 1, "boot": []}'],
        [b"hello", json.dumps({"producer": "x" * 300, "boot": "b"}).encode()],
        [b"nonsense", b"{}"],
        [b"event", b"{}", b"", b"", b""],
        [b"\xff" * 10] * 3,
    ]
    before = status(subscriber, lambda _m: True)
    with context.socket(zmq.DEALER) as sender:
        sender.setsockopt(zmq.LINGER, 1000)
        sender.connect(hub.events)
        for message in wrong:
            sender.send_multipart(message)
        sender.send_multipart([b"event", b"{}", b"x" * (MAX_JPEG + 2)])  # longer than the link takes: disconnected
        counted = before["counters"].get("malformed_events", 0) + len(wrong)
        after = status(subscriber, lambda m: m["counters"].get("malformed_events", 0) >= counted)
    assert after["counters"]["malformed_events"] == counted
    assert after["last_seq"] == before["last_seq"]
    with EventLink(hub.events, "infer", "boot-1") as link:
        link.send(numbered_event(1003))
        assert link.drain(5)


def test_an_event_that_will_never_do_is_refused_by_name(hub: HubProcess, context: Any) -> None:
    """The producer is told (id, rev), so it does not send it for ever."""
    with context.socket(zmq.DEALER) as sender:
        sender.setsockopt(zmq.LINGER, 0)
        sender.connect(hub.events)
        sender.send_multipart([b"event", json.dumps({"id": "bad", "rev": 3, "camera": "NO"}).encode(), b""])
        assert sender.poll(5000)
        kind, raw = sender.recv_multipart()
        assert (kind, json.loads(raw)["id"], json.loads(raw)["rev"]) == (b"refuse", "bad", 3)


def test_malformed_telemetry_is_counted_and_good_telemetry_passes(
    hub: HubProcess, context: Any, subscriber: Socket
) -> None:
    """Only known topics with a JSON object are published; status.hub cannot be forged."""
    before = status(subscriber, lambda _m: True)["counters"].get("malformed_telemetry", 0)
    wrong = [[b"track.dock"], [b"track.Dock", b"{}"], [b"status.hub", b"{}"], [b"alert.dock.zone", b"{}"]]
    wrong += [[b"track.dock", b"[1]"], [b"track.dock", b"{", b"x"], [b"process", b'{"processes": 3}'], [b"\xff", b"{}"]]
    with context.socket(zmq.PUSH) as sender:
        sender.setsockopt(zmq.LINGER, 1000)
        sender.connect(hub.telemetry)
        for message in wrong:
            sender.send_multipart(message)
        status(subscriber, lambda m: m["counters"].get("malformed_telemetry", 0) == before + len(wrong))
    with TelemetryLink(hub.telemetry) as link:
        deadline = time.monotonic() + 5
        while not link.send("track.dock", {"tracks": [1]}) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert hear(subscriber, lambda topic, _m: topic == "track.dock") == {"tracks": [1]}


def test_replay_answers_what_it_is_asked(hub: HubProcess, context: Any) -> None:
    """from is exclusive, limit and camera narrow, request comes back."""
    with EventLink(hub.events, "infer", "boot-1") as link:
        for number in range(1100, 1106):
            link.send(numbered_event(number, camera="quay" if number % 2 else "dock"))
        assert link.drain(5)
    everything = ask(context, hub, b'{"from": 0}')
    seqs = [a["seq"] for a in everything["alerts"]]
    assert seqs == list(range(1, everything["last_seq"] + 1))
    page = ask(context, hub, json.dumps({"from": seqs[1], "limit": 2, "request": "r"}).encode())
    assert ([a["seq"] for a in page["alerts"]], page["through"], page["request"]) == (seqs[2:4], seqs[3], "r")
    quay = ask(context, hub, b'{"from": 0, "camera": "quay"}')
    assert {a["camera"] for a in quay["alerts"]} == {"quay"}
    assert quay["through"] == quay["last_seq"]
    assert ask(context, hub, b'{"from": 999999}')["alerts"] == []


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"null",
        b"[1]",
        b"{}",
        b'{"from": "1"}',
        b'{"from": -1}',
        b'{"from": 1.5}',
        b'{"from": true}',
        b'{"from": 1, "limit": 0}',
        b'{"from": 0, "extra": 1}',
        b'{"from": 0, "camera": "../x"}',
        b"[" * 4000,
        b'{"from": 99999999999999999999999}',
        b"\xff\xff",
    ],
)
def test_a_wrong_replay_request_gets_an_error_not_silence(hub: HubProcess, context: Any, request_: bytes) -> None:
    """Every malformed question is answered with an error object, and the server goes on."""
    assert "error" in ask(context, hub, request_)
    assert "alerts" in ask(context, hub, b'{"from": 0}')


def test_an_oversized_replay_request_costs_only_its_sender(hub: HubProcess, context: Any) -> None:
    """The connection is cut; the next client is served."""
    with context.socket(zmq.DEALER) as sender:
        sender.setsockopt(zmq.LINGER, 0)
        sender.connect(hub.replay)
        sender.send(b"x" * 100_000)
        assert "alerts" in ask(context, hub, b'{"from": 0}')
        assert not sender.poll(200)


def test_status_says_where_everything_is(hub: HubProcess, subscriber: Socket) -> None:
    """stream, last_seq, cameras, replay endpoint, counters: what a subscriber needs to notice a lost tail."""
    message = status(subscriber, lambda _m: True)
    assert message["replay"] == hub.replay
    reader = OutboxReader(hub.store)
    assert (message["stream"], message["last_seq"]) == (reader.stream, reader.last_seq())
    assert max(message["cameras"].values()) == message["last_seq"]
    reader.close()


def test_sockets_and_store_are_not_for_everybody(hub: HubProcess) -> None:
    """ipc sockets are 0660 and no file of the store can be read by others."""
    sockets = [path for path in hub.run_dir.iterdir() if stat.S_ISSOCK(path.stat().st_mode)]
    assert len(sockets) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} == {0o660}
    open_to_others = [path for path in hub.store.rglob("*") if stat.S_IMODE(path.stat().st_mode) & 0o007]
    assert open_to_others == []


def test_a_new_boot_closes_what_the_old_life_left_open(hub: HubProcess, subscriber: Socket) -> None:
    """The next life's hello is enough: an end with the next rev, reason interrupted, comes as a proper alert."""
    with EventLink(hub.events, "infer-x", "life-1") as link:
        link.send(numbered_event(1200, phase="start", producer="infer-x", boot="life-1"))
        assert link.drain(5)
    with EventLink(hub.events, "infer-x", "life-2") as link:
        deadline = time.monotonic() + 5
        while not link.connected and time.monotonic() < deadline:
            link.work()
        end = hear(subscriber, lambda _t, m: m.get("id") == "e1200" and m["phase"] == "end")
    assert (end["rev"], end["explain"]["reason"]) == (1, "interrupted")
    jsonschema.validate(end, alert_schema())


def test_a_subscriber_that_never_reads_stalls_nobody(hub: HubProcess, context: Any, subscriber: Socket) -> None:
    """Ten silent subscribers: events are still acknowledged, others still hear, the hub's memory stays bounded."""
    silent = []
    for _ in range(10):
        deaf = context.socket(zmq.SUB)
        deaf.setsockopt(zmq.RCVHWM, 1)
        deaf.setsockopt(zmq.RCVBUF, 4096)
        deaf.connect(hub.publish)
        deaf.subscribe(b"")
        silent.append(deaf)
    status(subscriber, lambda _m: True)
    before = psutil.Process(hub.process.pid).memory_info().rss
    with EventLink(hub.events, "infer", "boot-1") as link:
        for number in range(10_000, 16_000):
            link.send(numbered_event(number))
        assert link.drain(60)
    status(subscriber, lambda m: m["counters"]["alerts"] >= 6000)
    for deaf in silent:
        deaf.close()
    grown = psutil.Process(hub.process.pid).memory_info().rss - before
    assert grown < 10 * 2000 * 2000 + 30_000_000  # ten queues of 2000 messages below 2 kB, and room to breathe


def test_a_second_hub_on_the_same_store_is_refused(hub: HubProcess, tmp_path: Path) -> None:
    """Exit 2 with a sentence; the first one is not disturbed."""
    with (tmp_path / "log").open("w+") as log:
        second = HubProcess(hub.store, stderr=log)
        second.start(wait_s=0)
        assert second.process.wait(15) == 2
        assert any("another hub holds it" in beat.get("error", "") for beat in second.beats())
        second.close()
    assert hub.process.poll() is None


@pytest.mark.parametrize("taken", ["publish", "replay", "http"])
def test_a_port_in_use_is_a_clear_error(tmp_path: Path, taken: str) -> None:
    """Exit 2, the key and the address are named."""
    with socket.socket() as blocker:
        blocker.bind(("127.0.0.1", 0))
        blocker.listen()
        port = blocker.getsockname()[1]
        alerts = {taken: f"tcp://127.0.0.1:{port}"} if taken != "http" else None
        second = HubProcess(tmp_path / "store", alerts=alerts, http=f"127.0.0.1:{port}" if taken == "http" else None)
        second.start(wait_s=0)
        assert second.process.wait(15) == 2
        key = "http.listen" if taken == "http" else f"alerts.{taken}"
        said = [beat["error"] for beat in second.beats() if "error" in beat]
        assert said
        assert key in said[0]
        assert str(port) in said[0]
        second.close()


def test_an_unwritable_store_is_a_clear_error(tmp_path: Path) -> None:
    """A file where the folder should be: exit 2 with the key."""
    (tmp_path / "store").write_text("not a folder")
    second = HubProcess(tmp_path / "store")
    second.start(wait_s=0)
    assert second.process.wait(15) == 2
    assert any("alerts.store" in beat.get("error", "") for beat in second.beats())
    second.close()


def test_a_stopping_hub_takes_what_is_on_the_way_and_ends_in_time(tmp_path: Path) -> None:
    """Events sent just before SIGTERM are committed; status 0 within two seconds."""
    with HubProcess(tmp_path / "store") as stopping, EventLink(stopping.events, "infer", "boot-1") as link:
        deadline = time.monotonic() + 5
        while not link.connected and time.monotonic() < deadline:
            link.work()
        os.kill(stopping.process.pid, signal.SIGSTOP)  # so that they wait in the socket when the signal comes
        for number in range(200):
            link.send(numbered_event(number))
        stopping.process.terminate()
        os.kill(stopping.process.pid, signal.SIGCONT)
        began = time.monotonic()
        assert stopping.stop() == 0
        assert time.monotonic() - began < 4
        link.work()
        reader = OutboxReader(stopping.store)
        assert reader.last_seq() == 200
        reader.close()

"""Peers that break ZeroMQ's rules or ours: they cost their connection, and the hub goes on."""

from __future__ import annotations

import json
import socket
import sqlite3
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import zmq

from tests.streamer.hub.hubs import JPEG, hub_with, until
from tests.streamer.rtsp import free_port
from vedette.streamer import subscribe
from vedette.streamer.bench._hub import HubProcess, numbered_event
from vedette.streamer.errors import WireError
from vedette.streamer.hub.memorywatch import MemoryWatch
from vedette.streamer.outbox.database import DATABASE
from vedette.streamer.outbox.reader import OutboxReader
from vedette.streamer.wire import encode


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub on tcp, as it is by default, with two alerts and their pictures."""
    alerts = {"publish": f"tcp://127.0.0.1:{free_port()}", "replay": f"tcp://127.0.0.1:{free_port()}"}
    store = tmp_path_factory.mktemp("peers") / "store"
    with hub_with(store, [(numbered_event(number), JPEG) for number in (1, 2)], alerts=alerts) as running:
        yield running


def raw_peer(endpoint: str, kind: bytes) -> socket.socket:
    """A connection that has said hello as ZMTP 3.0 without a key wants it, and may now send anything."""
    peer = socket.create_connection(("127.0.0.1", int(endpoint.rpartition(":")[2])), timeout=5)
    peer.sendall(b"\xff" + b"\0" * 8 + b"\x7f\x03\0" + b"NULL".ljust(20, b"\0") + b"\0" * 32)
    ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    peer.sendall(b"\x04" + bytes([len(ready)]) + ready)
    peer.recv(64)
    return peer


def is_served(hub: HubProcess) -> bool:
    """Whether an ordinary subscriber gets both alerts."""
    with subscribe(hub.publish, replay=hub.replay) as subscription:
        return [alert["seq"] for alert in (subscription.next(15.0), subscription.next(15.0)) if alert] == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(("where", "kind"), [("publish", b"SUB"), ("replay", b"DEALER")])
def test_a_message_that_never_ends_is_cut_off(hub: HubProcess, where: str, kind: bytes) -> None:
    """A peer that sends parts without end loses its connection before it has taken 700 MB, the memory comes back, the
    hub is the same process, and others are served."""
    process = psutil.Process(hub.process.pid)
    before, most = process.memory_info().rss, 0
    part = b"\x03" + struct.pack(">Q", 4000) + b"x" * 4000  # flags: more parts follow, long size
    with raw_peer(getattr(hub, where), kind) as peer:
        deadline = time.monotonic() + 60
        while _takes(peer, part * 20):
            most = max(most, process.memory_info().rss - before)
            assert time.monotonic() < deadline, "it was never cut off"
    assert most < 700e6
    until(lambda: process.memory_info().rss - before < 200e6)
    assert is_served(hub)
    assert hub.process.poll() is None


def _takes(peer: socket.socket, data: bytes) -> bool:
    try:
        peer.sendall(data)
    except ConnectionError:
        return False
    return True


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 64,
        b"\xff" + b"\0" * 8 + b"\x7f\x03\0" + b"PLAIN".ljust(20, b"\0") + b"\0" * 32,
        b"\xff" + b"\0" * 8 + b"\x7f\x03\0" + b"NULL".ljust(20, b"\0") + b"\0" * 32 + b"\x06" + b"\xff" * 8 + b"READY",
        b"\x16\x03\x01\x02\x00\x01",
    ],
    ids=["silence", "http", "ones", "plain", "endless-command", "tls"],
)
def test_what_is_not_zeromq_harms_nobody(hub: HubProcess, greeting: bytes) -> None:
    """Other protocols, wrong mechanisms and a command of 16 exabytes, on both sockets: the next subscriber is served."""
    peers = [socket.create_connection(("127.0.0.1", int(e.rpartition(":")[2]))) for e in (hub.publish, hub.replay)]
    for peer in peers:
        peer.sendall(greeting)
    assert is_served(hub)
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("field", ["id", "camera"])
@pytest.mark.parametrize("name", ["../../../escaped", "/tmp/escaped", "..", "a/b", "a\0b", "a\nb", "%2e%2e%2f"])
def test_no_event_names_a_path(hub: HubProcess, tmp_path: Path, field: str, name: str) -> None:
    """Somebody who got hold of the events socket cannot write a picture anywhere else: the event is refused."""
    del tmp_path
    good = json.loads(encode(numbered_event(77)))
    with zmq.Context() as context, context.socket(zmq.DEALER) as sender:
        sender.setsockopt(zmq.LINGER, 0)
        sender.connect(hub.events)
        sender.send_multipart([b"event", json.dumps({**good, field: name}).encode(), JPEG])
        assert sender.poll(5000)
        assert sender.recv_multipart()[0] == b"refuse"
    assert not list(hub.store.parent.rglob("*escaped*"))


@pytest.mark.parametrize("what", ["snapshot", "clip"])
@pytest.mark.parametrize("path", ["../../../../../../etc/passwd", "/etc/passwd", "alerts.db", "evidence/link.jpg"])
def test_evidence_comes_from_the_evidence_folder_only(hub: HubProcess, path: str, what: str) -> None:
    """Even when the database names another file, or a link in the folder leads out of it: 404, and not a byte of it."""
    (hub.store / "evidence" / "link.jpg").unlink(missing_ok=True)
    (hub.store / "evidence" / "link.jpg").symlink_to("/etc/passwd")

    def rewrite(body: bytes) -> bytes:
        with sqlite3.connect(hub.store / DATABASE, timeout=10) as db:
            (before,) = db.execute("SELECT body FROM alerts WHERE seq=1").fetchone()
            db.execute("UPDATE alerts SET body=? WHERE seq=1", (body or before,))
        db.close()
        return bytes(before)

    good = rewrite(b"")
    alert = json.loads(good)
    alert["evidence"][what] = path
    rewrite(json.dumps(alert).encode())
    try:
        answer = httpx.get(f"http://{hub.config['http']['listen']}/api/v1/alerts/1/{what}", timeout=5)
        assert answer.status_code == 404
        assert "root:" not in answer.text
        reader = OutboxReader(hub.store)
        assert reader.evidence(1, "snapshot" if what == "snapshot" else "clip") is None
        assert reader.evidence(2, "snapshot") is not None
        reader.close()
    finally:
        rewrite(good)


@pytest.mark.parametrize(
    "reply",
    [
        b"[" * 200_000,
        b'{"request": "1", "stream": "s", "last_seq": Infinity, "through": 0, "gap": null, "alerts": []}',
        b'{"request": "1", "stream": "s", "last_seq": 1, "through": 1, "gap": [], "alerts": [1]}',
        b'{"request": "1"}',
        b"9" * 5000,
        b"null",
        b"\xff\xfe",
    ],
)
def test_a_hostile_hub_cannot_stop_a_subscriber(reply: bytes) -> None:
    """Whatever the replay address answers: it is counted or ignored, and the subscriber goes on waiting."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.PUB) as publisher:
        for one in (router, publisher):
            one.setsockopt(zmq.LINGER, 0)
        replay = f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
        publish = f"tcp://127.0.0.1:{publisher.bind_to_random_port('tcp://127.0.0.1')}"
        with subscribe(publish, replay=replay) as subscription:
            assert subscription.next(0.05) is None
            assert router.poll(5000)
            router.send_multipart([router.recv_multipart()[0], reply])
            deadline = time.monotonic() + 10
            while subscription.malformed < 3:  # the subscription itself takes a moment to arrive
                for topic in (b"status.hub", b"alert.dock.zone"):
                    publisher.send_multipart([topic, reply])
                publisher.send(b"alert.one.part")
                assert subscription.next(0.05) is None
                assert time.monotonic() < deadline


def test_json_is_finite_and_flat_enough() -> None:
    """What would not survive JSON is refused where it is written."""
    for value in (float("nan"), float("inf"), {"deep": [-float("inf")]}):
        with pytest.raises(WireError):
            encode({"x": value})


def test_a_flood_is_a_jump_not_a_slow_growth() -> None:
    """Alarm once a jump, quiet while it settles, a new calm level after it; growth by 1 MB a second is no flood."""
    level = 100e6
    watch = MemoryWatch(flood_bytes=50_000_000, measure=lambda: int(level))
    now_s = 0.0
    for _ in range(400):
        level += 0.4e6
        now_s += 1.0
        assert not watch.flooded(now_s)
    level += 60e6
    assert watch.flooded(now_s + 1)
    assert not watch.flooded(now_s + 2)
    assert not watch.flooded(now_s + 5)  # settled: this is the new calm
    assert watch.calm_bytes == level
    level += 60e6
    assert watch.flooded(now_s + 6)

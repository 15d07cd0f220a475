"""Sinks: each goes on where it stopped, alone, whatever the other end does. Real files, real HTTP, a real broker."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vedette.streamer.bench._hub import HubProcess, numbered_event
from vedette.streamer.errors import SinkError
from vedette.streamer.eventlink import EventLink
from vedette.streamer.outbox import Draft, Outbox
from vedette.streamer.outboxreader import OutboxReader
from vedette.streamer.sinks import KINDS
from vedette.streamer.sinks.base import Place, SinkConfig
from vedette.streamer.sinks.cursor import Cursor
from vedette.streamer.sinks.jsonl import JsonlConfig
from vedette.streamer.sinks.mqtt import MqttConfig
from vedette.streamer.sinks.runner import SinkRunner
from vedette.streamer.sinks.webhook import REFUSED_FOR_GOOD, WebhookConfig


def until(condition: Callable[[], object], within_s: float = 15.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """A store to deliver from."""
    folder = tmp_path / "store"
    folder.mkdir()
    box = Outbox(folder, site="yard")
    yield box
    box.close()


def commit(outbox: Outbox, count: int, runner: SinkRunner | None = None) -> None:
    """Commit some alerts and say so."""
    begin = outbox.last_seq
    outbox.commit([Draft(numbered_event(begin + i + 1)) for i in range(count)])
    if runner is not None:
        runner.wake(outbox.last_seq)


def start(outbox: Outbox, config: SinkConfig) -> SinkRunner:
    """Run a sink over the store."""
    return SinkRunner(config, outbox.path.parent, "yard", longest_pause_s=0.2)


def numbers(lines: list[str]) -> list[int]:
    """The seqs of JSON lines."""
    return [json.loads(line)["seq"] for line in lines]


# the runner and its cursor


def test_every_kind_has_a_row(outbox: Outbox) -> None:
    """The table knows jsonl, webhook and mqtt, each under its own kind."""
    del outbox
    assert {kind: model.model_fields["kind"].default for kind, model in KINDS.items()} == {k: k for k in KINDS}
    assert set(KINDS) == {"jsonl", "webhook", "mqtt"}


def test_a_new_sink_begins_now_and_an_old_one_where_it_stopped(outbox: Outbox, tmp_path: Path) -> None:
    """A sink added later is not flooded with the past; its cursor survives, another stream's does not."""
    store = outbox.path.parent
    assert Cursor(store, "new", outbox.stream, 7).seq == 7
    cursor = Cursor(store, "new", outbox.stream, 99)
    assert cursor.seq == 7
    cursor.seq = 12
    cursor.save()
    assert Cursor(store, "new", outbox.stream, 99).seq == 12
    assert Cursor(store, "new", "another-stream", 99).seq == 0
    (store / "sinks" / "new.json").write_text("{")
    assert Cursor(store, "new", outbox.stream, 99).seq == 0
    del tmp_path


def test_what_retention_took_before_delivery_is_counted(outbox: Outbox, tmp_path: Path) -> None:
    """The sink skips the gap and says how many alerts it never got."""
    config = JsonlConfig(path=str(tmp_path / "out.jsonl"))
    start(outbox, config).stop()
    commit(outbox, 10)
    outbox.remove_through(6)
    runner = start(outbox, config)
    until(lambda: runner.status()["lag"] == 0)
    runner.stop()
    assert numbers((tmp_path / "out.jsonl").read_text().splitlines()) == [7, 8, 9, 10]
    assert runner.skipped == 6


# jsonl


def test_jsonl_writes_every_alert_once_across_restarts(outbox: Outbox, tmp_path: Path) -> None:
    """One line an alert, byte for byte the public JSON, and a restart neither repeats nor skips."""
    path = tmp_path / "out.jsonl"
    start(outbox, JsonlConfig(path=str(path))).stop()
    for _ in range(3):
        runner = start(outbox, JsonlConfig(path=str(path)))
        commit(outbox, 40, runner)
        until(lambda r=runner: r.status()["lag"] == 0)  # type: ignore[misc]
        runner.stop()
    reader = OutboxReader(outbox.path.parent)
    assert path.read_bytes() == b"".join(a.body + b"\n" for a in reader.page(0).alerts)
    reader.close()


def test_jsonl_mends_a_torn_line_and_trusts_its_last_whole_one(outbox: Outbox, tmp_path: Path) -> None:
    """A crash between write and cursor: the torn line goes, what is already there is not written again."""
    path = tmp_path / "out.jsonl"
    commit(outbox, 5)
    reader = OutboxReader(outbox.path.parent)
    alerts = reader.page(0).alerts
    reader.close()
    path.write_bytes(b"".join(a.body + b"\n" for a in alerts[:3]) + alerts[3].body[:50])
    sink = JsonlConfig(path=str(path)).connect(Place("yard", outbox.stream, 0))
    assert sink.deliver(alerts) == 5
    sink.close()
    assert numbers(path.read_text().splitlines()) == [1, 2, 3, 4, 5]


def test_jsonl_appends_to_strangers_lines_and_follows_rotation(outbox: Outbox, tmp_path: Path) -> None:
    """Other content stays; a file that was renamed away is begun anew."""
    path = tmp_path / "out.jsonl"
    path.write_text("# mine\n")
    commit(outbox, 2)
    reader = OutboxReader(outbox.path.parent)
    alerts = reader.page(0).alerts
    reader.close()
    sink = JsonlConfig(path=str(path)).connect(Place("yard", outbox.stream, 0))
    sink.deliver(alerts[:1])
    path.rename(tmp_path / "out.1")
    sink.deliver(alerts[1:])
    sink.close()
    assert (tmp_path / "out.1").read_text().startswith("# mine\n{")
    assert numbers(path.read_text().splitlines()) == [2]


def test_jsonl_without_its_folder_waits_for_it(outbox: Outbox, tmp_path: Path) -> None:
    """A mount that is not there is an error that passes, not a file in the wrong place."""
    path = tmp_path / "mount" / "out.jsonl"
    runner = start(outbox, JsonlConfig(path=str(path)))
    commit(outbox, 3, runner)
    until(lambda: runner.status()["state"] == "retrying")
    assert "mount" in runner.status()["error"]
    path.parent.mkdir()
    until(lambda: runner.status()["lag"] == 0)
    runner.stop()
    assert numbers(path.read_text().splitlines()) == [1, 2, 3]


# webhook


class Receiver(http.server.ThreadingHTTPServer):
    """A real HTTP server that answers what the test decides and writes down what it got."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receive)
        self.decide: Callable[[dict[str, Any]], tuple[int, dict[str, str]]] = lambda _alert: (200, {})
        self.got: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}/hook"

    def end(self) -> None:
        """Stop."""
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Receive(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        alert = json.loads(body)
        status, headers = self.server.decide(alert)
        if status < 300:
            self.server.got.append(alert)
            self.server.headers.append(dict(self.headers.items()))
            self.server.bodies.append(body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A webhook's other end."""
    made = Receiver()
    yield made
    made.end()


def test_webhook_posts_in_order_with_an_idempotency_key_and_a_signature(outbox: Outbox, receiver: Receiver) -> None:
    """Each alert is one request; headers of the configuration go along; the HMAC covers the very bytes sent."""
    secret = "a long secret"
    config = WebhookConfig(url=receiver.url, headers={"Authorization": "Bearer t"}, secret=secret)
    runner = start(outbox, config)
    commit(outbox, 5, runner)
    until(lambda: len(receiver.got) == 5)
    runner.stop()
    assert [a["seq"] for a in receiver.got] == [1, 2, 3, 4, 5]
    for alert, headers, body in zip(receiver.got, receiver.headers, receiver.bodies, strict=True):
        assert headers["Idempotency-Key"] == f"{alert['id']}:{alert['rev']}"
        assert headers["Authorization"] == "Bearer t"
        digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        assert headers["X-Vedette-Signature"] == f"sha256={digest}"


@pytest.mark.parametrize("status", [301, 401, 403, 404, 408, 429, 500, 503])
def test_webhook_tries_again_what_somebody_can_repair(outbox: Outbox, receiver: Receiver, status: int) -> None:
    """The same alert is offered until it is taken; order is kept."""
    tries: list[int] = []

    def decide(alert: dict[str, Any]) -> tuple[int, dict[str, str]]:
        tries.append(alert["seq"])
        return (200, {}) if len(tries) > 2 else (status, {"Location": receiver.url, "Retry-After": "0"})

    receiver.decide = decide
    runner = start(outbox, WebhookConfig(url=receiver.url))
    commit(outbox, 2, runner)
    until(lambda: len(receiver.got) == 2)
    until(lambda: runner.status()["lag"] == 0)
    runner.stop()
    assert tries == [1, 1, 1, 2]
    assert runner.failures == 2


@pytest.mark.parametrize("status", sorted(REFUSED_FOR_GOOD)[:3])
def test_webhook_skips_what_is_refused_for_good(outbox: Outbox, receiver: Receiver, status: int) -> None:
    """One alert the receiver will never take does not hold up the others, and is counted."""
    receiver.decide = lambda alert: (status, {}) if alert["seq"] == 2 else (200, {})
    runner = start(outbox, WebhookConfig(url=receiver.url))
    commit(outbox, 3, runner)
    until(lambda: runner.status()["lag"] == 0)
    runner.stop()
    assert [a["seq"] for a in receiver.got] == [1, 3]
    assert (runner.delivered, runner.refused) == (2, 1)


def test_webhook_that_never_answers_is_given_up_in_time(outbox: Outbox) -> None:
    """A server that accepts and says nothing costs the time-out, not for ever; the password is not told."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://user:hunter2@127.0.0.1:{silent.getsockname()[1]}/"
        sink = WebhookConfig(url=url, timeout=0.2).connect(Place("yard", outbox.stream, 0))
        commit(outbox, 1)
        reader = OutboxReader(outbox.path.parent)
        began = time.monotonic()
        with pytest.raises(SinkError) as caught:
            sink.deliver(reader.page(0).alerts)
        assert time.monotonic() - began < 3
        assert "hunter2" not in str(caught.value)
        reader.close()
        sink.close()


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"url": "ftp://host/"}, "url"),
        ({"url": "http:///path"}, "url"),
        ({"url": "http://h/", "headers": {"A": "b\r\nX: y"}}, "headers"),
        ({"url": "http://h/", "timeout": 0}, "timeout"),
        ({"url": "http://h/", "secret": "short"}, "secret"),
    ],
)
def test_webhook_configuration_is_checked(wrong: dict[str, Any], where: str) -> None:
    """Schemes, header injection, time-outs."""
    with pytest.raises(ValueError, match=where):
        WebhookConfig(**wrong)


def test_a_dead_sink_harms_no_other(tmp_path: Path, receiver: Receiver) -> None:
    """In a real hub: one webhook nobody listens to, one that works, one file; kill -9 of the hub on the way.
    The two that work get everything at least once and in order, the dead one's lag is told."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    sinks = [
        {"kind": "webhook", "name": "dead", "url": dead},
        {"kind": "webhook", "name": "alive", "url": receiver.url},
        {"kind": "jsonl", "path": str(tmp_path / "out.jsonl")},
    ]
    with HubProcess(tmp_path / "store", alerts={"sinks": sinks}) as hub:
        with EventLink(hub.events, "infer", "boot-1") as link:
            for number in range(150):
                link.send(numbered_event(number))
            assert link.drain(20)
            hub.kill()
            hub.start()
            for number in range(150, 200):
                link.send(numbered_event(number))
            assert link.drain(20)
        lines: Callable[[], list[str]] = lambda: (tmp_path / "out.jsonl").read_text().splitlines()  # noqa: E731
        until(lambda: len(lines()) == 200)
        until(lambda: receiver.got and receiver.got[-1]["seq"] == 200)
    assert numbers(lines()) == list(range(1, 201))
    firsts = list(dict.fromkeys(a["seq"] for a in receiver.got))
    assert firsts == list(range(1, 201))
    assert json.loads((tmp_path / "store" / "sinks" / "dead.json").read_text())["seq"] == 0


def test_a_sink_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """SIGTERM while a webhook waits for an answer that never comes: the hub ends well within its two seconds."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        sinks = [{"kind": "webhook", "name": f"s{i}", "url": url, "timeout": 30} for i in range(3)]
        with (
            HubProcess(tmp_path / "store", alerts={"sinks": sinks}) as hub,
            EventLink(hub.events, "infer", "b") as link,
        ):
            link.send(numbered_event(1))
            assert link.drain(10)
            began = time.monotonic()
            assert hub.stop() == 0
            assert time.monotonic() - began < 3


# mqtt


MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class Broker:
    """A real mosquitto on a port of its own; QoS 1 with persistence off."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._conf = folder / "mosquitto.conf"
        self._conf.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it listens."""
        assert MOSQUITTO is not None
        self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._conf)], stderr=subprocess.DEVNULL)
        until(self._listens)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class MqttListener:
    """A subscriber of the broker."""

    def __init__(self, broker: Broker) -> None:
        from paho.mqtt import client as paho

        self.got: list[tuple[str, bytes]] = []
        self.client: Any = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"listener-{time.monotonic_ns()}")
        ready = threading.Event()
        self.client.on_connect = lambda *_: self.client.subscribe("vedette/#", qos=1)
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_message = lambda _c, _d, m: self.got.append((m.topic, m.payload))
        self.client.reconnect_delay_set(0.1, 0.2)
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        assert ready.wait(10)

    def alerts(self) -> list[int]:
        """seqs heard, each once, in order of the first hearing."""
        seqs = [json.loads(raw)["seq"] for topic, raw in self.got if topic.startswith("vedette/alert/")]
        return list(dict.fromkeys(seqs))

    def availability(self) -> list[bytes]:
        """What was said about us."""
        return [raw for topic, raw in self.got if topic == "vedette/available"]

    def close(self) -> None:
        """Leave."""
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A running broker; skipped where there is none, unless VEDETTE_REQUIRE_MQTT=1."""
    if MOSQUITTO is None:
        message = "needs mosquitto (apt-get install mosquitto)"
        if os.environ.get("VEDETTE_REQUIRE_MQTT") == "1":
            pytest.fail(message)
        pytest.skip(message)
    pytest.importorskip("paho.mqtt")
    made = Broker(tmp_path)
    made.start()
    yield made
    made.stop()


def test_mqtt_publishes_plain_topics_and_its_availability(outbox: Outbox, broker: Broker) -> None:
    """<prefix>/alert/<camera>/<kind> holds the public JSON; available says online, then offline."""
    listener = MqttListener(broker)
    runner = start(outbox, MqttConfig(host="127.0.0.1", port=broker.port))
    commit(outbox, 3, runner)
    until(lambda: len(listener.alerts()) == 3)
    assert {topic for topic, _ in listener.got} == {"vedette/available", "vedette/alert/dock/zone"}
    runner.stop(5)
    until(lambda: listener.availability() == [b"online", b"offline"])
    listener.close()


def test_mqtt_goes_on_after_the_broker_was_killed(outbox: Outbox, broker: Broker) -> None:
    """Alerts that came while it was away arrive when it is back: the store is the queue, not the client."""
    runner = start(outbox, MqttConfig(host="127.0.0.1", port=broker.port, timeout=2.0))
    listener = MqttListener(broker)
    commit(outbox, 20, runner)
    until(lambda: len(listener.alerts()) == 20)
    listener.close()
    broker.stop()
    commit(outbox, 30, runner)
    until(lambda: runner.status()["state"] == "retrying")
    assert runner.status()["lag"] == 30
    broker.start()
    late = MqttListener(broker)
    commit(outbox, 5, runner)
    until(lambda: late.alerts()[-1:] == [55] or runner.status()["lag"] == 0)
    runner.stop(5)
    assert runner.status()["seq"] == 55
    late.close()


def test_mqtt_says_offline_by_its_will_when_it_is_killed(tmp_path: Path, broker: Broker) -> None:
    """kill -9 of a real hub: the broker tells everybody; the hub's next life says online and goes on."""
    sinks = [{"kind": "mqtt", "host": "127.0.0.1", "port": broker.port}]
    listener = MqttListener(broker)
    with HubProcess(tmp_path / "store", alerts={"sinks": sinks}) as hub, EventLink(hub.events, "infer", "b") as link:
        link.send(numbered_event(1))
        assert link.drain(10)
        until(lambda: listener.alerts() == [1])
        hub.kill()
        until(lambda: listener.availability()[-1:] == [b"offline"])
        hub.start()
        link.send(numbered_event(2))
        assert link.drain(10)
        until(lambda: listener.alerts() == [1, 2])
        assert listener.availability()[-1] == b"online"
    listener.close()


def test_mqtt_refused_is_said_and_tried_again(outbox: Outbox) -> None:
    """No broker: the sink retries and names the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runner = start(outbox, MqttConfig(host="127.0.0.1", port=port))
    until(lambda: runner.status()["state"] == "retrying")
    assert str(port) in runner.status()["error"]
    runner.stop()

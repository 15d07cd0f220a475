"""The mqtt sink against a real mosquitto."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.streamer.sinks.sink_ends import commit, start, until
from vedette.streamer.bench._hub import HubProcess, numbered_event
from vedette.streamer.eventlink import EventLink
from vedette.streamer.outbox.store import Outbox
from vedette.streamer.sinks.mqtt import MqttConfig

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

"""The promise as a whole, with real processes: what is committed reaches a subscriber once, in order, whatever dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vedette.streamer import Subscription, subscribe
from vedette.streamer.bench._hub import HubProcess
from vedette.streamer.outbox.reader import OutboxReader

#: A process that numbers events 1..N over the real link and says on standard output what was acknowledged.
PRODUCER = """
import sys, time
from vedette.streamer.bench._hub import numbered_event
from vedette.streamer.eventlink import EventLink
endpoint, boot, first, last, pause_s = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
link = EventLink(endpoint, "infer", boot)
link.on_ack = lambda key: print("acked", key[0], flush=True)
cameras = ("dock", "gate", "yard")
for number in range(first, last + 1):
    event = numbered_event(number, camera=cameras[number % 3], boot=boot, phase="start" if number % 5 == 0 else "end")
    while not link.send(event, b"\\xff\\xd8\\xff picture \\xff\\xd9" if number % 4 == 0 else b""):
        link.work()
    print("sent", number, flush=True)
    time.sleep(pause_s)
print("drained", link.drain(60), link.counters["acked"], flush=True)
link.close()
"""


class Listener:
    """A subscriber in a thread that writes down what it is given."""

    def __init__(self, hub: HubProcess, **how: Any) -> None:
        self.alerts: list[dict[str, Any]] = []
        self.subscription: Subscription = subscribe(hub.publish, **how)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        for alert in self.subscription:
            self.alerts.append(alert)

    def wait_for(self, seq: int, within_s: float = 30.0) -> None:
        """Until that seq was given."""
        deadline = time.monotonic() + within_s
        while not self.alerts or self.alerts[-1]["seq"] < seq:
            assert time.monotonic() < deadline, f"{len(self.alerts)} alerts came, seq {seq} did not"
            time.sleep(0.01)

    def stop(self) -> list[dict[str, Any]]:
        """End; everything that was given."""
        self.subscription.close()
        self._thread.join(10)
        return self.alerts


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    """A running hub of the test's own."""
    with HubProcess(tmp_path / "store") as running:
        yield running


def produce(hub: HubProcess, boot: str, first: int, last: int, pause_s: float = 0.0) -> subprocess.Popen[str]:
    """Start a producer process."""
    command = [sys.executable, "-c", PRODUCER, hub.events, boot, str(first), str(last), str(pause_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_sent(producer: subprocess.Popen[str], number: int) -> None:
    """Until the producer has sent that number."""
    assert producer.stdout is not None
    while line := producer.stdout.readline():
        if line.split()[:2] == ["sent", str(number)]:
            return
    raise AssertionError(f"the producer ended before {number}")


def finish(producer: subprocess.Popen[str]) -> list[str]:
    """The producer's last line."""
    assert producer.stdout is not None
    rest = producer.stdout.read().splitlines()
    producer.stdout.close()
    assert producer.wait(30) == 0
    return rest[-1].split()


def committed(store: Path) -> list[dict[str, Any]]:
    """Every alert in the store."""
    reader = OutboxReader(store)
    found: list[dict[str, Any]] = []
    while (page := reader.page(len(found))).alerts:
        found += [json.loads(alert.body) for alert in page.alerts]
    reader.close()
    return found


def check_exactly(given: list[dict[str, Any]], stored: list[dict[str, Any]]) -> None:
    """Given is what was stored: the same alerts, in order, none twice, numbers without a hole."""
    assert [a["seq"] for a in stored] == list(range(1, len(stored) + 1))
    assert [a["seq"] for a in given] == [a["seq"] for a in stored]
    assert given == stored
    tellings = [(a["id"], a["rev"]) for a in given]
    assert len(set(tellings)) == len(tellings)
    last: dict[str, int] = {}
    for alert in given:
        assert alert["prev"] == last.get(alert["camera"])
        last[alert["camera"]] = alert["seq"]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_killing_the_hub_ten_times_loses_and_doubles_nothing(hub: HubProcess) -> None:
    """kill -9 of the hub while 2000 events flow: attached subscribers get exactly what was committed, which is all."""
    listener, other = Listener(hub), Listener(hub, camera="gate")
    producer = produce(hub, "boot-1", 1, 2000, 0.005)
    for round_ in range(1, 11):
        wait_sent(producer, round_ * 190)
        hub.kill()
        hub.start()
    assert finish(producer) == ["drained", "True", "2000"]
    hub.wait_for("serving")
    listener.wait_for(2000)
    stored = committed(hub.store)
    other.wait_for(max(a["seq"] for a in stored if a["camera"] == "gate"))
    check_exactly(listener.stop(), stored)
    assert sorted(int(a["id"][1:]) for a in stored) == list(range(1, 2001))
    gate = other.stop()
    assert gate == [a for a in stored if a["camera"] == "gate"]
    pictured = [a for a in stored if int(a["id"][1:]) % 4 == 0]
    assert all((hub.store / a["evidence"]["snapshot"]).is_file() for a in pictured)
    assert not list((hub.store / "evidence" / ".incoming").iterdir())


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_killing_the_producer_loses_only_what_was_not_acknowledged(hub: HubProcess) -> None:
    """kill -9 of infer's side: everything it had acknowledged is there, its open incidents end as interrupted, and the
    subscriber has exactly what was committed."""
    listener = Listener(hub)
    first = 1
    acknowledged: list[str] = []
    for life in range(5):
        producer = produce(hub, f"boot-{life}", first, first + 10_000)
        assert producer.stdout is not None
        told: list[str] = []
        while len(told) < 200:
            word, what = producer.stdout.readline().split()[:2]
            told += [what] * (word == "acked")
        producer.kill()
        told += [line.split()[1] for line in producer.stdout.read().splitlines()[:-1] if line.startswith("acked")]
        producer.wait()
        producer.stdout.close()
        acknowledged += told
        first += 20_000
    assert finish(produce(hub, "boot-last", first, first))[:2] == ["drained", "True"]
    reader = OutboxReader(hub.store)
    listener.wait_for(reader.last_seq())
    reader.close()
    stored = committed(hub.store)
    check_exactly(listener.stop(), stored)
    assert set(acknowledged) <= {a["id"] for a in stored}
    opened = {a["id"]: a for a in stored if a["phase"] == "start"}
    ended = {a["id"]: a for a in stored if a["explain"].get("reason") == "interrupted"}
    last_life = {i for i, a in opened.items() if "boot-last" in a["track_ids"][0]}
    assert set(ended) == set(opened) - last_life
    for life in range(5):  # what arrived of a life has no hole: the link keeps order
        numbers = sorted(int(a["id"][1:]) for a in stored if f"boot-{life}" in a["track_ids"][0] and a["rev"] == 0)
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.mark.timeout(120)
def test_a_subscriber_that_comes_and_goes_with_its_cursor_misses_nothing(hub: HubProcess) -> None:
    """Each life of the subscriber goes on where the last one stopped, across a hub restart, each alert once."""
    producer = produce(hub, "boot-1", 1, 400, 0.002)
    given: list[dict[str, Any]] = []
    cursor = 0
    while cursor < 400:
        with subscribe(hub.publish, since=cursor) as subscription:
            for _ in range(70):
                if cursor == 400:
                    break
                alert = subscription.next(20)
                assert alert is not None
                given.append(alert)
                cursor = alert["seq"]
        if 200 <= cursor < 270:
            hub.kill()
            hub.start()
    assert finish(producer) == ["drained", "True", "400"]
    check_exactly(given, committed(hub.store))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_slow_subscriber_gets_everything_in_the_end(hub: HubProcess) -> None:
    """More is published than its queues hold while it sleeps; replay heals the rest."""
    with subscribe(hub.publish) as subscription:
        assert finish(produce(hub, "boot-1", 1, 6000)) == ["drained", "True", "6000"]
        given = []
        while len(given) < 6000:
            alert = subscription.next(20)
            assert alert is not None
            given.append(alert)
        assert subscription.next(1.5) is None
    check_exactly(given, committed(hub.store))


@pytest.mark.timeout(120)
def test_a_hub_that_hangs_keeps_its_promise_when_it_goes_on(hub: HubProcess) -> None:
    """SIGSTOP for a while: producers keep their events, nothing is lost or doubled after SIGCONT."""
    listener = Listener(hub)
    producer = produce(hub, "boot-1", 1, 600, 0.002)
    wait_sent(producer, 100)
    os.kill(hub.process.pid, 19)
    wait_sent(producer, 450)
    os.kill(hub.process.pid, 18)
    assert finish(producer) == ["drained", "True", "600"]
    listener.wait_for(600)
    check_exactly(listener.stop(), committed(hub.store))


def test_a_new_store_under_a_running_subscriber_is_followed(tmp_path: Path) -> None:
    """The store is replaced while the subscriber watches: it is told (warning) and gets the new stream from 1."""
    with HubProcess(tmp_path / "store") as hub:
        listener = Listener(hub)
        assert finish(produce(hub, "boot-1", 1, 20))[1] == "True"
        listener.wait_for(20)
        hub.stop()
        hub.store.rename(tmp_path / "old")
        hub.start()
        assert finish(produce(hub, "boot-1", 1, 10))[1] == "True"
        deadline = time.monotonic() + 20
        while len(listener.alerts) < 30 and time.monotonic() < deadline:
            time.sleep(0.01)
        given = listener.stop()
    assert [a["seq"] for a in given] == [*range(1, 21), *range(1, 11)]
    assert len({a["stream"] for a in given}) == 2

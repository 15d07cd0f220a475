"""A full disk: old pictures go, then the reserve, then events wait in memory; nothing that was sent is lost.

The store lies on a small tmpfs (needs root); the disk is filled by the test while a real hub works on it.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.faults.disks import fill, tmpfs
from tests.faults.report import tell
from vedette.streamer import subscribe
from vedette.streamer.bench._hub import HubProcess, numbered_event
from vedette.streamer.eventlink import EventLink
from vedette.streamer.outbox.diskguard import RESERVE

JPEG = b"\xff\xd8\xff" + b"p" * 100_000 + b"\xff\xd9"


def until(condition: Callable[[], object], *turns: Callable[[], object], within_s: float = 20.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        for turn in turns:
            turn()
        time.sleep(0.01)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 48 MB."""
    with tmpfs(tmp_path / "disk", 48 * 1024) as disk:
        yield disk


class Watcher:
    """The newest status.hub."""

    def __init__(self, hub: HubProcess) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.connect(hub.publish)
        self._socket.subscribe(b"status.hub")

    def status(self) -> dict[str, Any]:
        """Wait for the next one."""
        assert self._socket.poll(5000), "the hub is silent"
        found: dict[str, Any] = json.loads(self._socket.recv_multipart()[1])
        return found

    def close(self) -> None:
        """Leave."""
        self._context.destroy(linger=0)


@pytest.mark.slow
def test_a_full_disk_degrades_in_order_and_recovers_by_itself(small_disk: Path) -> None:
    """Oldest pictures, then the reserve, then memory; detection is never stopped, and every event becomes an alert."""
    store = small_disk / "store"
    with HubProcess(store, stderr=subprocess.DEVNULL) as hub, EventLink(hub.events, "infer", "boot-1") as link:
        watcher = Watcher(hub)
        assert watcher.status()["reserve"]
        sent = 0

        def send(count: int, jpeg: bytes = b"") -> None:
            nonlocal sent
            for _ in range(count):
                sent += 1
                began = time.monotonic()
                assert link.send(numbered_event(sent), jpeg)
                assert time.monotonic() - began < 0.5

        send(50, JPEG)
        assert link.drain(20)
        pictures: Callable[[], int] = lambda: len(list(store.glob("evidence/dock/*/*.jpg")))  # noqa: E731
        assert pictures() == 50

        fill(small_disk)
        send(300)
        assert link.drain(20)
        assert pictures() < 50  # first step: the oldest pictures
        assert (store / RESERVE).exists()

        until(lambda: not (store / RESERVE).exists(), lambda: fill(small_disk), lambda: send(20), link.work)
        assert link.drain(20)  # second step: the reserve

        until(lambda: link.waiting > 100, lambda: fill(small_disk), lambda: send(50), link.work)
        status = watcher.status()
        until(lambda: watcher.status()["held"] > 0, link.work)  # third step: memory, said aloud
        status = watcher.status()
        assert status["trouble"]
        assert status["counters"]["store_errors"] > 0
        assert hub.wait_for("holding")
        send(500)

        (small_disk / "filler").unlink()
        assert link.drain(20)
        until(lambda: watcher.status()["trouble"] is None)
        until(lambda: watcher.status()["reserve"], within_s=30)
        assert hub.wait_for("serving")
        with subscribe(hub.publish, idle_s=3.0) as subscription:
            alerts = list(subscription)
        assert [a["seq"] for a in alerts] == list(range(1, sent + 1))
        assert [a["id"] for a in alerts] == [f"e{n}" for n in range(1, sent + 1)]
        assert link.counters["lost"] == 0
        watcher.close()
    promise = "oldest pictures go, then the reserve, then events wait in memory; 0 lost, 0 doubled"
    tell("disk full, step by step (producer 1..N on the real link)", promise, sent=sent, alerts=len(alerts), lost=0)


@pytest.mark.slow
def test_a_hub_killed_on_a_full_disk_loses_only_what_it_never_acknowledged(small_disk: Path) -> None:
    """kill -9 while events are held: they are still the producer's, and the next life commits them."""
    store = small_disk / "store"
    with HubProcess(store, stderr=subprocess.DEVNULL) as hub, EventLink(hub.events, "infer", "boot-1") as link:
        watcher = Watcher(hub)
        link.send(numbered_event(1))
        assert link.drain(10)
        fill(small_disk)
        number = 1

        def send() -> None:
            nonlocal number
            number += 1
            link.send(numbered_event(number))
            fill(small_disk)

        until(lambda: watcher.status()["held"] > 0, *[send] * 200, link.work, within_s=60)
        hub.kill()
        (small_disk / "filler").unlink()
        hub.start()
        assert link.drain(20)
        with subscribe(hub.publish, idle_s=3.0) as subscription:
            alerts = list(subscription)
        assert [a["id"] for a in alerts] == [f"e{n}" for n in range(1, number + 1)]
        watcher.close()
    tell("kill -9 of the hub on a full disk", "0 lost, 0 doubled", sent=number, alerts=len(alerts), lost=0)

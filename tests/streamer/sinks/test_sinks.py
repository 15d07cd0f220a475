"""Sinks: each goes on where it stopped, alone, whatever the other end does. Real files, real HTTP, real hubs."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

from tests.streamer.sinks.sink_ends import Receiver, commit, numbers, start, until
from vedette.streamer.bench._hub import HubProcess, numbered_event
from vedette.streamer.eventlink import EventLink
from vedette.streamer.outbox.store import Outbox
from vedette.streamer.sinks import KINDS
from vedette.streamer.sinks.cursor import Cursor
from vedette.streamer.sinks.jsonl import JsonlConfig


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

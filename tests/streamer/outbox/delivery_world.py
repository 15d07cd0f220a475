"""A small world for the delivery proof: the real hub, outbox, links, desk and subscriptions on a network of queues.

Everything that decides about delivery is the product's own code on a real SQLite store. Only sockets and clocks are
replaced, by ones that behave as ZeroMQ does when processes die - what a dead process had not read is gone, what a dead
producer had sent may still arrive, PUB loses what it likes - but in an order that hypothesis chooses and can repeat.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.streamer.outbox.delivery_models import ModelHub, ModelSubscription, Plant
from tests.streamer.outbox.delivery_wire import Clock, Crash, FakeContext, FakeSocket, Key, Parts, Wire
from vedette.streamer.bench._hub import numbered_event
from vedette.streamer.bus.mailbox import Snapshot
from vedette.streamer.client import Gap
from vedette.streamer.hub.replay import answer
from vedette.streamer.outbox.reader import OutboxReader
from vedette.streamer.wire import encode

JPEG = b"\xff\xd8\xff picture \xff\xd9"


class Producer:
    """infer or the supervisor: one life after the other."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.lives = world, name, 0
        self.begin()

    def begin(self) -> None:
        """A new life."""
        self.lives += 1
        self.boot = f"{self.name}-{self.lives}"
        self.wire = Wire(self.world, self.boot.encode())
        self.world.wires.append(self.wire)
        context: Any = FakeContext(self.wire.socket)
        self.link = self.world.plant.link("ipc://events", self.name, self.boot, context=context)
        self.link.on_ack = self.world.acked.add
        self.cuts: list[tuple[str, str, int]] = []
        self.desk = self.world.plant.desk(
            lambda camera, key, mono_ns, _: self.cuts.append((camera, key, mono_ns)), self.link.send
        )
        self.raised: list[Any] = []
        self.world.raised[self.boot] = self.raised
        self.open: list[Any] = []
        self.ended: list[Any] = []

    def happen(self, camera: str, what: str, picture: bool) -> None:
        """Raise an event: a start, the next telling of an open incident, or a late clip of an ended one."""
        source = {"start": [], "late": self.ended}.get(what, self.open)
        if source:
            before = source.pop(0)
            number, rev, camera = int(before.id[1:]), before.rev + 1, before.camera
            phase: Any = "end" if what == "end" else "update"
        else:
            self.world.events += 1
            number, rev, phase = self.world.events, 0, "start"
        event = numbered_event(number, camera=camera, phase=phase, rev=rev, producer=self.name, boot=self.boot)
        (self.ended if phase == "end" or (rev and what == "late") else self.open).append(event)
        self.raised.append(event)
        self.desk.put(event, self.world.clock.now_s, picture=picture)

    def snapshot(self, found: bool) -> None:
        """A picture that was asked for comes, or word that it is gone."""
        if self.cuts:
            camera, key, mono_ns = self.cuts.pop(0)
            self.desk.take(Snapshot(camera, key, mono_ns, JPEG if found else None))

    def work(self) -> None:
        """A turn of its loop."""
        self.desk.work(self.world.clock.now_s)
        self.link.work()

    def die(self, arrives: int) -> None:
        """Killed: of what was on its way so much still arrives; a new life begins."""
        self.wire.alive = False
        while len(self.wire.up) > arrives:
            self.wire.up.pop()
        self.begin()


@dataclass
class Reader:
    """A subscriber that keeps what it handled and its cursor in one place, and may die before it saved them."""

    camera: str | None
    subscription: ModelSubscription
    handled: list[dict[str, Any]] = field(default_factory=list)
    unsaved: list[dict[str, Any]] = field(default_factory=list)
    gaps: set[Gap] = field(default_factory=set)
    cursor: int = 0
    stream: str | None = None

    def read(self, count: int, wait_s: float, *, save: bool) -> None:
        """Handle up to so many alerts."""
        for _ in range(count):
            alert = self.subscription.next(wait_s)
            if alert is None:
                break
            self.unsaved.append(alert)
        if save:
            self.handled += self.unsaved
            self.unsaved = []
            self.cursor, self.stream = self.subscription.cursor or 0, self.subscription.stream


class World:
    """Everything, and what an outsider knows about it. crash_at: where the hub dies in this turn."""

    def __init__(self, store: Path, plant: Plant, cameras: tuple[str | None, ...] = (None, "dock")) -> None:
        self.store, self.plant, self.clock = store, plant, Clock()
        store.mkdir()
        self.hub: ModelHub | None = None
        self.hub_lives = self.events = self.floor = 0
        self.crash_at: str | None = None
        self.publish_left = -1
        self.disk_full = False
        self.loss: deque[bool] = deque([False])
        self.wires: list[Wire] = []
        self.acked: set[Key] = set()
        self.raised: dict[str, list[Any]] = {}
        self.committed: list[dict[str, Any]] = []
        self.relieved = 0
        self.sockets: list[tuple[bytes, FakeSocket]] = []
        self.readers: list[Reader] = []
        self.start_hub()
        self.reader = OutboxReader(store)
        self.producers = [Producer(self, "infer"), Producer(self, "supervisor")]
        for camera in cameras:
            self.readers.append(Reader(camera, self.subscribe(camera, 0, None)))
            self.readers[-1].subscription._on_gap = self.readers[-1].gaps.add

    # faults

    def point(self, name: str) -> None:
        """The hub dies here when this is the place."""
        if self.crash_at == name:
            raise Crash(name)

    def start_hub(self) -> None:
        """A hub on the store as it is."""
        self.hub = self.plant.hub(self)

    def crash_hub(self, heard: int) -> None:
        """The hub is gone: with it what it had not read, and all but ``heard`` of what each subscriber had not."""
        if self.hub is None:
            return
        self.relieved += self.hub._guard.pictures_deleted
        self.hub.close()  # after a crash before COMMIT nothing is left of the transaction
        self.hub = None
        for wire in self.wires:
            wire.up.clear()
        self.wires = [wire for wire in self.wires if wire.alive]
        for _, socket in self.sockets:
            while len(socket.inbox) > heard:
                socket.inbox.pop()

    # the network

    def broadcast(self, parts: Parts) -> None:
        """PUB."""
        if parts[0].startswith(b"alert."):
            self.publish_left -= 1
            if self.publish_left == -1 and self.crash_at == "publish":
                raise Crash("publish")
        for prefix, socket in self.sockets:
            self.loss.rotate(-1)
            if (parts[0].startswith(prefix) or parts[0] == b"status.hub") and not self.loss[0]:
                socket.inbox.append(parts)

    def answer(self, parts: Parts) -> None:
        """ROUTER to a producer."""
        for wire in self.wires:
            if wire.alive and wire.name == parts[0]:
                wire.socket.inbox.append(parts[1:])

    def ask(self, raw: bytes, asker: FakeSocket) -> None:
        """A replay request; nobody answers while there is no hub."""
        if self.hub is not None:
            asker.inbox.append([answer(self.reader, raw)[0]])

    def subscribe(self, camera: str | None, since: int, stream: str | None) -> ModelSubscription:
        """A new life of a subscriber."""
        made = type("T", (self.plant.subscription,), {"world": self})(
            "pub",
            replay="rep",
            since=since,
            camera=camera,
            stream=stream,
            new_stream="raise",
            on_gap=None,
            idle_s=None,
        )
        self.sockets.append((f"alert.{camera}.".encode() if camera else b"alert.", made._sub))
        return made

    # what happens

    def hub_turn(self, take: int, loss: list[bool], crash_at: str | None = None, publish: int = 0) -> None:
        """The hub takes so many messages of each connection, commits, acknowledges, publishes - or dies on the way."""
        if self.hub is None:
            return
        events: Any = self.hub._events
        for wire in self.wires:
            for _ in range(min(take, len(wire.up))):
                events.inbox.append([wire.name, *wire.up.popleft()])
        self.loss, self.crash_at, self.publish_left = deque(loss or [False]), crash_at, publish
        try:
            self.hub.turn()
        except Crash:
            self.crash_at = None
            self.crash_hub(publish)
        finally:
            self.crash_at = None
            self.loss = deque([False])
            self.observe()

    def observe(self) -> None:
        """Write down what is in the store and was not seen before."""
        page = self.reader.page(self.committed[-1]["seq"] if self.committed else 0)
        self.committed += [json.loads(alert.body) for alert in page.alerts]

    def tell_status(self) -> None:
        """status.hub."""
        if self.hub is not None:
            self.broadcast([b"status.hub", encode(self.hub.state.status())])

    def retain(self, newest: int) -> None:
        """Retention removes all but the newest, as far as nobody will send them again: it removes days, not seconds."""
        if self.hub is None or self.disk_full:
            return
        for producer in self.producers:
            producer.work()  # it hears what is committed
        waiting = {key for wire in self.wires for key in wire.sent()}
        waiting |= {key for producer in self.producers for key in producer.link._waiting}
        seq = 0
        for alert in self.committed[: max(0, len(self.committed) - newest)]:
            if (alert["id"], alert["rev"]) in waiting:
                break
            seq = alert["seq"]
        if seq > self.floor:
            self.hub._outbox.remove_through(seq)
            self.floor = seq

    def reader_dies(self, index: int) -> None:
        """A subscriber begins again from what it had saved."""
        reader = self.readers[index]
        self.sockets = [(p, s) for p, s in self.sockets if s is not reader.subscription._sub]
        reader.subscription.__exit__()
        reader.unsaved = []
        reader.subscription = self.subscribe(reader.camera, reader.cursor, reader.stream)
        reader.subscription._on_gap = reader.gaps.add

    def settle(self) -> None:
        """No more faults: everything that lives is delivered."""
        self.disk_full = False
        if self.hub is None:
            self.start_hub()
        assert self.hub is not None
        for _ in range(60):
            self.clock.advance(0.3)
            for producer in self.producers:
                producer.work()
            self.hub._retry_s = 0.0
            self.hub_turn(1000, [])
            idle = all(p.link.waiting == 0 and len(p.desk) == 0 and p.link.hub_boot for p in self.producers)
            if idle and not any(wire.up for wire in self.wires):
                break
        self.relieved += self.hub._guard.pictures_deleted  # a full disk costs the oldest pictures
        for _ in range(20):
            self.tell_status()
            for reader in self.readers:
                reader.read(10_000, 0.3, save=True)

    def close(self) -> None:
        """Leave nothing behind."""
        for reader in self.readers:
            reader.subscription.__exit__()
        self.reader.close()
        self.crash_hub(0)

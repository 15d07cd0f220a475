"""The product's own hub, store and subscription, on fake sockets, that may die where a test says; and what may be planted."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import zmq

from tests.streamer.outbox.delivery_wire import FakeContext, FakeSocket
from vedette.streamer.client import Subscription
from vedette.streamer.config import Config
from vedette.streamer.eventlink import EventLink
from vedette.streamer.hub.publisher import Publisher
from vedette.streamer.hub.pulse import Pulse
from vedette.streamer.hub.role import Hub
from vedette.streamer.hub.state import HubState
from vedette.streamer.infer.snapshotdesk import SnapshotDesk
from vedette.streamer.outbox.committer import Committer
from vedette.streamer.outbox.diskguard import DiskGuard
from vedette.streamer.outbox.snapshots import Snapshots
from vedette.streamer.outbox.store import Outbox

if TYPE_CHECKING:
    from tests.streamer.outbox.delivery_world import World


class ModelOutbox(Outbox):
    """The real outbox, which may meet a full disk or the end of its process around COMMIT."""

    world: World
    opening = False

    def _open(self) -> None:
        self.opening = True  # it writes nothing then, when the tables are there
        super()._open()
        self.opening = False

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with super()._transaction():
            yield
            if self.opening:
                return
            if self.world.disk_full:
                full = sqlite3.OperationalError("database or disk is full")
                full.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise full
            self.world.point("before_commit")
        if not self.opening:
            self.world.point("after_commit")


class ModelSnapshots(Snapshots):
    """The real pictures; the process may end after they are written."""

    world: World

    def write_all(self, wanted: Any) -> Any:
        """Write, perhaps die."""
        done = super().write_all(wanted)
        self.world.point("after_pictures")
        return done


class ModelHub(Hub):
    """The real hub on fake sockets."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.hub_lives += 1
        config = Config.model_validate({"version": 1, "site": "yard", "cameras": {}, "http": {"listen": None}})
        life: Any = SimpleNamespace(config=config, setup=SimpleNamespace(boot=f"hub-{world.hub_lives}"))
        super().__init__(life)

    def _open(self, _store: Path) -> None:
        world, plant = self.world, self.world.plant
        outbox_class = type("O", (plant.outbox,), {"world": world})
        snapshots_class = type("S", (ModelSnapshots,), {"world": world})
        self._outbox = outbox_class(world.store, site="yard")
        self._stack.callback(self._outbox.close)
        self._guard = DiskGuard(world.store, reserve_bytes=4096)
        self._pulse = Pulse(lambda *_, **__: None, 1.0)
        self._committer = Committer(self._outbox, snapshots_class(world.store), self._guard, self.counters)
        self._publisher = Publisher(FakeContext(FakeSocket(world.broadcast)))  # type: ignore[arg-type]
        self._events = FakeSocket(world.answer)  # type: ignore[assignment]
        life = self._life
        self.state = HubState(
            life.config, life.setup.boot, self._outbox, self._committer, self._guard, self.counters, self._publisher
        )

    def _acknowledge(self, arrivals: Any) -> None:
        super()._acknowledge(arrivals)
        self.world.point("after_ack")

    def turn(self) -> None:
        """The part of its loop that matters here."""
        self.take_events()
        self._commit()


class ModelSubscription(Subscription):
    """The real subscription on fake sockets."""

    world: World

    def _connect(self, kind: int, _endpoint: str) -> Any:
        if kind == zmq.SUB:
            return FakeSocket()
        asker = FakeSocket()
        asker._send = lambda parts: self.world.ask(parts[0], asker)
        return asker

    def _turn(self, wait_s: float) -> None:
        if self._behind:
            self._ask()
        for socket, take in ((self._asker, self._take_reply), (self._sub, self._take_live)):
            if isinstance(socket, FakeSocket) and socket.inbox:
                return take(socket.inbox.popleft())
        self.world.clock.advance(wait_s)
        return None


@dataclass(frozen=True)
class Plant:
    """The classes under test; a planted bug replaces one of them."""

    outbox: type[Outbox] = ModelOutbox
    hub: type[ModelHub] = ModelHub
    link: type[EventLink] = EventLink
    desk: type[SnapshotDesk] = SnapshotDesk
    subscription: type[ModelSubscription] = ModelSubscription

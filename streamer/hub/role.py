"""The hub process: every event becomes a committed alert, and everyone who should hears of it.

One loop, one writer: receive events, commit them together, acknowledge, publish; pass telemetry on; say once a
second how it stands. Replay, sinks and HTTP live in threads that only read the store.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import IO

import zmq

from vedette.streamer.alert import check_event
from vedette.streamer.endpoint import bind
from vedette.streamer.errors import StoreError, WireError
from vedette.streamer.filelock import locked
from vedette.streamer.hub.memorywatch import MemoryWatch
from vedette.streamer.hub.publisher import Publisher
from vedette.streamer.hub.pulse import Pulse
from vedette.streamer.hub.replay import ReplayServer
from vedette.streamer.hub.retention import Retention
from vedette.streamer.hub.state import HubState
from vedette.streamer.keys.door import Doors
from vedette.streamer.keys.doorman import Doorman
from vedette.streamer.keys.folder import KeyFolder
from vedette.streamer.multipart import receive_now
from vedette.streamer.outbox.committer import Arrival, Committer, Greeting
from vedette.streamer.outbox.diskguard import DiskGuard
from vedette.streamer.outbox.records import Outcome
from vedette.streamer.outbox.snapshots import Snapshots
from vedette.streamer.outbox.store import Outbox
from vedette.streamer.sinks.runner import SinkRunner
from vedette.streamer.wire import EVENTS, MAX_JPEG, MAX_JSON, TELEMETRY, decode, encode, ipc, parse_event
from vedette.streamer.worker import SILENCE_S, Life

log = logging.getLogger("vedette.hub")

LOCK = "hub.lock"
#: Seconds to wait for a hub that is just dying to let go of the store.
LOCK_WAIT_S = 2.0
#: Events taken into one transaction; raising it makes bursts cheaper and the first of them later.
GROUP = 512
#: Bytes taken into one transaction.
GROUP_BYTES = 32 * 1024 * 1024
#: Telemetry messages passed on between two looks at the events.
TELEMETRY_GROUP = 256
STATUS_S = 1.0
#: Seconds between looks at what is old or too much; a look that found something is followed by the next at once.
SWEEP_S = 10.0
#: How long the loop may wait for the disk before the hub counts as hung; hanging anywhere else, SILENCE_S.
SLOW_DISK_S = 30.0
#: Seconds between tries to commit what is held.
RETRY_S = 0.5
#: At the end: how long the events link must be quiet, and how long that may take.
QUIET_S, LAST_CALL_S = 0.1, 0.6


def lock_store(store: Path, *, wait_s: float = LOCK_WAIT_S) -> IO[str]:
    """Hold the store for this hub alone until the file is closed or the process dies. Raises StoreError."""
    file = None
    try:
        store.mkdir(parents=True, exist_ok=True, mode=0o750)
        file = (store / LOCK).open("a+")
        if locked(file.fileno(), wait_s):
            return file
    except OSError as error:
        if file is not None:
            file.close()
        raise StoreError(f"alerts.store: cannot be used, got {str(store)!r}: {error}; make it writable") from error
    file.close()
    raise StoreError(f"alerts.store: another hub holds it, got {str(store)!r}; stop that one or use another store")


class Hub:
    """The writer's loop. Everything it owns is opened in `__init__` and closed in `close`, in reverse."""

    def __init__(self, life: Life) -> None:
        """Open the store and bind every address. Raises StoreError and ConfigError (exit 2)."""
        self._life = life
        self.counters: Counter[str] = Counter()
        self._born_ns: dict[str, int] = {}
        self._next_status_s = self._next_sweep_s = self._retry_s = 0.0
        self._stack = contextlib.ExitStack()
        try:
            self._open(Path(life.config.alerts.store))
        except BaseException:
            self._stack.close()
            raise

    def _open(self, store: Path) -> None:
        life, alerts, closing = self._life, self._life.config.alerts, self._stack.callback
        closing(lock_store(store).close)
        self._outbox = Outbox(store, site=life.config.site)
        closing(self._outbox.close)
        self._guard = DiskGuard(store)
        self._committer = Committer(self._outbox, Snapshots(store), self._guard, self.counters)
        self._retention = Retention(self._outbox, store, alerts.retention)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        closing(self._context.term)
        self._doors, self._memory = Doors(), MemoryWatch()
        self._pulse = Pulse(life.beat, SLOW_DISK_S - SILENCE_S)
        closing(self._pulse.stop)
        if alerts.curve is not None:
            keys = KeyFolder(Path(alerts.curve.keys))
            closing(Doorman(self._context, keys, self._doors, self.counters).stop)
        self._publisher = Publisher(self._context)
        closing(self._publisher.close)
        self._publisher.bind(alerts.publish, self._doors)
        self._replay = ReplayServer(self._context, alerts.replay, store, self.counters, self._doors)
        closing(self._replay.stop)
        self._events = self._open_events()
        self._telemetry = self._open_telemetry()
        self.state = HubState(
            life.config, life.setup.boot, self._outbox, self._committer, self._guard, self.counters, self._publisher
        )
        self.state.replay_endpoint = self._replay.endpoint
        for config in alerts.sinks:
            self.state.sinks.append(SinkRunner(config, store, life.config.site))
            closing(self.state.sinks[-1].stop)
        self.state.on_commit.append(self._wake_sinks)
        if life.config.http.listen:
            from vedette.streamer.hub.http import HttpServer  # half of the start-up time, for those who want it

            http = HttpServer(life.config.http.listen, self.state, store)
            closing(http.stop)
            self.state.http = http.address

    def _open_events(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.ROUTER)
        self._stack.callback(socket.close)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a restarted producer takes its name over at once
        socket.setsockopt(zmq.LINGER, 200)
        socket.setsockopt(zmq.SNDHWM, 0)  # acks, never more than were sent to us
        socket.setsockopt(zmq.RCVHWM, 1000)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_JPEG + 1)
        bind(socket, ipc(self._life.run_dir, EVENTS), "events link")
        return socket

    def _open_telemetry(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.PULL)
        self._stack.callback(socket.close)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, 1000)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_JSON)
        bind(socket, ipc(self._life.run_dir, TELEMETRY), "telemetry link")
        return socket

    def serve(self) -> None:
        """Work until told to stop, then take what is still on the way."""
        poller = zmq.Poller()
        poller.register(self._events, zmq.POLLIN)
        poller.register(self._telemetry, zmq.POLLIN)
        log.info("stream %s, last alert %d", self._outbox.stream, self._outbox.last_seq)
        self._pulse.start()
        while not self._life.stopping.is_set():
            poller.poll(100)
            self.step()
        self._last_call()

    def step(self) -> None:
        """One turn of the loop: never blocks for anything but the disk."""
        self.take_events()
        self._commit()
        self._pass_telemetry()
        self._publisher.tend()
        now_s = time.monotonic()
        self._tidy(now_s)
        if now_s >= self._next_status_s:
            self._next_status_s = now_s + STATUS_S
            with self._pulse.disk():
                status = self.state.status()
            self._publisher.send("status.hub", encode(status))
            if self._memory.flooded(now_s):
                self.counters["floods"] += 1
                self._doors.clear("memory grew too fast; a peer sends without end, or many do not read")
        self._pulse.turn(
            "holding" if self._committer.trouble else "serving",
            last_seq=self._outbox.last_seq,
            held=self._committer.held,
        )
        self.state.turned_s = now_s

    def _tidy(self, now_s: float) -> None:
        """Retention, a step at a time, while the disk takes it; the reserve when there is room again."""
        if now_s < self._next_sweep_s:
            return
        try:
            with self._pulse.disk():
                self._guard.maintain()
                more = self._committer.trouble is None and self._retention.step()
        except (sqlite3.Error, OSError) as error:
            log.error("retention could not work: %s", error)
            more = False
        self._next_sweep_s = now_s + (0.0 if more else SWEEP_S)

    def _wake_sinks(self, outcome: Outcome) -> None:
        for sink in self.state.sinks:
            sink.wake(outcome.stored[-1].seq)

    def take_events(self) -> int:
        """Move what waits on the events link into the committer; how many messages that were."""
        taken = size = 0
        while taken < GROUP and size < GROUP_BYTES:
            message = receive_now(self._events)
            if message is None:
                break
            taken += 1
            size += sum(map(len, message))
            try:
                self._take(message)
            except (WireError, ValueError, KeyError, TypeError) as error:
                self.counters["malformed_events"] += 1
                if self.counters["malformed_events"] == 1:
                    log.warning("a malformed message came over the events link: %.200s", error)
        return taken

    def _take(self, message: list[bytes]) -> None:
        sender, kind, raw, *blobs = message
        if kind == b"hello":
            hello = decode(raw)
            producer, boot = hello["producer"], hello["boot"]
            if not (isinstance(producer, str) and isinstance(boot, str) and len(producer) <= 256 and len(boot) <= 256):
                raise WireError("hello: producer and boot need to be short strings")
            born_ns = int(hello.get("born_ns", 0))
            if born_ns < self._born_ns.get(producer, 0):
                return  # while the hub hung, a life died whose hello is read after its heir's
            self._born_ns[producer] = born_ns
            if self.state.boots.get(producer) != boot:
                self.state.boots[producer] = boot
                self._committer.offer(Greeting(producer, boot))
            self._answer(sender, b"hello", {"boot": self._life.setup.boot})
        elif kind == b"event":
            if len(blobs) > 2:
                raise WireError(f"event: takes a picture and the boot of its hub, got {len(blobs)} parts more")
            if len(blobs) == 2 and blobs[1] != self._life.setup.boot.encode():
                # meant for my predecessor, with whom earlier events died: told of me, the producer sends all in order
                self._answer(sender, b"hello", {"boot": self._life.setup.boot})
                return
            try:
                event = check_event(parse_event(raw))
            except WireError as error:
                self._refuse(sender, raw, str(error))
                raise
            self._committer.offer(Arrival(event, blobs[0] if blobs else b"", sender))
        else:
            raise WireError(f"events link: unknown kind {kind!r:.40}")

    def _refuse(self, sender: bytes, raw: bytes, why: str) -> None:
        """Tell a producer that an event can never be committed, when the event says which one it is."""
        wrong = decode(raw)
        key = {"id": wrong.get("id"), "rev": wrong.get("rev")}
        if isinstance(key["id"], str) and isinstance(key["rev"], int):
            self._answer(sender, b"refuse", {**key, "why": why[:200]})

    def _answer(self, sender: bytes, kind: bytes, message: dict[str, object]) -> None:
        self._events.send_multipart([sender, kind, encode(message)], zmq.NOBLOCK)

    def _commit(self) -> None:
        if self._committer.trouble is not None:
            now_s = time.monotonic()
            if now_s < self._retry_s:
                return
            self._retry_s = now_s + RETRY_S
        with self._pulse.disk():
            outcome, arrivals = self._committer.commit()
        self._acknowledge(arrivals)
        if outcome.stored:
            self._tell(outcome)

    def _acknowledge(self, arrivals: list[Arrival]) -> None:
        keys: dict[bytes, list[tuple[str, int]]] = {}
        for arrival in arrivals:
            keys.setdefault(arrival.sender, []).append(arrival.key)
        for sender, mine in keys.items():
            for first in range(0, len(mine), GROUP):
                self._answer(sender, b"acks", {"keys": mine[first : first + GROUP]})

    def _tell(self, outcome: Outcome) -> None:
        self._publisher.publish(outcome.stored)
        self.state.committed(outcome)

    def _pass_telemetry(self) -> None:
        for _ in range(TELEMETRY_GROUP):
            message = receive_now(self._telemetry)
            if message is None:
                return
            try:
                topic, body = self.state.telemetry(message)
            except (WireError, ValueError) as error:
                self.counters["malformed_telemetry"] += 1
                if self.counters["malformed_telemetry"] == 1:
                    log.warning("malformed telemetry: %.200s", error)
                continue
            if topic != "process":
                self._publisher.send(topic, body)

    def _last_call(self) -> None:
        """Producers stop before the hub does; commit what they sent last."""
        deadline = time.monotonic() + LAST_CALL_S
        quiet_since = time.monotonic()
        while (now_s := time.monotonic()) < deadline and now_s - quiet_since < QUIET_S:
            if self.take_events():
                quiet_since = time.monotonic()
            self._retry_s = 0.0
            self._commit()
            self._events.poll(50)
        for sink in self.state.sinks:
            sink.ask_to_stop()
        if self._committer.held:
            log.error("stopped with %d events that the disk did not take", self._committer.held)

    def close(self) -> None:
        """Close in reverse order of opening."""
        self._stack.close()


def run(life: Life) -> int:
    """Role entry. Returns 0 when told to stop. Raises StoreError or ConfigError when it cannot begin (exit 2)."""
    os.umask(0o027)
    hub = Hub(life)
    try:
        hub.serve()
    finally:
        hub.close()
    return 0

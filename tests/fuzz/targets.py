"""What is fuzzed: for each door through which bytes come in, the product's own code behind it.

A target's ``run`` takes bytes and returns a word about what became of them. It may raise nothing: what the product
documents as its answer to bad input is caught here, by name; every other exception is a crash.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol
from unittest import mock

import jsonschema

from tests.streamer.outbox.delivery_models import ModelSubscription, Plant
from tests.streamer.outbox.delivery_wire import Clock, FakeContext, FakeSocket
from tests.streamer.outbox.delivery_world import World
from vedette.engines import load
from vedette.engines.api import EngineFault
from vedette.engines.temporal_spec import spec_from_json
from vedette.streamer import client
from vedette.streamer.alert import alert_schema
from vedette.streamer.bench._hub import numbered_event
from vedette.streamer.bus.reader import FrameReader
from vedette.streamer.config.load import load_config
from vedette.streamer.errors import ConfigError, WireError
from vedette.streamer.eventlink import EventLink
from vedette.streamer.hub.http import HttpServer
from vedette.streamer.hub.http.tokens import Scope
from vedette.streamer.hub.http.views import cameras, health, processes, readiness
from vedette.streamer.hub.metrics import Metrics
from vedette.streamer.hub.replay import answer
from vedette.streamer.offline.motchallenge import read_frames, read_seqinfo
from vedette.streamer.supervisor.child import Child
from vedette.streamer.wire import encode

#: Parts of a message, and files of a set, are separated by this in an input.
BETWEEN = b"\n--\n"


class Target(Protocol):
    """One door."""

    def run(self, data: bytes) -> str:
        """Put the bytes in; a word about what happened."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...


class _HubTarget:
    """Has a hub on a store of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stores = folder, 0
        self._open()

    def _open(self) -> None:
        self._stores += 1
        self.world = World(self._folder / f"store-{self._stores}", Plant(), cameras=())
        assert self.world.hub is not None
        self.hub = self.world.hub

    def close(self) -> None:
        """Close the store."""
        self.world.close()


class Events(_HubTarget):
    """``events.sock``: whatever a producer sends, what is committed keeps the alert schema and seq has no hole."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._schema = jsonschema.Draft202012Validator(alert_schema())

    def run(self, data: bytes) -> str:
        """A message of several parts."""
        events: Any = self.hub._events
        before, last_seq = dict(self.hub.counters), self.hub._outbox.last_seq
        events.inbox.append([b"infer", *data.split(BETWEEN)])
        self.hub.take_events()
        self.hub._commit()
        for number, alert in enumerate(self.world.reader.page(last_seq).alerts, last_seq + 1):
            value = json.loads(alert.body)
            assert value["seq"] == number == alert.seq, "seq has a hole"
            self._schema.validate(value)
        if self.hub._outbox.last_seq > 3000:
            self.close()
            self._open()
        return " ".join(sorted(key for key, count in self.hub.counters.items() if count != before.get(key)))


class Telemetry(_HubTarget):
    """``telemetry.sock``: what was accepted can be told by status, metrics and every view of the HTTP API."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._metrics = Metrics(self.hub.state)

    def run(self, data: bytes) -> str:
        """Topic and JSON."""
        state, scope = self.hub.state, Scope(None)
        try:
            topic, _ = state.telemetry(data.split(BETWEEN))
        except WireError:
            return "refused"
        encode(state.status())
        views = (processes(state, scope), cameras(state, scope), health(state), readiness(state))
        json.dumps(views, allow_nan=False)
        self._metrics.scrape()
        return topic.partition(".")[0]


class Frames:
    """``frames.sock`` at infer's end: a capture process that lies."""

    def __init__(self, folder: Path) -> None:
        run_dir = folder / "r"
        run_dir.mkdir()
        self._reader = FrameReader(run_dir, "boot-1")

    def run(self, data: bytes) -> str:
        """Camera, kind, JSON, blobs."""
        before = dict(self._reader.drops)
        self._reader._receive(self._reader._local, data.split(BETWEEN))
        leases = self._reader.take(8, 0.0)
        for lease in leases:
            lease.release()
        self._reader.snapshots.clear()
        dropped = {key[1] for key, count in self._reader.drops.items() if count != before.get(key)}
        return f"{len(leases)} {sorted(dropped)}"

    def close(self) -> None:
        """Unbind."""
        self._reader.close()


class Acks:
    """``events.sock`` at the producer's end: a hub that lies."""

    def __init__(self, _folder: Path) -> None:
        self._socket, self._sent = FakeSocket(), 0
        context: Any = FakeContext(self._socket)
        self._link = EventLink("ipc://x", "infer", "b", context=context)

    def run(self, data: bytes) -> str:
        """Kind and JSON."""
        before = dict(self._link.counters)
        if self._link.waiting < 3:
            self._link.send(numbered_event(self._sent % 3))
            self._sent += 1
        self._socket.inbox.append(data.split(BETWEEN))
        self._link.work()
        return " ".join(sorted(key for key, count in self._link.counters.items() if count != before.get(key)))

    def close(self) -> None:
        """Nothing to close."""


class Subscriber:
    """A hub, or somebody in between, that lies to a subscriber. The first part says which socket it comes from."""

    def __init__(self, _folder: Path) -> None:
        self._made, self._clock = 0, Clock()
        self._patch = mock.patch.object(client, "time", self._clock)
        self._patch.start()
        self._open()

    def _open(self) -> None:
        self._made += 1
        world = SimpleNamespace(clock=self._clock, ask=lambda *_: None)
        made = type("T", (ModelSubscription,), {"world": world})
        self._subscription = made(
            "pub", replay="rep", since=0, camera="dock" if self._made % 2 else None, stream=None,
            new_stream="follow", on_gap=None, idle_s=None,
        )  # fmt: skip

    def run(self, data: bytes) -> str:
        """Live, or the answer to the newest question; then everything that is ready is read."""
        road, *parts = data.split(BETWEEN)
        sub: Any = self._subscription
        before = sub.malformed, sub.duplicates, sub.replays, len(sub.gaps), sub.stream
        if road == b"reply":
            sub._behind, sub._asked_s, sub._retry_s = True, None, 0.0
            sub._ask()
            parts = [part.replace(b'"REQUEST"', json.dumps(str(sub._request)).encode()) for part in parts]
            sub._asker.inbox.append(parts or [b""])
        else:
            sub._sub.inbox.append(parts or [b""])
        given = 0
        while sub.next(0.1) is not None:
            given += 1
        after = sub.malformed, sub.duplicates, sub.replays, len(sub.gaps), sub.stream
        if given > 100 or (sub.cursor or 0) > 10_000:
            sub.__exit__()
            self._open()
        return f"{min(given, 3)} {[one != other for one, other in zip(before, after, strict=True)]} {sub._behind}"

    def close(self) -> None:
        """Hang up."""
        self._patch.stop()
        self._subscription.__exit__()


class Replay(_HubTarget):
    """The replay ROUTER: every request gets a page of at most what was asked for, or an error."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for number in range(20):
            event = encode(numbered_event(number, camera=("dock", "gate")[number % 2]))
            events: Any = self.hub._events
            events.inbox.append([b"infer", b"event", event])
        self.hub.turn()

    def run(self, data: bytes) -> str:
        """A request."""
        reply, right = answer(self.world.reader, data)
        value = json.loads(reply)
        assert ("alerts" in value) is right
        return f"{right} {len(value.get('alerts', ()))} {value.get('error', '')[:30]}"


class ConfigFile:
    """A configuration file: it is valid, or every fault has a line."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "c.yaml"

    def run(self, data: bytes) -> str:
        """YAML."""
        self._path.write_bytes(data)
        try:
            load_config(self._path)
        except ConfigError as error:
            return f"{min(len(error.problems), 4)} {error.problems[0].replace(str(self._path), '')[-30:]}"
        return "valid"

    def close(self) -> None:
        """Nothing to close."""


class Mot:
    """MOTChallenge files: seqinfo.ini and det.txt."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "seqinfo.ini"

    def run(self, data: bytes) -> str:
        """Two files."""
        info_text, _, lines = data.partition(BETWEEN)
        self._path.write_bytes(info_text)
        reports: list[str] = []
        try:
            info = read_seqinfo(self._path)
        except ConfigError as error:
            return str(error).partition(": ")[2][:30]
        text = lines.decode("utf-8", "replace").splitlines()
        frames = list(islice(read_frames(text, info, reports.append, where="det"), 2000))
        found = sum(len(detections) for _, detections in frames)
        return f"{min(found, 5)} {reports[0].partition(', got')[0] if reports else ''}"

    def close(self) -> None:
        """Nothing to close."""


class Sidecar:
    """What travels with a model: the temporal engine's JSON, and the metadata inside an ONNX file."""

    def __init__(self, folder: Path) -> None:
        self._model = folder / "m.onnx"
        self._model.write_bytes(b"graph")

    def run(self, data: bytes) -> str:
        """JSON, or after the separator the labels of a detector."""
        text, _, labels = data.decode("utf-8", "replace").partition(BETWEEN.decode())
        said = []
        try:
            spec_from_json(text, "m.json")
            said.append("spec")
        except EngineFault as error:
            said.append(str(error)[:60])
        runtime = SimpleNamespace(metadata={"vedette.labels": labels or "null"}, outputs={})
        try:
            load._spec(runtime, self._model, (256, 416), None, "onnxruntime", "fp32", "why")
        except EngineFault as error:
            said.append(str(error)[-40:])
        return " ".join(said)

    def close(self) -> None:
        """Nothing to close."""


class Heartbeat:
    """The supervisor's end of a child's pipe: a child that lies. What is accepted can be told to the hub."""

    def __init__(self, _folder: Path) -> None:
        self._child = Child.__new__(Child)
        self._child.malformed = 0

    def run(self, data: bytes) -> str:
        """A line."""
        before = self._child.malformed
        self._child._take(data.replace(b"\n", b" "), 1.0)
        if self._child.malformed != before:
            return "malformed"
        encode({"processes": [{"beat": self._child.beat}]})
        return f"beat {self._child.deadline_s}"

    def close(self) -> None:
        """Nothing to close."""


class Http(_HubTarget):
    """The real HTTP server on a real socket: any bytes get an answer below 500 (503 when busy) or a closed door."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._server = HttpServer("127.0.0.1:0", self.hub.state, self.world.store)
        self._errors: list[logging.LogRecord] = []
        self._handler = logging.Handler(logging.ERROR)
        self._handler.emit = self._errors.append  # type: ignore[method-assign]
        logging.getLogger().addHandler(self._handler)

    def run(self, data: bytes) -> str:
        """A connection's bytes."""
        with socket.create_connection(self._server.address, timeout=60) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                reply = connection.recv(65536)
            except (ConnectionResetError, BrokenPipeError):
                reply = b""
        assert self._server._thread.is_alive(), "the server is gone"
        assert not self._errors, self._errors[0].getMessage()
        status = reply[:12]
        assert status[9:10] != b"5" or status[9:12] == b"503", reply[:200]
        return status.decode("latin-1")

    def close(self) -> None:
        """Stop the server."""
        logging.getLogger().removeHandler(self._handler)
        self._server.stop(5)
        super().close()


TARGETS: dict[str, Callable[[Path], Target]] = {
    "acks": Acks,
    "config": ConfigFile,
    "events": Events,
    "frames": Frames,
    "heartbeat": Heartbeat,
    "http": Http,
    "mot": Mot,
    "replay": Replay,
    "sidecar": Sidecar,
    "subscriber": Subscriber,
    "telemetry": Telemetry,
}
#: A RAM disk where there is one: the bytes matter here, not the disk.
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
CORPUS = Path(__file__).with_name("corpus")


def corpus_of(name: str) -> list[bytes]:
    """The kept inputs of a target: good ones to start from, and every input that ever crashed it."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]

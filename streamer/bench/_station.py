"""A hub taken apart: a real store, replay server and PUB socket whose losses the caller decides; for tests."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import zmq

from vedette.streamer.bench._hub import numbered_event
from vedette.streamer.hub.replay import ReplayServer
from vedette.streamer.outbox.records import Draft, Stored
from vedette.streamer.outbox.store import Outbox


class Station:
    """What is committed is published only when the caller says so. folder: the store; sockets: a short folder."""

    def __init__(self, folder: Path, sockets: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.outbox = Outbox(folder, site="yard")
        self.publish, self.replay = f"ipc://{sockets}/p", f"ipc://{sockets}/r"
        self._pub = self.context.socket(zmq.XPUB)
        self._pub.setsockopt(zmq.LINGER, 0)
        self._pub.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._pub.bind(self.publish)
        self.counters: Counter[str] = Counter()
        self._server: ReplayServer | None = None
        self.start_replay()
        self._number = 0

    def start_replay(self) -> None:
        """Answer questions (again)."""
        self._server = ReplayServer(self.context, self.replay, self.outbox.path.parent, self.counters)

    def stop_replay(self) -> None:
        """Fall silent."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def commit(self, *cameras: str) -> list[Stored]:
        """Commit one alert a name."""
        drafts = []
        for camera in cameras:
            self._number += 1
            drafts.append(Draft(numbered_event(self.outbox.last_seq * 1000 + self._number, camera=camera)))
        return self.outbox.commit(drafts).stored

    def say(self, alerts: list[Stored]) -> None:
        """Publish alerts."""
        for alert in alerts:
            self._pub.send_multipart([alert.topic.encode(), alert.body])

    def tell_status(self, **change: Any) -> None:
        """Publish status.hub."""
        status = {
            "stream": self.outbox.stream,
            "last_seq": self.outbox.last_seq,
            "cameras": self.outbox.camera_seq,
            "replay": self.replay,
        }
        self._pub.send_multipart([b"status.hub", json.dumps({**status, **change}).encode()])

    def raw(self, *parts: bytes) -> None:
        """Publish anything."""
        self._pub.send_multipart(list(parts))

    def wait_subscribed(self, count: int = 2) -> None:
        """Until a subscriber's subscriptions have arrived. Raises TimeoutError."""
        for _ in range(count):
            if not self._pub.poll(5000):
                raise TimeoutError("nobody subscribed")
            self._pub.recv()

    def heard_subscription(self) -> bool:
        """Whether a subscription arrives now."""
        return bool(self._pub.poll(0)) and bool(self._pub.recv())

    def close(self) -> None:
        """Go away."""
        self.stop_replay()
        self.context.destroy(linger=0)
        self.outbox.close()

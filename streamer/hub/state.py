"""What the hub knows about itself and everybody else: the source of status.hub, the metrics and the HTTP API.

Written by the hub's loop, read by other threads: whole values are replaced, never changed in place.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from vedette.streamer.config import Config
from vedette.streamer.errors import WireError
from vedette.streamer.hub.publisher import Publisher
from vedette.streamer.outbox.committer import Committer
from vedette.streamer.outbox.diskguard import DiskGuard
from vedette.streamer.outbox.records import Outcome
from vedette.streamer.outbox.store import Outbox
from vedette.streamer.wire import decode

_TOPIC = re.compile(r"^(?:(track|status)\.([a-z0-9_-]{1,32})|process)$")
#: Cameras remembered from telemetry, at most.
MOST_CAMERAS = 4096


class HubState:
    """A running account. now_s: the monotonic clock, an argument so that tests can move it."""

    def __init__(
        self,
        config: Config,
        boot: str,
        outbox: Outbox,
        committer: Committer,
        guard: DiskGuard,
        counters: Counter[str],
        publisher: Publisher,
        *,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self.boot = config, boot
        self.counters = counters
        self.replay_endpoint = ""
        self.boots: dict[str, str] = {}
        self.processes: tuple[dict[str, Any], ...] = ()
        self.processes_at_s = float("-inf")
        self.supervisor: dict[str, Any] = {}
        self.camera_status: dict[str, dict[str, Any]] = {}
        self.track_messages: Counter[str] = Counter()
        self.last_seq = outbox.last_seq
        self.turned_s = now_s()
        self.stream = outbox.stream
        self.now_s = now_s
        self.on_commit: list[Callable[[Outcome], None]] = []
        self.sinks: list[Any] = []
        self.http: tuple[str, int] | None = None
        self._outbox, self._committer, self._guard, self._publisher = outbox, committer, guard, publisher

    def committed(self, outcome: Outcome) -> None:
        """Tell everyone who waits for new alerts."""
        self.last_seq = self._outbox.last_seq
        for tell in self.on_commit:
            tell(outcome)

    def telemetry(self, message: list[bytes]) -> tuple[str, bytes]:
        """Check a telemetry message, remember what matters of it; topic and JSON to publish. Raises WireError."""
        if len(message) != 2:
            raise WireError(f"telemetry: needs two parts, got {len(message)}")
        topic = message[0].decode("ascii", "replace")
        found = _TOPIC.fullmatch(topic)
        if found is None or found[2] == "hub":
            raise WireError(f"telemetry: unknown topic {topic!r:.60}")
        body = decode(message[1])
        if topic == "process":
            self._take_processes(body)
        elif found[1] == "status":
            if len(self.camera_status) < MOST_CAMERAS or found[2] in self.camera_status:
                self.camera_status = {**self.camera_status, found[2]: body}
        else:
            self.track_messages[found[2]] += 1
        return topic, message[1]

    def _take_processes(self, body: dict[str, Any]) -> None:
        table = body.get("processes")
        if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
            raise WireError("telemetry: process needs a list of objects in `processes`")
        self.processes = tuple(table)
        counters = body.get("counters")
        self.supervisor = counters if isinstance(counters, dict) else {}
        self.processes_at_s = self.now_s()

    def camera_seq(self) -> dict[str, int]:
        """seq of every camera's newest alert."""
        return dict(self._outbox.camera_seq)

    def trouble(self) -> str | None:
        """Why the store does not take alerts, None while it does."""
        return self._committer.trouble

    def status(self) -> dict[str, Any]:
        """The ``status.hub`` message."""
        return {
            "stream": self.stream,
            "last_seq": self._outbox.last_seq,
            "first_seq": self._outbox.floor + 1,
            "cameras": dict(self._outbox.camera_seq),
            "publish": self._publisher.endpoint,
            "replay": self.replay_endpoint,
            "http": self.http and f"{self.http[0]}:{self.http[1]}",
            "site": self.config.site,
            "boot": self.boot,
            "held": self._committer.held,
            "trouble": self._committer.trouble,
            "disk_free_bytes": self._guard.free_bytes(),
            "reserve": self._guard.has_reserve,
            "counters": dict(self.counters),
            "sinks": [sink.status() for sink in self.sinks],
        }

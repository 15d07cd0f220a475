"""The PUB socket: fast, lossy for those who do not read, never in the way of anybody."""

from __future__ import annotations

from collections.abc import Iterable

import zmq

from vedette.streamer.keys.door import Door, Doors
from vedette.streamer.outbox.records import Stored

#: Messages kept for each subscriber before the newest are dropped for it; `subscribe` heals the gap by replay.
WAITING = 2000


class Publisher:
    """PUB multipart ``[topic, json]``; owned by one thread. A subscriber that never reads costs at most ``waiting``
    messages of memory and stalls nobody (XPUB_NODROP is off by default: PUB drops)."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], *, waiting: int = WAITING) -> None:
        self._socket = context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, waiting)
        self._socket.setsockopt(zmq.LINGER, 200)
        self._socket.setsockopt(zmq.MAXMSGSIZE, 4096)  # subscribers send nothing but subscriptions
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 5000)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15000)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        self._door: Door | None = None
        self.endpoint = ""
        self.published = 0

    def bind(self, endpoint: str, doors: Doors | None = None) -> None:
        """Listen, as the hub's other ``doors`` do. Raises ConfigError when the address cannot be had."""
        self._door = Door(self._socket, endpoint, "alerts.publish", doors or Doors())
        self.endpoint = self._door.endpoint

    def tend(self) -> None:
        """See `Door.tend`."""
        if self._door is not None:
            self._door.tend()

    def publish(self, alerts: Iterable[Stored]) -> None:
        """Send committed alerts in order."""
        for alert in alerts:
            self.send(alert.topic, alert.body)

    def send(self, topic: str, body: bytes) -> None:
        """Send one message."""
        self._socket.send(topic.encode(), zmq.SNDMORE)
        self._socket.send(body)
        self.published += 1

    def close(self) -> None:
        """Give what was sent a moment to leave."""
        self._socket.close()

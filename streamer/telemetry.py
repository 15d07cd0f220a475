"""The lossy side road to the hub: tracks and status, dropped and counted when nobody takes them in time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import zmq

from vedette.streamer.wire import encode

#: Messages that wait for a slow hub before new ones are dropped.
WAITING = 256


class TelemetryLink:
    """PUSH side of ``telemetry.sock``; owned by one thread. Never blocks.

    waiting: messages kept for a hub that is slow; raising it trades memory and staleness for fewer drops.
    dropped: messages not sent, by the first word of the topic.
    """

    def __init__(
        self, endpoint: str, *, waiting: int = WAITING, context: zmq.Context[zmq.Socket[bytes]] | None = None
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self.sent = 0
        self._socket = (context or zmq.Context.instance()).socket(zmq.PUSH)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, waiting)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing waits for a hub that is not there
        self._socket.setsockopt(zmq.RECONNECT_IVL, 50)
        self._socket.connect(endpoint)

    def send(self, topic: str, message: dict[str, Any]) -> bool:
        """Send ``message`` under ``track.<camera>``, ``status.<camera>`` or ``process``; False when it was dropped.

        Raises WireError when JSON cannot hold the message.
        """
        try:
            self._socket.send_multipart([topic.encode(), encode(message)], zmq.NOBLOCK)
        except zmq.Again:
            self.dropped[topic.partition(".")[0]] += 1
            return False
        self.sent += 1
        return True

    def close(self) -> None:
        """Close at once; what waits is lost."""
        self._socket.close()

    def __enter__(self) -> TelemetryLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

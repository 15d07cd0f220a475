"""Server-sent events: alerts as they are committed, resumed by Last-Event-ID, never from a queue in memory.

Every client reads the store from its own cursor, so a slow one costs nothing and loses nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection

from starlette.concurrency import run_in_threadpool

from vedette.streamer.outbox.reader import OutboxReader
from vedette.streamer.outbox.records import Stored

#: Alerts read at once for one client.
PAGE = 100
#: A comment is sent after so many silent seconds, so that a dead connection is noticed.
KEEPALIVE_S = 10.0
#: Clients at the same time.
MOST_CLIENTS = 64


class Bell:
    """Rung by the hub's thread at every commit, heard by every waiting client of one event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Event] = set()
        self.stopping = False

    def attach(self) -> None:
        """Call inside the loop that will listen."""
        self._loop = asyncio.get_running_loop()

    def ring(self) -> None:
        """Wake everybody; safe from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def stop(self) -> None:
        """End every stream."""
        self.stopping = True
        self.ring()

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    async def wait(self, event: asyncio.Event, timeout_s: float) -> bool:
        """Wait for the bell; False when it did not ring in time."""
        try:
            await asyncio.wait_for(event.wait(), timeout_s)
        except TimeoutError:
            return False
        event.clear()
        return True

    def join(self) -> asyncio.Event:
        """An event that is set at every ring, until `leave`."""
        event = asyncio.Event()
        self._waiting.add(event)
        return event

    def leave(self, event: asyncio.Event) -> None:
        """Stop listening."""
        self._waiting.discard(event)

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._waiting)


def frame(alert: Stored) -> bytes:
    """One alert as a server-sent event whose id is its seq."""
    return b"id: %d\nevent: alert\ndata: %s\n\n" % (alert.seq, alert.body)


async def stream_events(
    reader: OutboxReader, bell: Bell, rung: asyncio.Event, since: int | None, cameras: Collection[str] | None
) -> AsyncIterator[bytes]:
    """``hello`` (stream, last_seq), then every alert after ``since`` (None: from now on), gaps told as ``gap``.

    cameras: only of these, None for all.
    """
    last_seq = await run_in_threadpool(reader.last_seq)
    hello = {"stream": reader.stream, "last_seq": last_seq}
    yield b"event: hello\ndata: " + json.dumps(hello).encode() + b"\n\n"
    cursor = last_seq if since is None or since > last_seq else since
    while not bell.stopping:
        page = await run_in_threadpool(reader.page, cursor, PAGE, camera=cameras)
        if page.gap is not None:
            yield b"event: gap\ndata: " + json.dumps(page.gap).encode() + b"\n\n"
        for alert in page.alerts:
            yield frame(alert)
        cursor = max(cursor, page.through)
        if cursor < page.last_seq:
            continue
        if not await bell.wait(rung, KEEPALIVE_S):
            yield b": still here\n\n"

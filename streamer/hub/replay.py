"""The replay ROUTER: whoever missed alerts asks for what follows a cursor and gets exactly what was committed.

A client (DEALER, or REQ with its empty delimiter) sends one JSON object::

    {"from": 41, "limit": 500, "camera": "dock", "request": "any text"}      all but "from" optional

and gets one JSON object: ``stream``, ``last_seq``, ``first_seq``, ``through`` (the cursor for the next page),
``gap`` (null, or ``{"first", "last", "reason"}``: removed by retention), ``alerts`` (in order), ``request``.
A page holds at most 1000 alerts and 4 MB. A request that is wrong gets ``{"error": ..., "request": ...}`` and is
counted; one that is not even JSON or too long is counted and, where that is possible, answered the same way.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import zmq
from pydantic import BaseModel, ConfigDict, Field

from vedette.streamer.errors import WireError
from vedette.streamer.keys.door import Door, Doors
from vedette.streamer.outbox.reader import PAGE_LIMIT, OutboxReader, Page
from vedette.streamer.wire import parse

log = logging.getLogger("vedette.replay")

#: Longest request, bytes.
MAX_REQUEST = 4096
#: Replies that wait for a client that does not read; more are dropped, it asks again.
WAITING = 16


class Request(BaseModel):
    """What a client may ask. since (``from``): the last seq it has, 0 for all."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    since: Annotated[int, Field(alias="from", ge=0, le=2**62)]
    limit: Annotated[int, Field(ge=1, le=10**6)] = PAGE_LIMIT
    camera: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")] | None = None
    request: Annotated[str, Field(max_length=64)] | None = None


def encode_page(page: Page, request: str | None = None) -> bytes:
    """The reply's JSON; alert bodies go in as they lie in the store."""
    head = {
        "stream": page.stream,
        "last_seq": page.last_seq,
        "first_seq": page.first_seq,
        "through": page.through,
        "gap": page.gap,
        "request": request,
    }
    return json.dumps(head)[:-1].encode() + b', "alerts": [' + b",".join(a.body for a in page.alerts) + b"]}"


def answer(reader: OutboxReader, raw: bytes) -> tuple[bytes, bool]:
    """The reply to a request's bytes, and whether the request was right."""
    try:
        if len(raw) > MAX_REQUEST:
            raise WireError(f"replay: request of {len(raw)} bytes; at most {MAX_REQUEST} are accepted")
        request = parse(Request, raw)
    except WireError as error:
        return json.dumps({"error": str(error), "request": _request_of(raw)}).encode(), False
    page = reader.page(request.since, request.limit, camera=request.camera)
    return encode_page(page, request.request), True


def _request_of(raw: bytes) -> str | None:
    try:
        value: Any = json.loads(raw[:MAX_REQUEST])
    except (ValueError, RecursionError):
        return None
    name = value.get("request") if isinstance(value, dict) else None
    return name if isinstance(name, str) and len(name) <= 64 else None


class ReplayServer:
    """Answers replay requests in a thread of its own, so that no client can slow the writer."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        store: Path,
        counters: Counter[str],
        doors: Doors | None = None,
    ) -> None:
        """Bind, as the hub's other ``doors`` do, and start. Raises ConfigError when the address cannot be had,
        StoreError without a database."""
        self._reader = OutboxReader(store)
        self._counters = counters
        self._stopping = threading.Event()
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 200)
        self._socket.setsockopt(zmq.SNDHWM, WAITING)
        self._socket.setsockopt(zmq.RCVHWM, 64)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST)  # a longer message costs the sender its connection
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 5000)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15000)
        try:
            self._door = Door(self._socket, endpoint, "alerts.replay", doors or Doors())
        except BaseException:
            self._socket.close(0)
            self._reader.close()
            raise
        self.endpoint = self._door.endpoint
        self._thread = threading.Thread(target=self._serve, name="replay", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            while not self._stopping.is_set():
                self._door.tend()
                if self._socket.poll(100):
                    self._serve_one()
        finally:
            self._socket.close()
            self._reader.close()

    def _serve_one(self) -> None:
        *envelope, raw = self._socket.recv_multipart()
        self._counters["replay_requests"] += 1
        if len(envelope) not in (1, 2) or (len(envelope) == 2 and envelope[1]):
            self._counters["replay_malformed"] += 1
            return
        try:
            reply, right = answer(self._reader, raw)
        except sqlite3.Error as error:
            log.error("a page could not be read: %s", error)
            self._counters["replay_errors"] += 1
            reply, right = json.dumps({"error": "the store cannot be read now", "request": None}).encode(), True
        self._counters["replay_malformed"] += not right
        try:
            self._socket.send_multipart([*envelope, reply], zmq.NOBLOCK)
        except zmq.ZMQError:
            self._counters["replay_dropped"] += 1

    def stop(self) -> None:
        """Stop the thread and close the socket."""
        self._stopping.set()
        self._thread.join(2.0)

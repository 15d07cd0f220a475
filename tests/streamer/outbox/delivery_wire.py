"""The network of the delivery proof: sockets and clocks of queues, that fail as ZeroMQ's do when processes die."""

from __future__ import annotations

import json
import time as real_time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import zmq

if TYPE_CHECKING:
    from tests.streamer.outbox.delivery_world import World

Parts = list[bytes]
Key = tuple[str, int]


class Crash(BaseException):
    """The hub dies here."""


class Clock:
    """Stands in for the module ``time``; moves only when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.time, self.monotonic_ns = real_time.time, real_time.monotonic_ns

    def monotonic(self) -> float:
        """Seconds."""
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.now_s += seconds


@dataclass
class Part:
    """What ``recv(copy=False)`` returns."""

    bytes: bytes
    more: bool


class FakeSocket:
    """The calls our sockets use. inbox: whole messages; send: where a whole message goes."""

    def __init__(self, send: Callable[[Parts], None] | None = None) -> None:
        self.inbox: deque[Parts] = deque()
        self._send = send or (lambda _: None)
        self._incoming: list[bytes] = []
        self._outgoing: list[bytes] = []

    def setsockopt(self, *_: object) -> None:
        """Accepted."""

    connect = subscribe = bind = close = setsockopt

    def recv(self, _flags: int = 0, *, copy: bool) -> Part:
        """One part."""
        assert not copy
        if not self._incoming:
            if not self.inbox:
                raise zmq.Again
            self._incoming = self.inbox.popleft()
        part, *self._incoming = self._incoming
        return Part(part, bool(self._incoming))

    def send(self, part: bytes, flags: int = 0) -> None:
        """One part."""
        self._outgoing.append(part)
        if not flags & zmq.SNDMORE:
            message, self._outgoing = self._outgoing, []
            self._send(message)

    def send_multipart(self, parts: Parts, _flags: int = 0) -> None:
        """A message."""
        self._send(list(parts))


class FakeContext:
    """Gives out one prepared socket."""

    def __init__(self, socket: FakeSocket) -> None:
        self.socket = lambda _: socket


class Wire:
    """One life's connection to the hub. up: what it sent and the hub has not taken."""

    def __init__(self, world: World, name: bytes) -> None:
        self.world, self.name, self.alive = world, name, True
        self.up: deque[Parts] = deque()
        self.socket = FakeSocket(self._send)

    def _send(self, parts: Parts) -> None:
        if self.world.hub is None:
            raise zmq.Again  # IMMEDIATE: nothing is queued for a hub that is not there
        self.up.append(parts)

    def sent(self) -> set[Key]:
        """Tellings on their way."""
        events = [json.loads(parts[1]) for parts in self.up if parts[0] == b"event"]
        return {(event["id"], event["rev"]) for event in events}

"""Subscribing: every alert exactly once, in order, across lost messages, slow readers and killed hubs.

The PUB socket is only the fast road. What proves completeness is the number line: ``seq`` (or, for one camera,
``prev``) says whether the alert just received follows the last one given; if not, everything after the cursor is
asked for at the replay socket, which answers from the committed store. ``status.hub``, once a second, tells about
a lost tail and where the replay socket is.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import zmq

from vedette.streamer.endpoint import reachable
from vedette.streamer.errors import VedetteError
from vedette.streamer.jsontext import read_json
from vedette.streamer.keys.curve import ClientKeys
from vedette.streamer.multipart import receive_now
from vedette.streamer.types import CAMERA_NAME
from vedette.streamer.wire import MAX_JSON

log = logging.getLogger("vedette.client")

Alert = dict[str, Any]

#: Seconds to wait for a replay answer before asking again on a new connection, and between tries.
REPLAY_TIMEOUT_S, REPLAY_RETRY_S = 2.0, 0.2
#: Largest replay answer, bytes: a page is 4 MB and one alert more.
MAX_REPLY = 8 * 1024 * 1024
#: What a malformed message may raise while it is read: the hub at the other end is not trusted to be ours.
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
#: Live messages kept while this reader is busy; more are dropped here and healed by replay.
WAITING = 2000


class StreamChanged(VedetteError):
    """The hub writes another store than the one the cursor belongs to. stream: the new one's UUID."""

    def __init__(self, old: str, new: str) -> None:
        self.old, self.stream = old, new
        super().__init__(
            f"subscribe: the hub's stream changed from {old} to {new}; its seq begins at 1 again, "
            "so subscribe anew with since=0 (or let new_stream='follow' do it)"
        )


@dataclass(frozen=True, slots=True)
class Gap:
    """Alerts first..last (inclusive) of a stream that cannot be had any more, and why (``retention``)."""

    stream: str
    first: int
    last: int
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The gap record, schema ``vedette.gap/1``."""
        return {
            "schema": "vedette.gap/1",
            "stream": self.stream,
            "first": self.first,
            "last": self.last,
            "reason": self.reason,
        }


def subscribe(
    endpoint: str,
    *,
    replay: str | None = None,
    since: int | None = 0,
    camera: str | None = None,
    stream: str | None = None,
    new_stream: Literal["follow", "raise"] = "follow",
    on_gap: Callable[[Gap], None] | None = None,
    idle_s: float | None = None,
    server_key: str | None = None,
    secret_key: str | None = None,
) -> Subscription:
    """Iterate over alerts: exactly once, in order, first what was missed, then live. Ends with `close` only.

    endpoint: the hub's publish address. replay: its replay address; learned from ``status.hub`` when None.
    since: the last seq you have (exclusive), 0 for everything the store still holds, None for live only.
    camera: only this camera's alerts. stream: the stream `since` belongs to, when you know it; with another one
    `new_stream` decides: ``follow`` starts at the new stream's beginning, ``raise`` raises StreamChanged.
    on_gap: told of ranges that retention removed (logged otherwise). idle_s: stop iterating after so many seconds
    without an alert; None waits for ever. server_key, secret_key: the site's public and this subscriber's secret key
    (Z85, from `vedette keys`), where the hub asks for keys on tcp; raises ConfigError when they are none.
    """
    return Subscription(
        endpoint,
        replay=replay,
        since=since,
        camera=camera,
        stream=stream,
        new_stream=new_stream,
        on_gap=on_gap,
        idle_s=idle_s,
        keys=ClientKeys.of(server_key, secret_key),
    )


class Subscription:
    """What `subscribe` returns: an iterator of alerts and a context manager; used by one thread.

    cursor: the last seq that was given (or skipped as another camera's); keep it, and `stream`, to go on later.
    gaps: ranges that could not be had. replays: pages asked for. duplicates: alerts that came twice and were
    given once.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        replay: str | None,
        since: int | None,
        camera: str | None,
        stream: str | None,
        new_stream: Literal["follow", "raise"],
        on_gap: Callable[[Gap], None] | None,
        idle_s: float | None,
        keys: ClientKeys | None = None,
    ) -> None:
        if since is not None and since < 0:
            raise ValueError(f"subscribe: since needs 0 or more, got {since}")
        if camera is not None and CAMERA_NAME.fullmatch(camera) is None:
            raise ValueError(f"subscribe: camera needs [a-z0-9_-]{{1,32}}, got {camera!r}")
        self.endpoint, self.camera = endpoint, camera
        self.cursor = since
        self.stream = stream
        self.gaps: list[Gap] = []
        self.replays = self.duplicates = self.malformed = 0
        self._replay, self._replay_given = replay, replay is not None
        self._new_stream, self._on_gap, self._idle_s, self._keys = new_stream, on_gap, idle_s, keys
        self._ready: deque[Alert] = deque()
        self._behind = since is not None  # whether replay must be asked before live alerts count
        self._seen = self._through = 0
        self._retry_s = 0.0
        self._closed = threading.Event()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sub = self._connect(zmq.SUB, endpoint)
        self._sub.subscribe(f"alert.{camera}." if camera else "alert.")
        self._sub.subscribe("status.hub")
        self._asker: zmq.Socket[bytes] | None = None
        self._request = 0
        self._asked_s: float | None = None

    def _connect(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, WAITING)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_JSON * 2 if kind == zmq.SUB else MAX_REPLY)
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 3000)  # a half-open connection is noticed
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 9000)
        socket.setsockopt(zmq.IPV6, 1)
        if self._keys is not None:
            self._keys.secure(socket, endpoint)
        socket.connect(endpoint)
        return socket

    def __iter__(self) -> Iterator[Alert]:
        return self

    def __next__(self) -> Alert:
        alert = self.next(self._idle_s)
        if alert is None:
            raise StopIteration
        return alert

    def next(self, timeout_s: float | None = None) -> Alert | None:
        """The next alert, or None when none came within ``timeout_s`` (None waits) or after `close`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._closed.is_set():
            if self._ready:
                return self._give(self._ready.popleft())
            left_s = 0.25 if deadline is None else min(0.25, deadline - time.monotonic())
            if left_s <= 0 and deadline is not None:
                return None
            self._turn(left_s)
        self._release()
        return None

    def close(self) -> None:
        """Stop; may be called from another thread or a signal handler, `next` then returns soon."""
        self._closed.set()

    def _release(self) -> None:
        if not self._context.closed:
            self._context.destroy(linger=0)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._release()

    def __del__(self) -> None:  # a loop that was left with break needs no ceremony
        if hasattr(self, "_context"):
            self._release()

    def _give(self, alert: Alert) -> Alert:
        self.cursor = int(alert["seq"])
        if not self._ready:  # what lies between the last one given and here was asked for and belongs to others
            self.cursor = max(self.cursor, self._through)
        return alert

    def _turn(self, wait_s: float) -> None:
        """One wait for either socket, and what follows from it."""
        if self._behind:
            self._ask()
        elif (message := receive_now(self._sub)) is not None:  # most of a busy stream needs no poller
            self._take_live(message)
            return
        poller = zmq.Poller()
        poller.register(self._sub, zmq.POLLIN)
        if self._asker is not None:
            poller.register(self._asker, zmq.POLLIN)
        found = dict(poller.poll(max(1, int(wait_s * 1000))))
        if self._asker is not None and self._asker in found:
            self._take_reply(self._asker.recv_multipart())
        elif self._sub in found:
            self._take_live(self._sub.recv_multipart())

    # live

    def _take_live(self, message: list[bytes]) -> None:
        try:
            topic, raw = message
            value = read_json(raw)
            if topic == b"status.hub":
                self._take_status(value)
            else:
                self._take_alert(value)
        except _MALFORMED as error:
            self.malformed += 1
            log.warning("a malformed message from %s was dropped: %s", self.endpoint, error)

    def _take_alert(self, alert: Alert) -> None:
        seq, prev, stream = int(alert["seq"]), alert["prev"], str(alert["stream"])
        if self.stream is None:
            self.stream = stream
        if self.cursor is None:  # live only: this is where the number line begins
            self.cursor = seq - 1
        if stream != self.stream:
            self._behind = True  # only the replay's answer decides about a new stream
        elif self._behind:
            self._seen = max(self._seen, seq)  # the replay's answer holds it, or the next one will
        elif seq <= self.cursor:
            self.duplicates += 1
        elif seq == self.cursor + 1 or (self.camera is not None and (prev is None or prev <= self.cursor)):
            self._ready.append(alert)
        else:
            self._behind = True

    def _take_status(self, status: dict[str, Any]) -> None:
        stream, last_seq = str(status["stream"]), int(status["last_seq"])
        if not self._replay_given:
            found = reachable(str(status["replay"]), self.endpoint)
            if found != self._replay:
                self._replay = found
                self._hang_up()
        if self.stream is None:
            self.stream = stream
        if self.cursor is None:
            self.cursor = last_seq
        newest = int(status["cameras"].get(self.camera, 0)) if self.camera else last_seq
        if stream != self.stream or newest > self.cursor or last_seq < self.cursor:
            self._behind = True  # the tail was lost, or the store is another one: replay tells

    # replay

    def _hang_up(self) -> None:
        if self._asker is not None:
            self._asker.close(0)
        self._asker = self._asked_s = None

    def _ask(self) -> None:
        """Have one request on its way; ask again on a new connection when the answer does not come."""
        now_s = time.monotonic()
        if self._asked_s is not None and now_s - self._asked_s > REPLAY_TIMEOUT_S:
            log.warning("no answer from the replay address %s; asking again", self._replay)
            self._hang_up()
            self._retry_s = now_s + REPLAY_RETRY_S
        if self._asked_s is not None or self._replay is None or now_s < self._retry_s:
            return
        if self._asker is None:
            self._asker = self._connect(zmq.DEALER, self._replay)
        self._request += 1
        request = {"from": self.cursor or 0, "request": str(self._request)}
        if self.camera:
            request["camera"] = self.camera
        self._asker.send(json.dumps(request).encode(), zmq.NOBLOCK)
        self._asked_s = now_s

    def _take_reply(self, message: list[bytes]) -> None:
        try:
            page = read_json(message[-1])
            if page.get("request") != str(self._request):
                return  # an answer to a question that was given up
            self._asked_s = None
            if "error" in page:
                log.warning("the replay address refused: %s", page["error"])
                self._retry_s = time.monotonic() + REPLAY_RETRY_S
                return
            self._take_page(page)
        except _MALFORMED as error:
            self.malformed += 1
            self._hang_up()
            self._retry_s = time.monotonic() + REPLAY_RETRY_S
            log.warning("a malformed answer from %s was dropped: %s", self._replay, error)

    def _take_page(self, page: dict[str, Any]) -> None:
        stream, last_seq, through = str(page["stream"]), int(page["last_seq"]), int(page["through"])
        self.replays += 1
        cursor = self.cursor or 0
        if self.stream is not None and stream != self.stream:
            self._change_stream(stream)
            return
        self.stream = stream
        if last_seq < cursor:
            log.warning(
                "the store ends at %d, before the cursor %d: it was set back; going on from there", last_seq, cursor
            )
            self.cursor = last_seq
            return
        if page["gap"] is not None:
            self._note_gap(Gap(stream, int(page["gap"]["first"]), int(page["gap"]["last"]), str(page["gap"]["reason"])))
        self._ready.extend(alert for alert in page["alerts"] if int(alert["seq"]) > cursor)
        self._behind = through < max(last_seq, self._seen)
        self._seen, self._through = 0, through
        if not self._ready:
            self.cursor = through

    def _change_stream(self, stream: str) -> None:
        assert self.stream is not None
        if self._new_stream == "raise":
            raise StreamChanged(self.stream, stream)
        log.warning("the hub's stream changed from %s to %s; following it from its first alert", self.stream, stream)
        self.stream, self.cursor, self._behind = stream, 0, True
        self._seen = self._through = 0

    def _note_gap(self, gap: Gap) -> None:
        self.gaps.append(gap)
        if self._on_gap is not None:
            self._on_gap(gap)
        else:
            log.warning("alerts %d..%d are gone (%s)", gap.first, gap.last, gap.reason)

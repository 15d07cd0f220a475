"""The producer's end of the road to the hub: every event is kept until the hub says it is committed.

Used by infer and the supervisor, from one thread. `send` never blocks; `work` must be called by the working
loop (ten times a second or when `socket` is readable). After a hub restart everything that was not
acknowledged goes out again, in order; the hub knows what it already has by ``(id, rev)``.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from vedette.streamer.alert import check_event
from vedette.streamer.errors import WireError
from vedette.streamer.multipart import receive_now
from vedette.streamer.types import Event
from vedette.streamer.wire import MAX_JPEG, MAX_JSON, decode, encode

log = logging.getLogger("vedette.eventlink")

#: Events kept for a hub that does not answer.
CAPACITY = 10_000
#: Bytes of evidence pictures kept with them.
PICTURE_BYTES = 64 * 1024 * 1024
#: Seconds between hellos while the hub answers, and while it does not.
HELLO_S, SEARCH_S = 1.0, 0.2
#: An event that was sent this long ago without an answer is sent again.
RESEND_S = 5.0

Key = tuple[str, int]


@dataclass(slots=True)
class _Waiting:
    raw: bytes
    jpeg: bytes
    update: bool


class EventLink:
    """DEALER side of ``events.sock``: at most ``capacity`` events wait, nothing is lost before that.

    producer, boot: who sends and in which life; the hub closes what an earlier boot left open.
    capacity: when so many wait, the oldest waiting ``update`` makes room; with none, the new event is refused
    (`send` returns False) and counted in ``lost``. picture_bytes: pictures beyond it are left out, counted in
    ``pictures_lost``; their events are kept. Raising either costs memory only while the hub is away.
    """

    def __init__(
        self,
        endpoint: str,
        producer: str,
        boot: str,
        *,
        capacity: int = CAPACITY,
        picture_bytes: int = PICTURE_BYTES,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self.producer, self.boot = producer, boot
        self._born_ns = time.monotonic_ns()  # which of two lives of a producer is the later one
        self.capacity, self.picture_bytes = capacity, picture_bytes
        self.counters: Counter[str] = Counter(acked=0, lost=0, pictures_lost=0, resent=0, malformed=0, refused=0)
        self.hub_boot: str | None = None
        #: called with (id, rev) when the hub says that an event is committed
        self.on_ack: Callable[[Key], object] | None = None
        self._waiting: OrderedDict[Key, _Waiting] = OrderedDict()
        self._unsent: deque[Key] = deque()
        self._held_bytes = 0
        self._next_hello_s = 0.0
        self._heard_s = float("-inf")
        self._progress_s = 0.0
        self.socket = (context or zmq.Context.instance()).socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, producer.encode())
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 1000)
        self.socket.setsockopt(zmq.RCVHWM, 0)  # acks are small and never more than what was sent
        self.socket.setsockopt(zmq.IMMEDIATE, 1)  # a dead hub gets nothing, so nothing is lost in a queue for it
        self.socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_JSON)
        self.socket.connect(endpoint)

    @property
    def waiting(self) -> int:
        """Events the hub has not acknowledged yet."""
        return len(self._waiting)

    @property
    def connected(self) -> bool:
        """Whether the hub answered within the last three hellos."""
        return time.monotonic() - self._heard_s < 3 * HELLO_S

    def send(self, event: Event, jpeg: bytes = b"") -> bool:
        """Keep the event and send it as soon as possible; False when it was refused because too many wait.

        jpeg: the snapshot, empty when there is none. Raises WireError when the event could never become an alert.
        """
        raw = encode(check_event(event))
        if len(raw) > MAX_JSON:
            raise WireError(f"eventlink: event of {len(raw)} bytes; at most {MAX_JSON} are accepted")
        key = (event.id, event.rev)
        if key in self._waiting:
            return True
        if len(self._waiting) >= self.capacity and not self._make_room():
            self.counters["lost"] += 1
            if self.counters["lost"] == 1:
                log.error("%d events wait for the hub and no more fit; new ones are lost", len(self._waiting))
            return False
        if jpeg and (len(jpeg) > MAX_JPEG or self._held_bytes + len(jpeg) > self.picture_bytes):
            self.counters["pictures_lost"] += 1
            jpeg = b""
        if not self._waiting:
            self._progress_s = time.monotonic()
        self._held_bytes += len(jpeg)
        self._waiting[key] = _Waiting(raw, jpeg, event.phase == "update")
        self._unsent.append(key)
        self.work()
        return True

    def work(self) -> None:
        """Take in acknowledgements, greet the hub when it is time, send what was not sent."""
        while self._receive():
            pass
        now_s = time.monotonic()
        if now_s >= self._next_hello_s:
            self._greet(now_s)
        if self.hub_boot is not None:
            self._flush()

    def drain(self, timeout_s: float) -> bool:
        """Work until nothing waits or the time is over; whether everything was acknowledged."""
        deadline = time.monotonic() + timeout_s
        while self._waiting and (left_s := deadline - time.monotonic()) > 0:
            self.work()
            if self._waiting:
                self.socket.poll(int(min(left_s, 0.05) * 1000) + 1)
        self.work()
        return not self._waiting

    def close(self) -> None:
        """Close at once; call `drain` first to wait for what is outstanding."""
        self.socket.close()

    def __enter__(self) -> EventLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_room(self) -> bool:
        for key, waiting in self._waiting.items():
            if waiting.update:
                self._forget(key)
                self.counters["lost"] += 1
                return True
        return False

    def _forget(self, key: Key) -> bool:
        gone = self._waiting.pop(key, None)
        if gone is None:
            return False
        self._held_bytes -= len(gone.jpeg)
        return True

    def _greet(self, now_s: float) -> None:
        if self._waiting and not self._unsent and self.connected and now_s - self._progress_s > RESEND_S:
            self._resend(now_s)
        hello = encode({"producer": self.producer, "boot": self.boot, "born_ns": self._born_ns})
        with contextlib.suppress(zmq.Again):  # no hub to greet yet: the next hello is due soon
            self.socket.send_multipart([b"hello", hello], zmq.NOBLOCK)
        self._next_hello_s = now_s + (HELLO_S if self.connected else SEARCH_S)

    def _flush(self) -> None:
        boot = (
            self.hub_boot or ""
        ).encode()  # a hub that came since must not take these before those its predecessor had
        while self._unsent:
            waiting = self._waiting.get(self._unsent[0])
            if waiting is not None:  # else it made room, or an earlier send was acknowledged meanwhile
                try:
                    self.socket.send_multipart([b"event", waiting.raw, waiting.jpeg, boot], zmq.NOBLOCK)
                except zmq.Again:
                    return
            self._unsent.popleft()

    def _resend(self, now_s: float) -> None:
        self.counters["resent"] += len(self._waiting)
        self._unsent = deque(self._waiting)
        self._progress_s = now_s

    def _receive(self) -> bool:
        parts = receive_now(self.socket)
        if parts is None:
            return False
        now_s = self._heard_s = time.monotonic()
        try:
            kind, raw = parts
            message = decode(raw)
            if kind == b"hello":
                self._meet(str(message["boot"]), now_s)
            elif kind == b"acks":
                for event_id, rev in message["keys"]:
                    self._settle((str(event_id), int(rev)), committed=True)
                self._progress_s = now_s
            elif kind in (b"ack", b"refuse"):
                self._settle((str(message["id"]), int(message["rev"])), committed=kind == b"ack")
                self._progress_s = now_s
                if kind == b"refuse":
                    log.error("the hub refused event %s rev %s: %s", *(message.get(k) for k in ("id", "rev", "why")))
        except (WireError, KeyError, TypeError, ValueError):
            self.counters["malformed"] += 1
        return True

    def _settle(self, key: Key, *, committed: bool) -> None:
        if not self._forget(key):
            return
        self.counters["acked" if committed else "refused"] += 1
        if committed and self.on_ack is not None:
            self.on_ack(key)

    def _meet(self, boot: str, now_s: float) -> None:
        if boot == self.hub_boot:
            return
        if self.hub_boot is not None:
            log.info("the hub is back; %d events go out again", len(self._waiting))
            self._resend(now_s)
        self.hub_boot = boot

"""The producer's link: nothing is forgotten before the hub has it, nothing grows without bound."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from vedette.streamer.bench._hub import numbered_event
from vedette.streamer.errors import WireError
from vedette.streamer.eventlink import EventLink


class PaperHub:
    """The hub's side of the wire, moved by hand: a real ROUTER that acknowledges only when told to."""

    def __init__(self, endpoint: str, boot: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._socket.bind(endpoint)
        self.boot = boot
        self.events: list[dict[str, Any]] = []
        self.pictures: list[bytes] = []
        self.hellos: list[dict[str, Any]] = []
        self.sender = b""

    def turn(self, *, answer_hello: bool = True, ack: bool = True) -> None:
        """Take in everything that waits."""
        while self._socket.poll(0):
            self.sender, kind, raw, *blobs = self._socket.recv_multipart()
            message = json.loads(raw)
            if kind == b"hello":
                self.hellos.append(message)
                if answer_hello:
                    self.say(b"hello", {"boot": self.boot})
            else:
                self.events.append(message)
                self.pictures.append(blobs[0])
                if ack:
                    self.say(b"ack", {"id": message["id"], "rev": message["rev"]})

    def say(self, kind: bytes, message: object) -> None:
        """Send something to the producer."""
        self._socket.send_multipart([self.sender, kind, json.dumps(message).encode()])

    def close(self) -> None:
        """Vanish."""
        self._context.destroy(linger=0)


def until(condition: Callable[[], object], *turns: Callable[[], object], within_s: float = 10.0) -> None:
    """Turn everybody's crank until the condition holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        for turn in turns:
            turn()
        time.sleep(0.002)


@pytest.fixture
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A short ipc address."""
    return f"ipc://{tmp_path_factory.mktemp('l')}/e.sock"


@pytest.fixture
def link(endpoint: str) -> Iterator[EventLink]:
    """A producer that started before any hub."""
    with EventLink(endpoint, "infer", "b1", capacity=5, picture_bytes=100) as made:
        yield made


@pytest.fixture
def paper(endpoint: str) -> Iterator[PaperHub]:
    """A hub."""
    hub = PaperHub(endpoint, "h1")
    yield hub
    hub.close()


def test_events_sent_before_there_is_a_hub_arrive_in_order(link: EventLink, endpoint: str) -> None:
    """Either side may start first; hello comes before the first event."""
    for number in range(3):
        assert link.send(numbered_event(number), b"jpeg" if number == 1 else b"")
    hub = PaperHub(endpoint, "h1")
    until(lambda: link.waiting == 0, link.work, hub.turn)
    assert [e["id"] for e in hub.events] == ["e0", "e1", "e2"]
    assert hub.pictures == [b"", b"jpeg", b""]
    hello = hub.hellos[0]
    assert (hello["producer"], hello["boot"]) == ("infer", "b1")
    assert 0 < hello["born_ns"] <= time.monotonic_ns()
    hub.close()


def test_an_event_waits_until_it_is_acknowledged_and_goes_out_again_to_a_new_hub(
    link: EventLink, endpoint: str, paper: PaperHub
) -> None:
    """A hub that dies with events in hand gets them again in its next life, in the same order, and only those."""
    for number in range(3):
        link.send(numbered_event(number))
    until(lambda: len(paper.events) == 3, link.work, lambda: paper.turn(ack=False))
    paper.say(b"ack", {"id": "e0", "rev": 0})
    until(lambda: link.waiting == 2, link.work)
    paper.close()
    second = PaperHub(endpoint, "h2")
    until(lambda: link.waiting == 0, link.work, second.turn)
    assert [e["id"] for e in second.events] == ["e1", "e2"]
    assert link.counters["resent"] == 2
    second.close()


def test_a_full_link_gives_up_updates_first_and_then_refuses(link: EventLink) -> None:
    """Starts and ends are worth more than updates; what cannot be kept is refused, never silently dropped."""
    link.send(numbered_event(0, phase="start"))
    link.send(numbered_event(0, phase="update", rev=1))
    for number in range(1, 4):
        assert link.send(numbered_event(number))
    assert link.send(numbered_event(4))
    assert (link.waiting, link.counters["lost"]) == (5, 1)
    assert not link.send(numbered_event(5))
    assert (link.waiting, link.counters["lost"]) == (5, 2)


def test_pictures_are_bounded_and_their_events_kept(link: EventLink, paper: PaperHub) -> None:
    """Over the byte budget the picture is left out and counted; the budget comes back with the acknowledgement."""
    link.send(numbered_event(0), b"x" * 60)
    link.send(numbered_event(1), b"y" * 60)
    assert link.counters["pictures_lost"] == 1
    until(lambda: link.waiting == 0, link.work, paper.turn)
    link.send(numbered_event(2), b"z" * 60)
    until(lambda: link.waiting == 0, link.work, paper.turn)
    assert [len(p) for p in paper.pictures] == [60, 0, 60]


def test_the_same_telling_is_kept_once(link: EventLink) -> None:
    """Sending the same (id, rev) again changes nothing."""
    assert link.send(numbered_event(1))
    assert link.send(numbered_event(1))
    assert link.waiting == 1


def test_an_event_that_can_never_be_an_alert_is_the_callers_fault(link: EventLink) -> None:
    """It raises at once instead of going round for ever."""
    with pytest.raises(WireError):
        link.send(numbered_event(1, camera="dock", wall_s=-5.0))
    with pytest.raises(WireError):
        link.send(numbered_event(1, wall_s=float("nan")))
    assert link.waiting == 0


def test_a_refusal_ends_the_waiting(link: EventLink, paper: PaperHub) -> None:
    """What the hub will never take is counted and let go."""
    link.send(numbered_event(1))
    until(lambda: paper.events, link.work, lambda: paper.turn(ack=False))
    paper.say(b"refuse", {"id": "e1", "rev": 0, "why": "because"})
    until(lambda: link.waiting == 0, link.work)
    assert link.counters["refused"] == 1


@pytest.mark.parametrize("message", [b"", b"[]", b"{}", b'{"id":1,"rev":"x"}', b"\xff\xfe"])
def test_garbage_from_the_hub_is_counted(link: EventLink, paper: PaperHub, message: bytes) -> None:
    """A malformed answer acknowledges nothing and breaks nothing."""
    link.send(numbered_event(1))
    until(lambda: paper.events, link.work, lambda: paper.turn(ack=False))
    paper._socket.send_multipart([paper.sender, b"ack", message])
    until(lambda: link.counters["malformed"] == 1, link.work)
    assert link.waiting == 1


def test_sending_never_blocks_on_a_hub_that_does_not_read(tmp_path: Path, paper: PaperHub, endpoint: str) -> None:
    """A stopped hub costs the producer memory up to its bound, never time."""
    del tmp_path
    with EventLink(endpoint, "infer", "b1", capacity=10_000) as link:
        until(lambda: link.connected, link.work, paper.turn)
        slowest_s = 0.0
        for number in range(5000):
            began = time.monotonic()
            link.send(numbered_event(number), b"x" * 2000)
            slowest_s = max(slowest_s, time.monotonic() - began)
        assert slowest_s < 1.0
        until(lambda: link.waiting == 0, link.work, paper.turn, within_s=30)
        assert [e["id"] for e in paper.events] == [f"e{n}" for n in range(5000)]

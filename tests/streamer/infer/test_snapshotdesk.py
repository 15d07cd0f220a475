"""Events and their pictures: in order, in time, and honest about what is missing."""

from __future__ import annotations

from typing import Any

from vedette.streamer.bus.mailbox import Snapshot
from vedette.streamer.infer.snapshotdesk import SnapshotDesk
from vedette.streamer.types import Event


def event(name: str, phase: str = "start", camera: str = "dock") -> Event:
    rev = 0 if phase == "start" else 1
    return Event(name, rev, "infer", "b", camera, "zone:gate", "zone", phase, "warning", 1, 1.0)  # type: ignore[arg-type]


class Counter:
    """The desk with what it asked for and what it sent."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.sent: list[tuple[str, int, bytes]] = []
        self.events: list[Event] = []
        self.desk = SnapshotDesk(lambda *cut: self.asked.append(cut), self._send, patience_s=0.3)

    def _send(self, sent: Event, jpeg: bytes) -> None:
        self.sent.append((sent.id, sent.rev, jpeg))
        self.events.append(sent)


def test_a_start_leaves_with_its_picture() -> None:
    """The event waits for the answer to its own cut and carries it."""
    at = Counter()
    at.desk.put(event("x"), 0.0, picture=True)
    at.desk.work(0.1)
    assert at.sent == []
    assert at.asked == [("dock", "x", 1, None)]
    at.desk.take(Snapshot("dock", "x", 1, b"jpeg"))
    at.desk.work(0.11)
    assert at.sent == [("x", 0, b"jpeg")]
    assert "snapshot" not in at.events[0].explain


def test_what_follows_waits_behind_it_and_other_cameras_do_not() -> None:
    """Order holds within a camera; a slow camera never delays another one."""
    at = Counter()
    at.desk.put(event("x"), 0.0, picture=True)
    at.desk.put(event("x", "end"), 0.0, picture=True)
    at.desk.put(event("y", "end", camera="lobby"), 0.0, picture=True)
    at.desk.work(0.1)
    assert at.sent == [("y", 1, b"")]
    at.desk.take(Snapshot("dock", "x", 1, b"jpeg"))
    at.desk.work(0.2)
    assert at.sent[1:] == [("x", 0, b"jpeg"), ("x", 1, b"")]
    assert len(at.desk) == 0
    assert at.desk.next_s() is None


def test_after_the_deadline_it_leaves_without_and_says_so() -> None:
    """300 ms is all an alert waits; the late answer is counted and harms nobody."""
    at = Counter()
    at.desk.put(event("x"), 0.0, picture=True)
    assert at.desk.next_s() == 0.3
    at.desk.work(0.3)
    assert at.sent == [("x", 0, b"")]
    assert at.events[0].explain["snapshot"] == "none: no answer within 300 ms"
    at.desk.take(Snapshot("dock", "x", 1, b"late"))
    assert (at.desk.counters["late"], at.desk.counters["missed"]) == (1, 1)


def test_a_moment_that_is_gone_does_not_wait() -> None:
    """An empty answer sends the event at once, without a picture."""
    at = Counter()
    at.desk.put(event("x"), 0.0, picture=True)
    at.desk.take(Snapshot("dock", "x", 1, None))
    at.desk.work(0.01)
    assert at.sent == [("x", 0, b"")]
    assert at.events[0].explain["snapshot"].startswith("none: that moment")


def test_without_evidence_nothing_is_asked() -> None:
    """A camera that keeps no evidence sends its events at once; so do updates and ends of any camera."""
    at = Counter()
    at.desk.put(event("x"), 0.0, picture=False)
    at.desk.put(event("x", "end"), 0.0, picture=True)
    at.desk.work(0.0)
    assert [sent[:2] for sent in at.sent] == [("x", 0), ("x", 1)]
    assert at.asked == []


def test_an_answer_of_another_camera_is_not_believed() -> None:
    """A key that belongs to another camera's event is counted as late, not attached."""
    at = Counter()
    at.desk.put(event("x"), 0.0, picture=True)
    at.desk.take(Snapshot("lobby", "x", 1, b"foreign"))
    at.desk.work(1.0)
    assert at.sent == [("x", 0, b"")]

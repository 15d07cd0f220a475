"""What the committer does with events the disk does not take, and the guard with the space it can give."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from vedette.streamer.bench._hub import numbered_event
from vedette.streamer.hub.role import SLOW_DISK_S
from vedette.streamer.outbox.committer import FIRST_AT_ONCE, PICTURES_S, Arrival, Committer, Greeting
from vedette.streamer.outbox.diskguard import RESERVE, DiskGuard, is_disk_trouble
from vedette.streamer.outbox.records import Picture
from vedette.streamer.outbox.snapshots import Snapshots, looks_like_jpeg, snapshot_path
from vedette.streamer.outbox.store import Outbox
from vedette.streamer.types import Event
from vedette.streamer.wire import MAX_JPEG

JPEG = b"\xff\xd8\xff" + b"p" * 100 + b"\xff\xd9"


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """A store whose disk can be made to refuse."""
    box = Outbox(tmp_path, site="yard")
    yield box
    box.close()


def refuse(outbox: Outbox) -> None:
    """From now on no alert can be stored."""
    outbox._db.execute("CREATE TRIGGER full BEFORE INSERT ON alerts BEGIN SELECT RAISE(ABORT, 'disk is full'); END")


def allow(outbox: Outbox) -> None:
    """And now it can again."""
    outbox._db.execute("DROP TRIGGER full")


def committer(outbox: Outbox, counters: Counter[str], **bounds: int) -> Committer:
    """A committer over the store."""
    store = outbox.path.parent
    return Committer(outbox, Snapshots(store), DiskGuard(store, reserve_bytes=4096), counters, **bounds)


def arrive(number: int, jpeg: bytes = b"") -> Arrival:
    """An event as it came."""
    return Arrival(numbered_event(number), jpeg, b"infer")


def test_what_is_held_is_committed_in_order_when_the_disk_takes_it(outbox: Outbox) -> None:
    """Held events keep their order and are acknowledged only when they are committed."""
    counters: Counter[str] = Counter()
    made = committer(outbox, counters)
    refuse(outbox)
    for number in range(3):
        assert made.offer(arrive(number, JPEG))
    outcome, acknowledged = made.commit()
    assert (outcome.stored, acknowledged, made.held) == ([], [], 3)
    assert made.trouble is not None
    made.offer(arrive(3))
    allow(outbox)
    outcome, acknowledged = made.commit()
    assert [s.id for s in outcome.stored] == ["e0", "e1", "e2", "e3"]
    assert [a.event.id for a in acknowledged] == ["e0", "e1", "e2", "e3"]
    assert (made.held, made.trouble) == (0, None)
    assert b".jpg" in outcome.stored[0].body


def test_holding_is_bounded_in_events_and_bytes_and_counted(outbox: Outbox) -> None:
    """Beyond the bound an event is not taken (its producer keeps it), a picture is left out."""
    counters: Counter[str] = Counter()
    made = committer(outbox, counters, most_held=3, most_held_bytes=2 * len(JPEG))
    assert [made.offer(arrive(n, JPEG)) for n in range(5)] == [True, True, True, False, False]
    assert (counters["held_dropped"], counters["pictures_dropped"]) == (2, 1)
    assert made.offer(arrive(0, JPEG))  # the same telling again takes no room
    outcome, _ = made.commit()
    assert [b".jpg" in s.body for s in outcome.stored] == [True, True, False]


def test_the_default_bound_is_ten_thousand_events(outbox: Outbox) -> None:
    """The number of the contract."""
    counters: Counter[str] = Counter()
    made = committer(outbox, counters)
    taken = sum(made.offer(arrive(number)) for number in range(10_005))
    assert (taken, made.held, counters["held_dropped"]) == (10_000, 10_000, 5)


def test_a_greeting_that_could_not_be_stored_is_kept_too(outbox: Outbox) -> None:
    """The interrupted ends of a dead producer are not forgotten on a full disk."""
    counters: Counter[str] = Counter()
    made = committer(outbox, counters)
    made.offer(Greeting("infer", "boot-1"))
    made.offer(Arrival(numbered_event(1, phase="start"), b"", b""))
    made.commit()
    refuse(outbox)
    made.offer(Greeting("infer", "boot-2"))
    assert made.commit()[0].stored == []
    allow(outbox)
    assert [(s.id, s.rev) for s in made.commit()[0].stored] == [("e1", 1)]


def test_an_alert_matters_more_than_its_picture(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that cannot be written does not hold up its alert."""
    counters: Counter[str] = Counter()
    made = committer(outbox, counters)
    (outbox.path.parent / "evidence" / "dock").write_text("in the way")
    made.offer(arrive(1, JPEG))
    outcome, acknowledged = made.commit()
    assert b'"snapshot":null' in outcome.stored[0].body
    assert (len(acknowledged), counters["pictures_unwritten"]) == (1, 1)
    del monkeypatch


def test_a_slow_disk_costs_pictures_not_patience(outbox: Outbox) -> None:
    """Each picture takes a second: one commit spends no more than its share of the supervisor's patience on them, the
    rest of its alerts go without, and are counted."""
    now = [0.0]

    class Slow(Snapshots):
        def write_all(self, wanted: Sequence[tuple[Event, bytes]]) -> list[Picture]:
            now[0] += len(wanted)
            return super().write_all(wanted)

    counters: Counter[str] = Counter()
    store = outbox.path.parent
    guard = DiskGuard(store, reserve_bytes=4096)
    made = Committer(outbox, Slow(store), guard, counters, now_s=lambda: now[0])
    for number in range(100):
        made.offer(arrive(number, JPEG))
    outcome, acknowledged = made.commit()
    assert len(outcome.stored) == len(acknowledged) == 100
    with_picture = sum(b'"snapshot":null' not in alert.body for alert in outcome.stored)
    assert 0 < with_picture == now[0] <= PICTURES_S + FIRST_AT_ONCE < SLOW_DISK_S
    assert counters["pictures_unwritten"] == 100 - with_picture
    for number in range(100, 200):
        made.offer(arrive(number, JPEG))
    made.commit()
    assert now[0] - with_picture <= PICTURES_S + FIRST_AT_ONCE / 2  # it has learned to take fewer at once


def test_relief_takes_the_oldest_pictures_then_the_reserve_then_nothing(tmp_path: Path) -> None:
    """The order of design section 5; the reserve comes back when there is room."""
    snapshots = Snapshots(tmp_path)
    guard = DiskGuard(tmp_path, reserve_bytes=8192)
    assert guard.has_reserve
    for day in (3, 1, 2):
        snapshots.write(numbered_event(day, wall_s=day * 86400.0), JPEG)
    assert guard.relieve()
    assert (list(tmp_path.glob("evidence/*/*/*.jpg")), guard.has_reserve) == ([], True)
    assert guard.relieve()
    assert not (tmp_path / RESERVE).exists()
    assert not guard.relieve()
    guard.maintain()
    assert guard.has_reserve


def test_relief_deletes_no_more_than_it_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oldest day first, and it stops when enough is free."""
    monkeypatch.setattr("vedette.streamer.outbox.diskguard.RELIEF_BYTES", 150)
    snapshots = Snapshots(tmp_path)
    for day in (3, 1, 2):
        snapshots.write(numbered_event(day, wall_s=day * 86400.0), JPEG)
    guard = DiskGuard(tmp_path, reserve_bytes=4096)
    assert guard.relieve()
    assert [path.name for path in tmp_path.glob("evidence/*/*/*.jpg")] == ["e3-0.jpg"]
    assert guard.pictures_deleted == 2


def test_disk_trouble_is_told_from_other_trouble(tmp_path: Path) -> None:
    """Full, quota, read-only and I/O errors may pass; a missing table does not."""
    assert is_disk_trouble(OSError(errno.ENOSPC, "full"))
    assert is_disk_trouble(OSError(errno.EROFS, "read only"))
    assert not is_disk_trouble(OSError(errno.EACCES, "no"))
    db = sqlite3.connect(tmp_path / "x.db")
    with pytest.raises(sqlite3.Error) as caught:
        db.execute("SELECT * FROM nothing")
    assert not is_disk_trouble(caught.value)
    db.execute("CREATE TABLE t (x)")
    db.execute("PRAGMA max_page_count=2")
    with pytest.raises(sqlite3.Error) as caught:
        db.execute("INSERT INTO t VALUES (zeroblob(100000))")
    assert is_disk_trouble(caught.value)
    db.close()


def test_pictures_are_whole_or_absent(tmp_path: Path) -> None:
    """A staged leftover of a killed hub is swept; the path is made of checked parts only."""
    snapshots = Snapshots(tmp_path)
    (tmp_path / "evidence" / ".incoming" / "half.jpg").write_bytes(b"half")
    snapshots = Snapshots(tmp_path)
    assert list((tmp_path / "evidence" / ".incoming").iterdir()) == []
    event = numbered_event(7, wall_s=0.0)
    picture = snapshots.write(event, JPEG)
    assert picture.path == snapshot_path(event) == "evidence/dock/1970-01-01/e7-0.jpg"
    assert (tmp_path / picture.path).read_bytes() == JPEG
    assert os.path.commonpath([tmp_path, (tmp_path / picture.path).resolve()]) == str(tmp_path)


@pytest.mark.parametrize(
    ("data", "good"),
    [(JPEG, True), (b"", False), (b"\xff\xd8\xff", False), (b"GIF89a", False), (JPEG[:-1], False)],
)
def test_only_what_looks_like_a_jpeg_is_stored(data: bytes, good: bool) -> None:
    """Begin and end markers, and a size bound."""
    assert looks_like_jpeg(data) is good
    assert not looks_like_jpeg(JPEG[:-2] + b"x" * MAX_JPEG + b"\xff\xd9")


def test_a_disk_that_takes_nothing_at_all_is_no_crash(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a read-only disk nothing can be deleted either: nothing is relieved, nothing is raised."""
    store = outbox.path.parent
    guard = DiskGuard(store, reserve_bytes=4096)
    folder = store / "evidence" / "dock" / "2026-01-01"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(JPEG)

    def refuse(_path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", refuse)  # root may delete anything anywhere but on a disk that is really so
    assert guard.relieve() is False
    monkeypatch.undo()
    assert guard.relieve() is True


def test_a_store_that_cannot_be_opened_again_is_tried_at_every_commit(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit fails and the disk does not even take the opening that follows: held, tried again, and then numbered on."""
    made = committer(outbox, Counter())
    made.offer(arrive(1))
    assert len(made.commit()[1]) == 1
    refuse(outbox)

    def closed(_path: Path) -> sqlite3.Connection:
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr("vedette.streamer.outbox.store.connect", closed)
    made.offer(arrive(2, JPEG))
    for _ in range(3):
        assert made.commit()[1] == []
    assert (made.held, made.trouble) != (0, None)
    monkeypatch.undo()
    outbox.reopen()
    allow(outbox)
    outcome, acknowledged = made.commit()
    assert [alert.seq for alert in outcome.stored] == [2]
    assert (len(acknowledged), made.trouble) == (1, None)

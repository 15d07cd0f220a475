"""The store: gapless numbers, one row a telling, everything or nothing, and what survives a reopening."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vedette.streamer.alert import alert_schema
from vedette.streamer.bench._hub import numbered_event
from vedette.streamer.errors import StoreError
from vedette.streamer.outbox.database import DATABASE
from vedette.streamer.outbox.reader import OutboxReader
from vedette.streamer.outbox.records import Boot, Draft, Picture
from vedette.streamer.outbox.store import Outbox

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """An open store."""
    box = Outbox(tmp_path, site="yard")
    yield box
    box.close()


def bodies(outbox: Outbox, since: int = 0, **filters: Any) -> list[dict[str, Any]]:
    """Every alert after ``since`` as a reader gets it."""
    reader = OutboxReader(outbox.path.parent)
    try:
        return [json.loads(alert.body) for alert in reader.page(since, **filters).alerts]
    finally:
        reader.close()


def test_seq_counts_from_one_and_prev_follows_the_camera(outbox: Outbox) -> None:
    """seq is gapless over cameras; prev is the seq of the same camera's alert before."""
    cameras = ["dock", "gate", "dock", "dock", "gate"]
    outbox.commit([Draft(numbered_event(i, camera=camera)) for i, camera in enumerate(cameras[:2])])
    outbox.commit([Draft(numbered_event(i, camera=camera)) for i, camera in enumerate(cameras) if i >= 2])
    alerts = bodies(outbox)
    assert [a["seq"] for a in alerts] == [1, 2, 3, 4, 5]
    assert [a["prev"] for a in alerts] == [None, None, 1, 3, 2]
    assert {a["stream"] for a in alerts} == {outbox.stream}
    for alert in alerts:
        jsonschema.validate(alert, alert_schema())


def test_a_telling_is_stored_once(outbox: Outbox) -> None:
    """(id, rev) again, in the same transaction or a later one, takes no number."""
    first = outbox.commit([Draft(numbered_event(1)), Draft(numbered_event(1))])
    again = outbox.commit([Draft(numbered_event(1)), Draft(numbered_event(1, rev=1))])
    assert [s.seq for s in first.stored] == [1]
    assert [(s.seq, s.rev) for s in again.stored] == [(2, 1)]
    assert (first.duplicates, again.duplicates) == (1, 1)


def test_numbers_and_stream_survive_a_reopening(tmp_path: Path) -> None:
    """The counter, every camera's last alert and the stream's UUID are in the file."""
    first = Outbox(tmp_path, site="yard")
    first.commit([Draft(numbered_event(1)), Draft(numbered_event(2, camera="gate"))])
    stream = first.stream
    first.close()
    second = Outbox(tmp_path, site="yard")
    (stored,) = second.commit([Draft(numbered_event(3, camera="gate"))]).stored
    assert (second.stream, stored.seq, json.loads(stored.body)["prev"]) == (stream, 3, 2)
    second.close()


def test_a_failed_transaction_leaves_no_trace_and_no_hole(outbox: Outbox) -> None:
    """When one item cannot be stored none is, and the next commit continues the numbers."""
    outbox.commit([Draft(numbered_event(1))])
    outbox._db.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON alerts WHEN new.id='e3' BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    with pytest.raises(sqlite3.Error, match="no"):
        outbox.commit([Draft(numbered_event(2)), Draft(numbered_event(3))])
    assert [a["id"] for a in bodies(outbox)] == ["e1"]
    assert [s.seq for s in outbox.commit([Draft(numbered_event(2))]).stored] == [2]


def test_a_new_boot_ends_what_the_old_one_left_open(outbox: Outbox) -> None:
    """Open incidents of that producer, and only of it, end as interrupted; ended ones and its own boot are left alone."""
    outbox.commit(
        [
            Boot("infer", "a"),
            Draft(numbered_event(1, phase="start", boot="a")),
            Draft(numbered_event(2, phase="start", boot="a")),
            Draft(numbered_event(2, phase="end", rev=1, boot="a")),
            Draft(numbered_event(3, phase="start", producer="supervisor", boot="s")),
        ]
    )
    assert outbox.commit([Boot("infer", "a")]).stored == []
    (end,) = [json.loads(s.body) for s in outbox.commit([Boot("infer", "b")]).stored]
    assert (end["id"], end["rev"], end["phase"], end["explain"]["reason"]) == ("e1", 1, "end", "interrupted")
    assert end["latency_ms"] == {"capture": None, "infer": None, "total": None}
    assert outbox.commit([Boot("infer", "c")]).stored == []


def test_the_last_words_of_a_dead_life_do_not_stay_open(outbox: Outbox) -> None:
    """An event of an earlier boot that arrives after the new hello is an alert, and is ended at once."""
    outbox.commit([Boot("infer", "a"), Boot("infer", "b")])
    stored = outbox.commit(
        [Draft(numbered_event(1, phase="start", boot="a")), Draft(numbered_event(2, boot="a"))]
    ).stored
    assert [(s.id, s.rev) for s in stored] == [("e1", 0), ("e1", 1), ("e2", 0)]
    assert json.loads(stored[1].body)["explain"]["reason"] == "interrupted"


def test_the_hello_of_a_dead_life_after_its_heirs_changes_nothing(outbox: Outbox) -> None:
    """While the hub hung, both lives' messages piled up: the dead one's hello neither ends what the heir opened nor
    makes the heir's next incidents end at once."""
    outbox.commit([Boot("infer", "a")])
    late = [
        Boot("infer", "b"),
        Draft(numbered_event(1, phase="start", boot="b")),
        Boot("infer", "a"),
        Boot("infer", "b"),
    ]
    outcome = outbox.commit([*late, Draft(numbered_event(2, phase="start", boot="b"))])
    assert [(s.id, s.rev) for s in outcome.stored] == [("e1", 0), ("e2", 0)]
    assert outbox.boot_of("infer") == "b"


def test_one_transaction_knows_what_it_has_just_written(outbox: Outbox) -> None:
    """Within one batch: a repeated telling is a duplicate, an update shows its start's picture, a closed incident stays
    closed, and a hello ends what the batch itself left open."""
    picture = Picture("evidence/dock/2026-01-01/e1-0.jpg", 10, "0" * 64)
    start = numbered_event(1, phase="start", boot="a")
    outcome = outbox.commit(
        [
            Boot("infer", "a"),
            Draft(start, picture),
            Draft(start, picture),
            Draft(numbered_event(1, phase="update", rev=1, boot="a")),
            Draft(numbered_event(2, phase="start", boot="a")),
            Draft(numbered_event(2, phase="end", rev=1, boot="a")),
            Draft(numbered_event(2, phase="update", rev=2, boot="a")),
            Boot("infer", "b"),
        ]
    )
    tellings = [("e1", 0), ("e1", 1), ("e2", 0), ("e2", 1), ("e2", 2), ("e1", 2)]
    assert [(s.id, s.rev) for s in outcome.stored] == tellings
    assert (outcome.duplicates, outcome.interrupted) == (1, 1)
    told = bodies(outbox)
    assert [alert["seq"] for alert in told] == [1, 2, 3, 4, 5, 6]
    assert [alert["prev"] for alert in told] == [None, 1, 2, 3, 4, 5]
    assert [alert["id"] for alert in told if alert["evidence"]["snapshot"]] == ["e1", "e1", "e1"]
    assert outbox.commit([Boot("infer", "c")]).stored == []


def test_a_late_clip_does_not_open_an_incident_again(outbox: Outbox) -> None:
    """An update after the end (a clip that was finished later) is an alert, but nothing is left to interrupt."""
    phases = [("start", 0), ("end", 1), ("update", 2)]
    outbox.commit([Boot("infer", "a"), *(Draft(numbered_event(1, phase=p, rev=r, boot="a")) for p, r in phases)])  # type: ignore[arg-type]
    assert outbox.commit([Boot("infer", "b")]).stored == []


def test_pages_are_cut_by_number_and_by_size(outbox: Outbox) -> None:
    """A page never exceeds its limits but holds at least one alert, and `through` leads to the next."""
    outbox.commit([Draft(numbered_event(i)) for i in range(10)])
    reader = OutboxReader(outbox.path.parent)
    page = reader.page(2, 3)
    assert ([a.seq for a in page.alerts], page.through, page.last_seq) == ([3, 4, 5], 5, 10)
    assert [a.seq for a in reader.page(0, 5, max_bytes=1).alerts] == [1]
    seen, cursor = [], 0
    while cursor < 10:
        page = reader.page(cursor, 4, max_bytes=1200)
        seen += [a.seq for a in page.alerts]
        cursor = page.through
    assert seen == list(range(1, 11))
    assert reader.page(10).alerts == []
    reader.close()


def test_a_camera_page_reaches_over_the_alerts_of_others(outbox: Outbox) -> None:
    """With a filter `through` is the end of the store once nothing of that camera is left."""
    outbox.commit([Draft(numbered_event(i, camera="dock" if i < 3 else "gate")) for i in range(6)])
    reader = OutboxReader(outbox.path.parent)
    page = reader.page(0, camera="dock")
    assert ([a.seq for a in page.alerts], page.through) == ([1, 2, 3], 6)
    reader.close()


def test_a_removed_range_is_told(outbox: Outbox) -> None:
    """After retention a reader that is behind the floor gets an explicit gap, one that is not gets none."""
    picture = Picture("evidence/dock/2026-01-01/e0-0.jpg", 10, "0" * 64)
    outbox.commit([Draft(numbered_event(i), picture if i == 0 else None) for i in range(10)])
    outbox.remove_through(4)
    reader = OutboxReader(outbox.path.parent)
    page = reader.page(1)
    assert page.gap == {"first": 2, "last": 4, "reason": "retention"}
    assert ([a.seq for a in page.alerts], page.first_seq) == ([5, 6, 7, 8, 9, 10], 5)
    assert reader.page(4).gap is None
    assert reader.evidence(1, "snapshot") is None
    reader.close()
    assert outbox.picture_bytes() == 0


def test_a_latency_of_another_clock_is_not_told(outbox: Outbox) -> None:
    """A picture from the future or from yesterday's boot gives no total latency rather than a wrong one."""
    for number, mono_ns in enumerate((10**18, -1)):
        event = numbered_event(number)
        (stored,) = outbox.commit([Draft(event)], mono_ns=lambda m=mono_ns, e=event: e.mono_ns + m).stored  # type: ignore[misc]
        assert json.loads(stored.body)["latency_ms"]["total"] is None
    event = numbered_event(9)
    (stored,) = outbox.commit([Draft(event)], mono_ns=lambda: event.mono_ns + 5_000_000).stored
    assert json.loads(stored.body)["latency_ms"]["total"] == 5.0


def test_every_commit_is_synced(tmp_path: Path) -> None:
    """The connection that commits is in WAL mode with synchronous=FULL: SQLite then fsyncs the WAL at each commit."""
    box = Outbox(tmp_path, site="yard")
    assert box._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert box._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    box.close()


@pytest.mark.parametrize("damage", [b"this is not a database" * 100, b""], ids=["garbage", "empty"])
def test_a_damaged_store_is_a_clear_error_and_an_empty_file_is_a_new_one(tmp_path: Path, damage: bytes) -> None:
    """Garbage: StoreError that names the file and the fix. An empty file: SQLite's own way to begin."""
    (tmp_path / DATABASE).write_bytes(damage)
    if damage:
        with pytest.raises(StoreError, match=r"alerts\.db.*move a damaged file away"):
            Outbox(tmp_path, site="yard")
    else:
        Outbox(tmp_path, site="yard").close()


def test_a_store_of_another_layout_is_refused(tmp_path: Path) -> None:
    """A newer version's store is not touched."""
    box = Outbox(tmp_path, site="yard")
    box._db.execute("UPDATE meta SET value='999' WHERE key='layout'")
    box.close()
    with pytest.raises(StoreError, match="layout 999"):
        Outbox(tmp_path, site="yard")


_WRITER = """
import sys
from pathlib import Path
from vedette.streamer.bench._hub import numbered_event
from vedette.streamer.outbox.records import Draft
from vedette.streamer.outbox.store import Outbox
box = Outbox(Path(sys.argv[1]), site="yard")
n = box.last_seq
while True:
    for s in box.commit([Draft(numbered_event(n + i)) for i in range(3)]).stored:
        print(s.seq, s.id, flush=True)
    n += 3
"""


def test_what_a_killed_writer_reported_is_there(tmp_path: Path) -> None:
    """kill -9 between and inside transactions: every reported row is kept, and the numbers have no hole."""
    reported: list[tuple[int, str]] = []
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _line in range(20):
            seq, event_id = writer.stdout.readline().split()
            reported.append((int(seq), event_id))
        writer.kill()
        rest = writer.stdout.read()
        reported += [(int(a), b) for a, b in (line.split() for line in rest.splitlines() if line.count(" ") == 1)]
        writer.wait()
        writer.stdout.close()
    box = Outbox(tmp_path, site="yard")
    stored = dict(box._db.execute("SELECT seq, id FROM alerts").fetchall())
    assert sorted(stored) == list(range(1, box.last_seq + 1))
    assert all(stored[seq] == event_id for seq, event_id in reported)
    box.close()


def test_later_tellings_show_the_incidents_picture(outbox: Outbox) -> None:
    """An update or end without a picture of its own names the incident's newest one; its bytes count once."""
    picture = Picture("evidence/dock/2026-01-01/a-0.jpg", 1000, "ab" * 32)
    outbox.commit([Draft(numbered_event(1), picture), Draft(numbered_event(2))])
    outbox.commit([Draft(numbered_event(1, rev=1)), Draft(numbered_event(2, rev=1))])
    assert [a["evidence"]["snapshot"] for a in bodies(outbox)] == [picture.path, None, picture.path, None]
    assert bodies(outbox)[2]["evidence"]["sha256"] == picture.sha256
    assert outbox.picture_bytes() == 1000
    reader = OutboxReader(outbox.path.parent)
    assert reader.evidence(3, "snapshot") == outbox.path.parent / picture.path
    reader.close()

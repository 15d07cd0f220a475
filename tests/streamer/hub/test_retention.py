"""Retention removes what is old or too much, oldest first, says so, and never trusts a clock that jumped."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from vedette.streamer.bench._hub import numbered_event
from vedette.streamer.config.schema import RetentionSection
from vedette.streamer.hub.agingclock import PACE
from vedette.streamer.hub.retention import CHUNK, DAY_S, NOTE_S, Retention
from vedette.streamer.outbox.reader import OutboxReader
from vedette.streamer.outbox.records import Draft
from vedette.streamer.outbox.snapshots import Snapshots
from vedette.streamer.outbox.store import Outbox

T0 = 1_700_000_000.0


class Clock:
    """A wall and a monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.wall, self.mono = T0, 100.0

    def pass_(self, seconds: float) -> None:
        """Time passes."""
        self.wall += seconds
        self.mono += seconds


@pytest.fixture
def clock() -> Clock:
    """Now is T0."""
    return Clock()


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """A store."""
    box = Outbox(tmp_path, site="yard")
    yield box
    box.close()


def keeper(outbox: Outbox, clock: Clock, days: float = 30, max_gb: float = 10) -> Retention:
    """A retention over the store."""
    section = RetentionSection(days=days, max_gb=max_gb)
    return Retention(outbox, outbox.path.parent, section, wall_s=lambda: clock.wall, mono_s=lambda: clock.mono)


def commit(outbox: Outbox, clock: Clock, first: int, count: int, picture: bytes = b"") -> None:
    """Commit alerts now, perhaps with pictures."""
    snapshots = Snapshots(outbox.path.parent)
    drafts = []
    for number in range(first, first + count):
        event = numbered_event(number, wall_s=clock.wall)
        drafts.append(Draft(event, snapshots.write(event, picture) if picture else None))
    outbox.commit(drafts, wall_s=lambda: clock.wall)


def run(retention: Retention) -> int:
    """Step until nothing is left to do; how many steps that took."""
    steps = 1
    while retention.step():
        steps += 1
        assert steps < 1000, "retention does not come to an end"
    return steps


def pictures(store: Path) -> set[str]:
    """Every picture on disk."""
    return {path.name for path in store.glob("evidence/*/*/*.jpg")}


def test_old_alerts_and_their_pictures_go_and_the_gap_is_told(outbox: Outbox, clock: Clock) -> None:
    """After `days` a range from the beginning is gone, files and all; readers behind it get the gap."""
    retention = keeper(outbox, clock)
    commit(outbox, clock, 0, 5, b"p" * 100)
    clock.pass_(20 * DAY_S)
    commit(outbox, clock, 5, 5, b"p" * 100)
    clock.pass_(11 * DAY_S)
    run(retention)
    reader = OutboxReader(outbox.path.parent)
    page = reader.page(0)
    assert [a.seq for a in page.alerts] == [6, 7, 8, 9, 10]
    assert page.gap == {"first": 1, "last": 5, "reason": "retention"}
    assert pictures(outbox.path.parent) == {f"e{n}-0.jpg" for n in range(5, 10)}
    assert (retention.removed_alerts, retention.removed_pictures) == (5, 5)
    reader.close()


def test_numbers_go_on_after_everything_was_removed(outbox: Outbox, clock: Clock) -> None:
    """seq never begins again, and prev still names the camera's last alert."""
    retention = keeper(outbox, clock)
    commit(outbox, clock, 0, 3)
    clock.pass_(31 * DAY_S)
    run(retention)
    commit(outbox, clock, 3, 1)
    reader = OutboxReader(outbox.path.parent)
    (alert,) = reader.page(3).alerts
    assert alert.seq == 4
    assert b'"prev":3' in alert.body
    reader.close()


def test_it_works_in_small_steps(outbox: Outbox, clock: Clock) -> None:
    """A month's worth goes a chunk at a time, so that the hub's loop turns between."""
    retention = keeper(outbox, clock)
    commit(outbox, clock, 0, CHUNK * 3 + 10)
    clock.pass_(31 * DAY_S)
    assert run(retention) >= 4
    assert outbox.oldest(1) == []


def test_too_many_pictures_go_oldest_first_and_alerts_stay(outbox: Outbox, clock: Clock) -> None:
    """Over max_gb the oldest pictures are deleted until it fits; their alerts are still there."""
    commit(outbox, clock, 0, 40, b"p" * 50_000)
    run(keeper(outbox, clock, max_gb=(outbox.database_bytes() + 20 * 50_000) / 1e9))
    left = pictures(outbox.path.parent)
    assert left == {f"e{n}-0.jpg" for n in range(40 - len(left), 40)}
    assert 10 <= len(left) <= 20
    assert outbox.picture_bytes() == len(left) * 50_000
    reader = OutboxReader(outbox.path.parent)
    assert len(reader.page(0).alerts) == 40
    reader.close()


def test_without_pictures_the_oldest_alerts_make_room(outbox: Outbox, clock: Clock) -> None:
    """The database alone counts too."""
    commit(outbox, clock, 0, 2000)
    before = outbox.database_bytes()
    run(keeper(outbox, clock, max_gb=before / 2 / 1e9))
    assert outbox.database_bytes() <= before / 2
    assert outbox.floor > 0


def test_a_clock_that_jumps_ahead_costs_nothing_even_after_restarts(outbox: Outbox, clock: Clock) -> None:
    """Ten years at once is a broken clock, not ten years: nothing goes by age, by no life of the hub, and all is as it
    was once the clock is right again."""
    retention = keeper(outbox, clock)
    run(retention)
    commit(outbox, clock, 0, 5, b"p" * 100)
    for ahead_s in (3650 * DAY_S, -3650 * DAY_S):
        clock.wall += ahead_s
        run(retention)
        for _ in range(3):
            clock.pass_(60.0)
            run(keeper(outbox, clock))
    assert [seq for seq, _ in outbox.oldest(10)] == [1, 2, 3, 4, 5]
    assert len(pictures(outbox.path.parent)) == 5


def test_a_wrong_clock_ages_alerts_by_no_more_than_the_stated_pace(outbox: Outbox, clock: Clock) -> None:
    """While it is ten years ahead, what is `days` old by `PACE` times the time that really passed goes, and no more."""
    commit(outbox, clock, 0, 1)
    clock.pass_(DAY_S)
    run(keeper(outbox, clock))
    retention = keeper(outbox, clock, days=30)
    clock.wall += 3650 * DAY_S
    days = 0
    while outbox.oldest(1):
        clock.pass_(DAY_S)
        run(retention)
        days += 1
    assert days == math.ceil(30 / PACE)


def test_after_a_long_downtime_age_is_caught_up_with(outbox: Outbox, clock: Clock) -> None:
    """Off for a year: the time of that year is believed little by little, and then old alerts are gone."""
    run(keeper(outbox, clock))
    commit(outbox, clock, 0, 5)
    clock.wall += 365 * DAY_S
    clock.mono = 0.0
    retention = keeper(outbox, clock)
    run(retention)
    assert len(outbox.oldest(10)) == 5
    clock.pass_(365 / PACE * DAY_S)
    run(retention)
    assert outbox.oldest(10) == []


def test_a_machine_that_wakes_up_in_1970_loses_nothing_of_what_it_knew(outbox: Outbox, clock: Clock) -> None:
    """Without a battery the clock begins anew until it is set: the store still knows what time it was."""
    run(keeper(outbox, clock))
    clock.wall = 100.0
    run(keeper(outbox, clock))
    clock.wall = T0 + 31 * DAY_S
    clock.pass_(NOTE_S)
    retention = keeper(outbox, clock)
    assert outbox.known_time_s() == T0
    run(retention)
    clock.pass_(31 * DAY_S / PACE)
    commit(outbox, clock, 0, 1)
    clock.pass_(31 * DAY_S)
    run(retention)
    assert outbox.oldest(1) == []


def test_alerts_of_a_clock_that_was_behind_are_kept_with_the_newer_before_them(outbox: Outbox, clock: Clock) -> None:
    """A machine that booted in 1970 and then learned the time: what it committed before is not old."""
    commit(outbox, clock, 0, 2)
    clock.wall = 100.0
    commit(outbox, clock, 2, 2)
    clock.wall = T0 + 60
    run(keeper(outbox, clock))
    assert [seq for seq, _ in outbox.oldest(10)] == [1, 2, 3, 4]


def test_stray_pictures_of_old_days_go_and_referenced_ones_stay(outbox: Outbox, clock: Clock) -> None:
    """A picture whose alert was never committed does not stay for ever; one whose alert exists does, whatever its day."""
    store = outbox.path.parent
    snapshots = Snapshots(store)
    snapshots.write(numbered_event(1, wall_s=T0 - 90 * DAY_S), b"stray")
    event = numbered_event(2, wall_s=T0 - 95 * DAY_S)
    outbox.commit([Draft(event, snapshots.write(event, b"kept"))], wall_s=lambda: clock.wall)
    run(keeper(outbox, clock))
    assert pictures(store) == {"e2-0.jpg"}


def test_pictures_deleted_by_a_full_disk_are_forgotten(outbox: Outbox, clock: Clock) -> None:
    """Rows of files that are gone no longer count."""
    commit(outbox, clock, 0, 10, b"p" * 1000)
    for path in sorted(outbox.path.parent.glob("evidence/*/*/e[0-4]-0.jpg")):
        path.unlink()
    run(keeper(outbox, clock))
    assert outbox.picture_bytes() == 5000

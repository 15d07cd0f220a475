"""The delivery proof: hypothesis crashes, cuts off, fills up and forgets in any order; the account stays exact.

And the proof of the proof: with a bug planted in the product's code, the same machine fails.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.streamer.outbox.delivery_models import ModelHub, ModelOutbox, ModelSubscription, Plant
from tests.streamer.outbox.delivery_promise import check
from tests.streamer.outbox.delivery_world import World
from vedette.streamer import client, eventlink
from vedette.streamer.errors import StoreError
from vedette.streamer.eventlink import EventLink
from vedette.streamer.hub import role as hub
from vedette.streamer.infer.snapshotdesk import SnapshotDesk

#: A RAM disk where there is one: these are deaths of processes, not power cuts, and fsync costs nothing there.
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

CRASHES = st.sampled_from([None] * 5 + ["after_pictures", "before_commit", "after_commit", "after_ack", "publish"])
LOSS = st.lists(st.booleans(), max_size=4)
WHO = st.integers(0, 1)
CAMERA = st.sampled_from(["dock", "gate"])
READ = st.sampled_from([0, 0, 3])
WHAT = st.sampled_from(["start", "update", "end", "late"])


class Delivery(RuleBasedStateMachine):
    """One history. Whatever happened, it ends with everything working again, and the account is checked."""

    plant = Plant()

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="vedette-model-", dir=SCRATCH)
        self.world = World(Path(self.folder.name) / "store", self.plant)
        self.patches = [mock.patch.object(module, "time", self.world.clock) for module in (client, eventlink, hub)]
        for patch in self.patches:
            patch.start()

    @initialize()
    def meet(self) -> None:
        """Most histories begin with producers that have met the hub."""
        for producer in self.world.producers:
            producer.work()
        self.world.hub_turn(10, [])
        for reader in self.world.readers:
            reader.read(1, 0.3, save=True)

    @rule(who=WHO, camera=CAMERA, what=WHAT, loss=LOSS, crash_at=CRASHES, publish=st.integers(0, 3), count=READ)
    def pass_through(
        self, who: int, camera: str, what: str, loss: list[bool], crash_at: str | None, publish: int, count: int
    ) -> None:
        """An everyday turn of everybody: an event is raised, committed, published and read - as far as it gets."""
        for producer in self.world.producers:
            producer.snapshot(found=True)
            producer.work()
        self.happen(who, camera, what)
        self.world.hub_turn(5, loss, crash_at, publish)
        for reader in self.world.readers:
            reader.read(count, 0.3, save=True)

    @rule(who=WHO, camera=CAMERA, what=WHAT)
    def happen(self, who: int, camera: str, what: str) -> None:
        """Something is seen; infer's starts ask for a picture."""
        self.world.producers[who].happen(camera, what, who == 0)
        self.world.producers[who].work()

    @rule(who=WHO, found=st.booleans(), wait_s=st.sampled_from([0.0, 0.1, 0.4, 6.0]))
    def work(self, who: int, found: bool, wait_s: float) -> None:
        """A producer's loop turns; a picture may arrive, time may pass."""
        self.world.producers[who].snapshot(found)
        self.world.clock.advance(wait_s)
        self.world.producers[who].work()

    @rule(take=st.integers(0, 5), loss=LOSS, crash_at=CRASHES, publish=st.integers(0, 3), turned=st.booleans())
    def hub_turn(self, take: int, loss: list[bool], crash_at: str | None, publish: int, turned: bool) -> None:
        """The hub's loop turns, perhaps for the last time; ZeroMQ hands over its connections in any order."""
        if turned:
            self.world.wires.reverse()
        self.world.hub_turn(take, loss, crash_at, publish)

    @rule(heard=st.integers(0, 3))
    def hub_dies(self, heard: int) -> None:
        """Killed between two turns, or started again when it is dead."""
        if self.world.hub is None:
            self.world.start_hub()
        else:
            self.world.crash_hub(heard)

    @rule(who=WHO, arrives=st.integers(0, 5), turned=st.booleans())
    def producer_dies(self, who: int, arrives: int, turned: bool) -> None:
        """Killed and started again at once; what its heir says may be read before its own last words."""
        producer = self.world.producers[who]
        self.world.clock.advance(1.1)
        producer.work()
        producer.die(arrives)
        producer.work()
        if turned:
            self.world.wires.reverse()
            self.world.hub_turn(10, [])
            self.happen(who, "dock", "start")
            self.world.hub_turn(10, [])

    @rule(which=WHO, count=st.integers(1, 6), wait_s=st.sampled_from([0.3, 3.0]), save=st.booleans())
    def read(self, which: int, count: int, wait_s: float, save: bool) -> None:
        """A subscriber reads; perhaps it has not saved its cursor yet."""
        self.world.readers[which].read(count, wait_s, save=save)

    @rule(which=WHO, count=st.integers(0, 2), save=st.booleans())
    def reader_dies(self, which: int, count: int, save: bool) -> None:
        """A subscriber reads a little and begins again at its saved cursor."""
        self.world.readers[which].read(count, 3.0, save=save)
        self.world.reader_dies(which)

    @rule(which=WHO, loss=LOSS, newest=st.sampled_from([None, 0, 1]), dies=st.booleans())
    def nobody_reads(self, which: int, loss: list[bool], newest: int | None, dies: bool) -> None:
        """Alerts pile up; retention may remove them, a subscriber may come for one of them and die."""
        for _ in range(3):
            self.pass_through(1, "dock", "start", loss, None, 0, 0)
        if newest is not None:
            self.world.retain(newest)
        if dies:
            self.world.reader_dies(which)
            self.reader_dies(which, 1, True)

    @rule()
    def status(self) -> None:
        """The hub's second is over."""
        self.world.tell_status()

    @rule(newest=st.integers(0, 4))
    def retain(self, newest: int) -> None:
        """Retention."""
        self.world.retain(newest)

    @rule(full=st.sampled_from([True, False, False]))
    def disk(self, full: bool) -> None:
        """The disk is full, or has room again."""
        self.world.disk_full = full

    def teardown(self) -> None:
        """Everything works again; the account must be exact."""
        try:
            self.world.settle()
            check(self.world)
        finally:
            for patch in self.patches:
                patch.stop()
            self.world.close()
            self.folder.cleanup()


def run(plant: Plant, examples: int) -> None:
    """So many histories, always the same ones."""
    machine = type("Planted", (Delivery,), {"plant": plant})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_every_committed_alert_reaches_every_subscriber_once_and_in_order() -> None:
    """Producers, hub and subscribers die at any point, messages are lost, disks fill up, retention removes: seq has no
    hole, no telling is committed twice, what was acknowledged is there, open incidents of the dead are ended, and
    each subscriber that keeps a cursor has every alert once, in order, or an explicit gap."""
    run(Plant(), 30)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_over_many_histories() -> None:
    """Three hundred histories of up to thirty steps."""
    run(Plant(), 300)


class PublishesBeforeCommit(ModelHub):
    """Speaks of alerts before they are on disk."""

    def _commit(self) -> None:
        insert = self._outbox._insert

        def tell(draft: Any, batch: Any, wall_s: float, mono_ns: int) -> None:
            known = len(batch.outcome.stored)
            insert(draft, batch, wall_s, mono_ns)
            self._publisher.publish(batch.outcome.stored[known:])

        with mock.patch.object(self._outbox, "_insert", tell):
            super()._commit()


class AcknowledgesOnArrival(ModelHub):
    """Tells the producer to forget what is only in memory."""

    def _take(self, message: list[bytes]) -> None:
        queued = len(self._committer._queue)
        super()._take(message)
        self._acknowledge([item for item in self._committer._queue[queued:] if hasattr(item, "event")])


class TakesWhatWasMeantForItsPredecessor(ModelHub):
    """Commits new events before those that died with the hub before it."""

    def _take(self, message: list[bytes]) -> None:
        super()._take(message[:4])


class ForgetsWhatItHas(ModelOutbox):
    """No dedup on (id, rev)."""

    def known(self, event_id: str, rev: int) -> bool:
        """Never."""
        return not (event_id and rev >= 0)

    def _open(self) -> None:
        super()._open()
        self._db.execute("DROP INDEX IF EXISTS alerts_by_id")


class CountsOutsideTheTransaction(ModelOutbox):
    """A number is used up by a transaction that failed."""

    def commit(self, items: Any, **how: Any) -> Any:
        """Commit, or lose a number."""
        try:
            return super().commit(items, **how)
        except Exception:
            self.last_seq += 1
            raise


class LeavesIncidentsOpen(ModelOutbox):
    """Greets a new boot and asks nothing about the old one."""

    def _interrupt(self, event: Any, batch: Any, wall_s: float, mono_ns: int) -> None:
        """Not."""


class BelievesLateHellos(ModelHub):
    """Takes the hello of a dead life for a new one."""

    def _take(self, message: list[bytes]) -> None:
        self._born_ns.clear()
        if message[1] == b"hello":
            hello = json.loads(message[2])
            self._outbox._retired.pop((hello["producer"], hello["boot"]), None)
        super()._take(message)


class LosesPrev(ModelOutbox):
    """``prev`` starts anew with every hub."""

    def _load(self) -> None:
        super()._load()
        self.camera_seq = {}


class SendsOnce(EventLink):
    """Never sends again what a dead hub had not committed."""

    def _resend(self, now_s: float) -> None:
        """Not."""


class ForgetsWhenSent(EventLink):
    """Keeps nothing until it is acknowledged."""

    def _flush(self) -> None:
        super()._flush()
        for key in [key for key in self._waiting if key not in self._unsent]:
            self._forget(key)


class LetsTheEndOvertake(SnapshotDesk):
    """What needs no picture does not wait behind what does."""

    def put(self, event: Any, now_s: float, *, picture: bool) -> None:
        """Into the queue, or past it."""
        if picture and event.phase == "start":
            super().put(event, now_s, picture=picture)
        else:
            self._send(event, b"")


class SavesTheCursorEarly(ModelSubscription):
    """The cursor moves when an alert is received, not when it is given."""

    def _give(self, alert: dict[str, Any]) -> dict[str, Any]:
        given = super()._give(alert)
        if self._ready:
            self.cursor = int(self._ready[-1]["seq"])
        return given


class TrustsThePublisher(ModelSubscription):
    """Never looks whether a number was left out."""

    def _take_alert(self, alert: dict[str, Any]) -> None:
        if not self._behind and alert["seq"] > (self.cursor or 0):
            self._ready.append(alert)
        else:
            super()._take_alert(alert)


class GivesTwice(ModelSubscription):
    """Never looks whether it has been given already."""

    def _take_page(self, page: dict[str, Any]) -> None:
        super()._take_page(page)
        known = {alert["seq"] for alert in self._ready}
        self._ready.extendleft(alert for alert in page["alerts"][:1] if alert["seq"] in known)


class KeepsSilentAboutGaps(ModelSubscription):
    """What retention removed is nobody's business."""

    def _note_gap(self, gap: Any) -> None:
        """Not."""


class IgnoresTheStatus(ModelSubscription):
    """A lost tail stays lost until somebody speaks."""

    def _take_status(self, status: dict[str, Any]) -> None:
        """Not."""


BUGS = [
    Plant(hub=PublishesBeforeCommit),
    Plant(hub=AcknowledgesOnArrival),
    Plant(hub=TakesWhatWasMeantForItsPredecessor),
    Plant(outbox=ForgetsWhatItHas),
    Plant(outbox=CountsOutsideTheTransaction),
    Plant(outbox=LeavesIncidentsOpen),
    Plant(hub=BelievesLateHellos),
    Plant(outbox=LosesPrev),
    Plant(link=SendsOnce),
    Plant(link=ForgetsWhenSent),
    Plant(desk=LetsTheEndOvertake),
    Plant(subscription=SavesTheCursorEarly),
    Plant(subscription=TrustsThePublisher),
    Plant(subscription=GivesTwice),
    Plant(subscription=KeepsSilentAboutGaps),
    Plant(subscription=IgnoresTheStatus),
]


def name_of(plant: Plant) -> str:
    """The bug's class."""
    return next(cls.__name__ for cls in vars(plant).values() if cls.__module__ == __name__)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("plant", BUGS, ids=name_of)
def test_the_machine_finds_a_planted_bug(plant: Plant) -> None:
    """With this bug in the product's code the account is wrong, and the machine says so."""
    with pytest.raises((AssertionError, StoreError)) as found:
        run(plant, 200)
    assert found.value.args

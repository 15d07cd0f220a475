"""The delivery proof: hypothesis crashes, cuts off, fills up and forgets in any order; the account stays exact.

And the proof of the proof: with a bug planted in the product's code, the same machine fails.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.streamer.delivery_world import Plant, World, check
from vedette.streamer import client, eventlink, hub

#: A RAM disk where there is one: these are deaths of processes, not power cuts, and fsync costs nothing there.
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

CRASHES = st.sampled_from([None] * 8 + ["after_pictures", "before_commit", "after_commit", "after_ack", "publish"])
LOSS = st.lists(st.booleans(), max_size=4)
WHO = st.integers(0, 1)


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

    @rule(who=WHO, camera=st.sampled_from(["dock", "gate"]), what=st.sampled_from(["start", "update", "end", "late"]))
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

    @rule(take=st.integers(0, 5), loss=LOSS, crash_at=CRASHES, publish=st.integers(0, 3))
    def hub_turn(self, take: int, loss: list[bool], crash_at: str | None, publish: int) -> None:
        """The hub's loop turns, perhaps for the last time."""
        self.world.hub_turn(take, loss, crash_at, publish)

    @rule(heard=st.integers(0, 3))
    def hub_dies(self, heard: int) -> None:
        """Killed between two turns, or started again when it is dead."""
        if self.world.hub is None:
            self.world.start_hub()
        else:
            self.world.crash_hub(heard)

    @rule(who=WHO, arrives=st.integers(0, 3))
    def producer_dies(self, who: int, arrives: int) -> None:
        """Killed and started again at once."""
        self.world.producers[who].die(arrives)
        self.world.producers[who].work()

    @rule(which=WHO, count=st.integers(1, 6), save=st.booleans())
    def read(self, which: int, count: int, save: bool) -> None:
        """A subscriber reads; perhaps it has not saved its cursor yet."""
        self.world.readers[which].read(count, 0.3, save=save)

    @rule(which=WHO)
    def reader_dies(self, which: int) -> None:
        """A subscriber begins again at its saved cursor."""
        self.world.reader_dies(which)

    @rule()
    def status(self) -> None:
        """The hub's second is over."""
        self.world.tell_status()

    @rule(newest=st.integers(0, 4))
    def retain(self, newest: int) -> None:
        """Retention."""
        self.world.retain(newest)

    @rule(full=st.booleans())
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
            stateful_step_count=40,
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
    run(Plant(), 40)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_over_many_histories() -> None:
    """A thousand histories of forty steps."""
    run(Plant(), 1000)

"""What a camera can do to us: only that camera suffers, it is said, and it is back when it is well again."""

from __future__ import annotations

import time

import psutil
import pytest

from tests.faults.daemon import wait_for
from tests.faults.frames import ENOUGH
from tests.faults.load import kept_under_load
from tests.faults.report import tell
from tests.faults.world import LOGIN, OTHERS, VICTIM, World

pytestmark = [pytest.mark.data, pytest.mark.slow, pytest.mark.timeout(240)]

PROMISE = "others within 5 % of their fps, nothing lost or doubled, no leak, back by itself"


def heard(world: World, kind: str, since: int) -> bool:
    """Whether the subscriber has an alert of that kind about the victim after so many."""
    return any(a["kind"] == kind and a["camera"] == VICTIM for a in world.listener.alerts[since:])


def test_a_flapping_camera_costs_nobody_else(world: World) -> None:
    """Its connection is cut every 1.5 s: the same process reconnects each time, the others keep their rate."""
    before, pids = world.calm(), world.pids()
    with world.proxy.flapping(1.5) as cuts:
        kept = world.others_keep()
        cut = cuts[0]
    back_s = world.recovery_s(time.monotonic())
    after = world.settle(before)
    assert cut >= 5
    assert world.pids() == pids
    tell("camera flaps (cut every 1.5 s)", PROMISE, cuts=cut, others_kept=kept, recovery_s=back_s, **after)


def test_a_frozen_camera_is_told_and_costs_nobody_else(world: World) -> None:
    """It sends the same picture for ever: `camera_frozen` is raised; a moving picture ends it."""
    before, pids, seen = world.calm(), world.pids(), len(world.listener.alerts)
    world.serve("--freeze-after", "20")
    began_s = time.monotonic()
    wait_for("camera_frozen", lambda: heard(world, "camera_frozen", seen), 60)
    told_s = round(time.monotonic() - began_s, 1)
    kept = world.others_keep()
    world.serve()
    back_s = world.recovery_s(time.monotonic())
    frozen = [a["phase"] for a in world.listener.alerts[seen:] if a["kind"] == "camera_frozen"]
    after = world.settle(before)
    assert world.pids() == pids
    assert frozen[0] == "start"
    tell("camera freezes", PROMISE, told_after_s=told_s, others_kept=kept, recovery_s=back_s, **after)


@pytest.mark.parametrize("mode", ["trickle", "swallow"])
def test_a_camera_that_dribbles_or_is_mute_costs_nobody_else(world: World, mode: str) -> None:
    """It accepts and then sends a byte each half second, or nothing: `camera_offline` is raised, no descriptor piles up."""
    before, seen = world.calm(), len(world.listener.alerts)
    world.proxy.mode = "trickle" if mode == "trickle" else "swallow"
    try:
        world.proxy.cut()
        wait_for("camera_offline", lambda: heard(world, "camera_offline", seen), 60)
        kept = world.others_keep()
        capture = world.daemon.pid("capture", VICTIM)
        held = psutil.Process(capture).num_fds() if capture else 0
        assert held <= before.processes[f"vd-{VICTIM}"] + 8, "descriptors pile up"
    finally:
        world.proxy.mode = "pass"
        world.proxy.cut()
    back_s = world.recovery_s(time.monotonic())
    what = "slow loris: a byte each 0.5 s" if mode == "trickle" else "camera accepts and never answers"
    tell(what, PROMISE, others_kept=kept, recovery_s=back_s, tries=world.proxy.accepted, **world.settle(before))


def test_a_camera_that_changes_size_and_rate_goes_on(world: World) -> None:
    """640x360 at 10 becomes 320x180 at 5 in the middle of the stream: pictures go on, by the same process, without a
    new connection (OpenCV scales them to the size it opened with)."""
    before, pids = world.calm(), world.pids()
    world.serve("--change-after", "60", "--change-size", "320x180", "--change-fps", "5")
    wait_for("the first of it", lambda: world.daemon.row(VICTIM).get("state") == "streaming", 60)
    world.recovery_s(time.monotonic())

    epochs = {epoch for name, epoch in world.watch.first if name == VICTIM}
    interval_s = "vedette_camera_frame_interval_seconds"
    wait_for("the new rate", lambda: world.daemon.metric(interval_s, camera=VICTIM) > 0.15, 60)
    again_s = world.recovery_s(time.monotonic())
    kept = world.others_keep()
    assert {epoch for name, epoch in world.watch.first if name == VICTIM} == epochs
    world.serve()
    world.recovery_s(time.monotonic())
    after = world.settle(before)
    assert world.pids() == pids
    tell("resolution and fps change in the stream", PROMISE, others_kept=kept, next_picture_s=again_s, **after)


def test_revoked_credentials_are_said_and_never_shown(world: World) -> None:
    """The password is changed under us: `refused`, tried slowly, the secret in no log line; back when it is restored."""
    before, pids, tries = world.calm(), world.pids(), world.proxy.accepted
    world.serve("--user", "viewer", "--password", "another")
    wait_for("refused", lambda: world.daemon.row(VICTIM).get("state") == "refused", 60)
    kept = world.others_keep()
    tried = world.proxy.accepted - tries
    world.serve("--user", "viewer", "--password", LOGIN.partition(":")[2])
    back_s = world.recovery_s(time.monotonic())
    after = world.settle(before)
    assert world.pids() == pids
    assert LOGIN.partition(":")[2] not in world.daemon.log.read_text()
    assert any("wrong user or password" in line for line in world.daemon.messages())
    world.serve()
    tell("credentials revoked", PROMISE, others_kept=kept, connections=tried, recovery_s=back_s, **after)


def test_a_capture_without_memory_costs_one_restart(world: World) -> None:
    """Its address space is closed (RLIMIT_AS): that process is replaced once, no other is."""
    before, pids = world.calm(), world.pids()
    restarts = world.daemon.row(VICTIM)["restarts"]
    victim = psutil.Process(pids[VICTIM])
    victim.rlimit(psutil.RLIMIT_AS, (1 << 20, 1 << 20))  # less than it has: nothing more can be mapped
    began_s = time.monotonic()
    # what it has mapped already may do for a while; a new connection needs more
    world.proxy.cut()
    wait_for("replaced", lambda: world.daemon.pid("capture", VICTIM) not in (None, pids[VICTIM]), 60)
    died_s = round(time.monotonic() - began_s, 1)
    kept = world.others_keep()
    back_s = world.recovery_s(time.monotonic())
    after = world.settle(before)
    assert world.daemon.row(VICTIM)["restarts"] == restarts + 1
    assert {name: pid for name, pid in world.pids().items() if name != VICTIM} == {
        name: pid for name, pid in pids.items() if name != VICTIM
    }
    promise = "one restart of that camera only; " + PROMISE
    tell("capture out of memory", promise, died_after_s=died_s, others_kept=kept, recovery_s=back_s, **after)


def test_others_keep_their_rate_without_any_fault(world: World) -> None:
    """The yardstick: with no fault the same count says that all four cameras get their rate."""
    before = world.calm()
    kept, world.load = kept_under_load(world.daemon, world.watch, (VICTIM, *OTHERS), world.fps)
    assert kept is None or kept >= ENOUGH
    tell("none (the yardstick)", "four cameras at their fps", kept=kept, fps=world.fps, **world.settle(before))

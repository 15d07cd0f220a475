"""kill -9 and SIGSTOP of the daemon's processes, one by one and in pairs, while alerts flow and a subscriber listens.

(kill -9 of one role, ten times: tests/faults/test_daemon.py.)
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.daemon import alive, wait_for
from tests.faults.report import tell
from tests.faults.world import VICTIM, World
from vedette.streamer.hub.role import SLOW_DISK_S

pytestmark = [pytest.mark.data, pytest.mark.slow, pytest.mark.timeout(240)]

ROLES = ("hub", "infer", VICTIM, "supervisor")
PAIRS = list(itertools.combinations(ROLES, 2))
CHILDREN = [pair for pair in PAIRS if "supervisor" not in pair]
PROMISE = "0 committed alerts lost, 0 doubled, no leak, back by itself"


def pid_of(world: World, name: str) -> int:
    """The pid of a process of the daemon, once it lives."""
    if name == "supervisor":
        assert world.daemon.process is not None
        return world.daemon.process.pid
    return int(wait_for(f"pid of {name}", lambda: pid if alive(pid := world.pids().get(name) or -1) else None, 60))


def restart_if_killed(world: World, names: tuple[str, ...]) -> None:
    """What systemd does when the supervisor was killed; everybody has died with it by then."""
    if "supervisor" in names:
        assert world.daemon.process is not None
        world.daemon.process.wait(10)
        world.daemon.start()
        world.daemon.wait_ready()


def again_after(world: World, seen: int, began_s: float) -> float:
    """Seconds until the next new alert that is not about the outage itself."""
    wait_for("alerts flow again", lambda: any("zone" in a["kind"] for a in world.listener.alerts[seen:]), 90)
    return round(time.monotonic() - began_s, 1)


@pytest.mark.parametrize("pair", PAIRS, ids=["+".join(pair) for pair in PAIRS])
def test_killing_two_at_once_loses_and_doubles_nothing(world: World, pair: tuple[str, str]) -> None:
    """SIGKILL of two processes in the same moment: both are back, the subscriber has exactly what was committed."""
    before = world.calm()
    pids = [pid_of(world, name) for name in pair]
    seen, began_s = len(world.listener.alerts), time.monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    restart_if_killed(world, pair)
    again_s = again_after(world, seen, began_s)
    world.calm()
    tell(f"kill -9 of {' and '.join(pair)}", PROMISE, alerts_again_s=again_s, **world.settle(before))


@pytest.mark.parametrize("name", ["hub", "infer", VICTIM])
def test_a_stopped_process_is_replaced(world: World, name: str) -> None:
    """SIGSTOP: its silence is found and it is replaced, the others keep their pids, and nothing is lost. A stopped hub is
    found like any other, not after what a slow disk may take."""
    before, pids = world.calm(), world.pids()
    seen, began_s = len(world.listener.alerts), time.monotonic()
    os.kill(pids[name], signal.SIGSTOP)
    kept: dict[str, object] = {}
    with ThreadPoolExecutor(1) as aside:
        share = aside.submit(world.others_keep, windows=1) if name == VICTIM else None
        wait_for("replaced", lambda: world.pids().get(name) not in (None, pids[name]), 90)
        replaced_s = round(time.monotonic() - began_s, 1)
        if share is not None:
            kept["others_kept"] = share.result()
            wait_for("alerts of the others go on", lambda: len(world.listener.alerts) > seen, 60)
    wait_for("the stopped one is gone", lambda: not alive(pids[name]), 5)
    again_s = again_after(world, len(world.listener.alerts), began_s)
    after = world.settle(before)
    assert {n: p for n, p in world.pids().items() if n != name} == {n: p for n, p in pids.items() if n != name}
    silent = re.compile(rf"^{name}: silent for (\d+) s")
    silences_s = [int(found[1]) for line in world.daemon.messages() if (found := silent.match(line))]
    assert name != "hub" or silences_s[-1] < SLOW_DISK_S / 2
    tell(f"SIGSTOP of {name}", PROMISE, replaced_s=replaced_s, alerts_again_s=again_s, **kept, **after)


def test_a_stopped_supervisor_costs_nobody_anything(world: World) -> None:
    """SIGSTOP of the supervisor: cameras, infer and hub work on; after SIGCONT nobody is killed for its own absence."""
    before, pids = world.calm(), world.pids()
    supervisor = pid_of(world, "supervisor")
    os.kill(supervisor, signal.SIGSTOP)
    try:
        seen = len(world.listener.alerts)
        kept = world.others_keep()
        assert len(world.listener.alerts) > seen
    finally:
        os.kill(supervisor, signal.SIGCONT)
    wait_for("it noticed", lambda: any("did not run for" in line for line in world.daemon.messages()), 20)
    after = world.settle(before)
    assert world.pids() == pids
    tell("SIGSTOP of supervisor", "nobody else stops; nobody is killed for it", others_kept=kept, **after)


@pytest.mark.parametrize("pair", CHILDREN, ids=["+".join(pair) for pair in CHILDREN])
def test_stopping_two_at_once_loses_and_doubles_nothing(world: World, pair: tuple[str, str]) -> None:
    """SIGSTOP of two processes: both are replaced, the third keeps its pid, nothing is lost."""
    before, pids = world.calm(), world.pids()
    began_s = time.monotonic()
    for name in pair:
        os.kill(pids[name], signal.SIGSTOP)
    for name in pair:
        wait_for(f"{name} replaced", lambda name=name: world.pids().get(name) not in (None, pids[name]), 120)
    again_s = again_after(world, len(world.listener.alerts), began_s)
    world.calm()
    after = world.settle(before)
    assert {n: p for n, p in world.pids().items() if n not in pair} == {n: p for n, p in pids.items() if n not in pair}
    tell(f"SIGSTOP of {' and '.join(pair)}", PROMISE, alerts_again_s=again_s, **after)


@pytest.mark.parametrize("name", ["infer", "hub", VICTIM])
def test_a_supervisor_stopped_with_a_child_finds_it_afterwards(world: World, name: str) -> None:
    """SIGSTOP of supervisor and a child, SIGCONT of the supervisor alone: the child is found silent and replaced."""
    before, pids = world.calm(), world.pids()
    supervisor = pid_of(world, "supervisor")
    began_s = time.monotonic()
    os.kill(supervisor, signal.SIGSTOP)
    os.kill(pids[name], signal.SIGSTOP)
    try:
        time.sleep(3.0)  # the fault is this long, nothing is waited for
    finally:
        os.kill(supervisor, signal.SIGCONT)
    wait_for(f"{name} replaced", lambda: world.pids().get(name) not in (None, pids[name]), 90)
    again_s = again_after(world, len(world.listener.alerts), began_s)
    world.calm()
    tell(f"SIGSTOP of supervisor and {name}", PROMISE, alerts_again_s=again_s, **world.settle(before))


def test_a_kill_while_another_is_stopped_loses_and_doubles_nothing(world: World) -> None:
    """The hub is killed while infer is stopped: events that infer held are committed after both are back or lost with
    infer before they were raised; the subscriber has exactly what was committed."""
    before, pids = world.calm(), world.pids()
    began_s = time.monotonic()
    os.kill(pids["infer"], signal.SIGSTOP)
    os.kill(pids["hub"], signal.SIGKILL)
    wait_for("hub back", lambda: world.pids().get("hub") not in (None, pids["hub"]), 60)
    os.kill(pids["infer"], signal.SIGCONT)
    again_s = again_after(world, len(world.listener.alerts), began_s)
    world.calm()
    tell("kill -9 of hub while infer is stopped", PROMISE, alerts_again_s=again_s, **world.settle(before))

"""Whatever is killed, only that suffers; whoever is silent is killed; a killed supervisor leaves nobody and nothing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.supervised import PATIENCE_S, Daemon, ServiceManager

TWO = "{a: {source: /steady}, b: {source: /steady}}"
UP = {"hub": "serving", "infer": "idle", "a": "streaming", "b": "streaming"}


def test_a_killed_child_is_back_and_nobody_else_notices(tmp_path: Path) -> None:
    """kill -9 of capture, infer and hub in turn: the same role returns with another pid, every other pid stays."""
    with Daemon(tmp_path, TWO) as daemon:
        table = daemon.until_states(**UP)
        rings = set()
        for name in ("a", "infer", "hub", "a"):
            before = daemon.table()
            os.kill(before[name]["pid"], signal.SIGKILL)
            table = daemon.until(
                lambda n=name, b=before: t if (t := daemon.table())[n]["pid"] not in (None, b[n]["pid"]) else None
            )
            daemon.until_states(**UP)
            table = daemon.table()
            for other in UP:
                if other != name:
                    assert table[other]["pid"] == before[other]["pid"], (name, other)
            (run_dir,) = daemon.runtime.iterdir()
            present = {path.name for path in run_dir.glob("ring-*") if path.is_file()}
            assert sorted(ring.rpartition("-")[0] for ring in present) == ["ring-a", "ring-b"]
            assert len([path for path in run_dir.glob("ring-*") if path.is_fifo()]) == 2  # and each ring's lane
            rings |= present
        assert len(rings) == 3  # every life of a capture process had its own ring
        assert table["a"]["restarts"] == 2
        assert daemon.stop() == 0


def test_a_silent_child_is_killed_and_replaced(tmp_path: Path) -> None:
    """A stopped (SIGSTOP) infer and a camera that stops reporting are found by their silence; others keep their pids."""
    with Daemon(tmp_path, "{a: {source: /steady}, b: {source: /deaf}}") as daemon:
        before = daemon.until_states(hub="serving", infer="idle", a="streaming")
        os.kill(before["infer"]["pid"], signal.SIGSTOP)
        daemon.until(lambda: daemon.table()["b"]["restarts"] >= 1)
        daemon.until(lambda: daemon.table()["infer"]["restarts"] >= 1)
        after = daemon.until_states(hub="serving", infer="idle", a="streaming")
        assert after["hub"]["pid"] == before["hub"]["pid"]
        assert after["a"]["pid"] == before["a"]["pid"]
        assert after["infer"]["pid"] != before["infer"]["pid"]
        assert "hung: silent" in after["infer"]["last_error"]
        daemon.stop()


@pytest.mark.slow
def test_a_machine_that_slept_kills_nobody(tmp_path: Path) -> None:
    """Supervisor and children stopped together for longer than their patience (docker pause): all go on, same pids."""
    with Daemon(tmp_path, "{a: {source: /steady}}") as daemon:
        before = daemon.until_states(hub="serving", infer="idle", a="streaming")
        everybody = [*daemon.descendants(), psutil.Process(daemon.process.pid if daemon.process else 0)]
        for process in reversed(everybody):  # the supervisor first, so that it sees no silence meanwhile
            process.suspend()
        time.sleep(PATIENCE_S + 0.5)  # the fault itself: time in which nobody runs
        for process in reversed(everybody):  # and it is the first to look
            process.resume()
        daemon.until(lambda: any("did not run for" in line for line in daemon.log()))
        reports = len(daemon.told("process"))
        daemon.until(lambda: len(daemon.told("process")) > reports + 2)
        after = daemon.until_states(hub="serving", infer="idle", a="streaming")
        assert {name: row["pid"] for name, row in after.items()} == {name: row["pid"] for name, row in before.items()}
        assert daemon.stop() == 0


def test_a_camera_that_keeps_crashing_waits_and_is_told_offline(tmp_path: Path) -> None:
    """SIGABRT in every life: two free restarts, then backoff; the camera is offline, the daemon stays up."""
    cameras = "{a: {source: /aborts}, b: {source: /steady}}"
    with ServiceManager(tmp_path) as manager, Daemon(tmp_path, cameras, environment=manager.environment(1.0)) as daemon:
        before = daemon.until_states(hub="serving", infer="idle", b="streaming")
        daemon.until(lambda: daemon.table()["a"]["restarts"] >= 3)
        assert "SIGABRT" in daemon.table()["a"]["last_error"]
        daemon.until(lambda: any(e["kind"] == "camera_offline" for e in daemon.lines("events.jsonl")))
        waits = [line for line in daemon.log() if line.startswith("a: died (SIGABRT)")]
        assert [line.endswith("next start now") for line in waits[:3]] == [True, True, False]
        assert daemon.table()["b"]["pid"] == before["b"]["pid"]
        fed = manager.said.count("WATCHDOG=1")
        daemon.until(lambda: manager.said.count("WATCHDOG=1") > fed)  # a dead camera never restarts the daemon
        assert daemon.stop() == 0


def test_a_killed_supervisor_leaves_nobody_and_the_next_start_sweeps(tmp_path: Path) -> None:
    """kill -9 of the supervisor: its children, even a stopped one, are gone within 2 s; a new start cleans and works."""
    with Daemon(tmp_path, TWO) as daemon:
        table = daemon.until_states(**UP)
        children = daemon.descendants()
        assert len(children) == 4
        os.kill(table["a"]["pid"], signal.SIGSTOP)
        daemon.signal(signal.SIGKILL)
        daemon.wait()
        _, alive = psutil.wait_procs(children, timeout=2)
        assert alive == []
        (run_dir,) = daemon.runtime.iterdir()
        left = {path.name for path in run_dir.glob("ring-*")}
        assert left
        told = len(daemon.told("process"))
        daemon.start()
        daemon.until(lambda: len(daemon.told("process")) > told)
        daemon.until_states(**UP)
        assert not left & {path.name for path in run_dir.iterdir()}
        assert daemon.stop() == 0
        assert list(daemon.runtime.iterdir()) == []

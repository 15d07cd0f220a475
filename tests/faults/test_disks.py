"""A disk that is slow, turns read-only, or is full from the start, under the whole daemon: detection goes on, alerts wait.

(Full while running, step by step: tests/faults/test_hub_disk_full.py.)
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import pytest
import zmq

from tests.faults.cameras import busy_camera
from tests.faults.daemon import Daemon, wait_for
from tests.faults.disks import fill, loop_disk, tmpfs
from tests.faults.frames import ENOUGH
from tests.faults.load import Cost, kept_under_load
from tests.faults.report import tell
from tests.faults.running import streaming

pytestmark = [pytest.mark.data, pytest.mark.slow, pytest.mark.timeout(240)]

CAMERAS = ("east", "north", "south", "west")
#: What a bad memory card may take.
WRITES_PER_S = 20


def daemon_on(disk: Path, folder: Path, clip: Path, cost: Cost) -> Daemon:
    """A daemon with four busy cameras whose store lies on that disk."""
    folder.mkdir(exist_ok=True)
    daemon = Daemon(folder, {name: busy_camera(clip) | {"fps": cost.fps(len(CAMERAS))} for name in CAMERAS})
    daemon.store = disk / "store"
    daemon.config["alerts"]["store"] = str(daemon.store)
    daemon.write()
    return daemon


def counters(daemon: Daemon) -> dict[str, int]:
    """The hub's counters, as it publishes them."""
    with contextlib.closing(zmq.Context.instance().socket(zmq.SUB)) as socket:
        socket.linger = 0
        socket.connect(daemon.publish)
        socket.subscribe(b"status.hub")
        assert socket.poll(60_000), "the hub is silent"
        found: dict[str, int] = json.loads(socket.recv_multipart()[1])["counters"]
        return found


def test_a_slow_disk_delays_alerts_and_nothing_else(tmp_path: Path, data_dir: Path, cost: Cost) -> None:
    """Twenty writes a second are all the disk takes: nobody is called hung and killed, alerts arrive, late, some without
    their picture, and the subscriber has exactly what was committed."""
    with loop_disk(tmp_path) as disk:
        daemon = daemon_on(disk.place, tmp_path / "d", data_dir / "clips" / "vtest.avi", cost)
        with streaming(daemon, CAMERAS) as (listener, _):
            pids = {row["name"]: row["pid"] for row in daemon.processes()}
            disk.slow(WRITES_PER_S)
            seen, began_s = len(listener.alerts), time.monotonic()
            wait_for("alerts all the same", lambda: len(listener.alerts) > seen + 20, 90)
            late_s = round(time.monotonic() - began_s, 1)
            told = counters(daemon)
            disk.slow(0)
            left_out = int(told.get("pictures_unwritten", 0))
            alerts = listener.agrees_with(daemon)
            assert {row["name"]: row["pid"] for row in daemon.processes()} == pids
    tell(
        f"disk slow ({WRITES_PER_S} writes a second, blkio throttle on a loop device)",
        "nobody is called hung; alerts before their pictures; 0 lost, 0 doubled",
        twenty_alerts_after_s=late_s,
        pictures_left_out=left_out,
        alerts=alerts,
        lost=0,
        doubled=0,
    )


def test_a_disk_that_turns_read_only_stops_no_camera(tmp_path: Path, data_dir: Path, cost: Cost) -> None:
    """An error makes ext4 read-only: said aloud, detection goes on, nothing is published that is not committed; stopped,
    checked, mounted and started again it goes on where it was, and the subscriber that stayed has exactly the store."""
    with loop_disk(tmp_path) as disk:
        daemon = daemon_on(disk.place, tmp_path / "d", data_dir / "clips" / "vtest.avi", cost)
        with streaming(daemon, CAMERAS) as (listener, watch):
            pids = {row["name"]: row["pid"] for row in daemon.processes()}
            disk.break_()
            wait_for("said aloud", lambda: any("does not take" in line for line in daemon.messages()), 60)
            committed = len(daemon.committed())
            wait_for("events wait", lambda: daemon.metric("vedette_infer_events_unacked") > 0, 60)
            kept, load = kept_under_load(daemon, watch, CAMERAS, cost.fps(len(CAMERAS)))
            assert {row["name"]: row["pid"] for row in daemon.processes()} == pids
            assert len(daemon.committed()) == committed
            code = daemon.stop()
            disk.repair()
            mended_s = time.monotonic()
            daemon.start()
            wait_for("alerts again", lambda: len(listener.alerts) > committed, 90)
            again_s = round(time.monotonic() - mended_s, 1)
            alerts = listener.agrees_with(daemon)
            assert kept is None or kept >= ENOUGH
            assert code == 0  # nobody had to be killed; that events were left is in the log
            assert any("were not acknowledged" in line for line in daemon.messages())
    tell(
        "disk turns read-only (ext4 error on a loop device), then mended and restarted",
        "said aloud, cameras keep their fps, nothing unstored is published, 0 lost, 0 doubled",
        pictures_kept=kept,
        load=load,
        alerts_again_s=again_s,
        alerts=alerts,
        lost=0,
        doubled=0,
    )


def test_a_full_disk_under_the_whole_daemon_stops_no_camera(tmp_path: Path, data_dir: Path, cost: Cost) -> None:
    """Every byte is taken while alerts flow: pictures are analysed on, alerts wait and are committed once there is room."""
    with tmpfs(tmp_path / "disk", 64 * 1024) as disk:
        daemon = daemon_on(disk, tmp_path / "d", data_dir / "clips" / "vtest.avi", cost)
        with streaming(daemon, CAMERAS) as (listener, watch):

            def held() -> bool:
                fill(disk)
                return any("does not take" in line for line in daemon.messages())

            wait_for("nothing is left to give", held, 90)
            kept, load = kept_under_load(daemon, watch, CAMERAS, cost.fps(len(CAMERAS)))
            seen = len(listener.alerts)
            (disk / "filler").unlink()
            free_s = time.monotonic()
            wait_for("alerts again", lambda: len(listener.alerts) > seen, 60)
            again_s = round(time.monotonic() - free_s, 1)
            alerts = listener.agrees_with(daemon)
            assert kept is None or kept >= ENOUGH
    promise = "cameras keep their fps, held alerts committed once there is room, 0 lost, 0 doubled"
    tell("disk full", promise, pictures_kept=kept, load=load, alerts_again_s=again_s, alerts=alerts, lost=0, doubled=0)

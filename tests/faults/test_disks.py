"""A disk that is slow, turns read-only, or is full from the start, under the whole daemon: detection goes on, alerts wait.

(Full while running, step by step: tests/faults/test_hub_disk_full.py.)
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.daemon import Daemon, Listener, wait_for
from tests.faults.disks import fill, loop_disk, tmpfs
from tests.faults.frames import ENOUGH, FrameWatch
from tests.faults.report import tell
from tests.faults.world import FPS, busy_camera

pytestmark = [pytest.mark.data, pytest.mark.slow, pytest.mark.timeout(240)]

CAMERAS = ("east", "west")


def daemon_on(disk: Path, folder: Path, clip: Path) -> Daemon:
    """A daemon with two busy cameras whose store lies on that disk."""
    folder.mkdir(exist_ok=True)
    daemon = Daemon(folder, {name: busy_camera(clip) | {"fps": FPS} for name in CAMERAS})
    daemon.store = disk / "store"
    daemon.config["alerts"]["store"] = str(daemon.store)
    daemon.write()
    return daemon


def hub_status(daemon: Daemon) -> dict[str, object]:
    """The hub's own report."""
    row = daemon.row("hub")
    return {"state": row.get("state"), "pid": row.get("pid"), **row.get("beat", {})}


def test_a_slow_disk_delays_alerts_and_nothing_else(tmp_path: Path, data_dir: Path) -> None:
    """Four writes a second are all the disk takes: nobody is called hung, cameras keep their rate, alerts arrive late."""
    with loop_disk(tmp_path) as disk:
        daemon = daemon_on(disk.place, tmp_path / "d", data_dir / "clips" / "vtest.avi")
        try:
            daemon.start()
            daemon.wait_ready()
            listener, watch = Listener(daemon), FrameWatch(daemon.publish)
            daemon.wait_streaming(*CAMERAS)
            pids = {row["name"]: row["pid"] for row in daemon.processes()}
            disk.slow(4)
            seen, began_s = len(listener.alerts), time.monotonic()
            kept = watch.kept(CAMERAS, FPS)
            wait_for("alerts all the same", lambda: len(listener.alerts) > seen, 90)
            first_s = round(time.monotonic() - began_s, 1)
            disk.slow(0)
            alerts = listener.agrees_with(daemon)
            assert {row["name"]: row["pid"] for row in daemon.processes()} == pids
            assert daemon.stop() == 0
            watch.close()
        finally:
            daemon.close()
    tell(
        "disk slow (4 writes a second, blkio throttle on a loop device)",
        "nobody is called hung, cameras keep their fps, 0 lost, 0 doubled",
        pictures_kept=kept,
        writes_per_s=4,
        window_s=first_s,
        alerts=alerts,
        lost=0,
        doubled=0,
    )


def test_a_disk_that_turns_read_only_holds_alerts_until_it_is_mended(tmp_path: Path, data_dir: Path) -> None:
    """Writes fail and ext4 goes read-only: said aloud, detection goes on, events wait; after the repair, and whatever
    the hub needs to see it, what was held is committed and the subscriber has it all."""
    with loop_disk(tmp_path) as disk:
        daemon = daemon_on(disk.place, tmp_path / "d", data_dir / "clips" / "vtest.avi")
        try:
            daemon.start()
            daemon.wait_ready()
            listener, watch = Listener(daemon), FrameWatch(daemon.publish)
            daemon.wait_streaming(*CAMERAS)
            wait_for("alerts", lambda: len(listener.alerts) >= 3, 60)
            captures = {row["name"]: row["pid"] for row in daemon.processes() if row["camera"]}
            disk.break_()
            wait_for("said aloud", lambda: any("does not take" in line for line in daemon.messages()), 60)
            seen = len(listener.alerts)
            wait_for("events wait", lambda: daemon.row("infer").get("beat", {}).get("unacked", 0) > 0, 60)
            pictures = {name: watch.count(name) for name in CAMERAS}
            wait_for("detection goes on", lambda: all(watch.count(n) > pictures[n] + 5 for n in CAMERAS), 60)
            disk.repair()
            mended_s = time.monotonic()
            wait_for("alerts again", lambda: len(listener.alerts) > seen, 90)
            again_s = round(time.monotonic() - mended_s, 1)
            alerts = listener.agrees_with(daemon)
            assert {row["name"]: row["pid"] for row in daemon.processes() if row["camera"]} == captures
            assert daemon.stop() == 0
            watch.close()
        finally:
            daemon.close()
    tell(
        "disk turns read-only (ext4 on a failing loop device), then mended",
        "said aloud, detection goes on, held alerts committed, 0 lost, 0 doubled",
        alerts_again_s=again_s,
        alerts=alerts,
        lost=0,
        doubled=0,
    )


def test_a_full_disk_under_the_whole_daemon_stops_no_camera(tmp_path: Path, data_dir: Path) -> None:
    """Every byte is taken while alerts flow: pictures are analysed on, alerts wait and are committed once there is room."""
    with tmpfs(tmp_path / "disk", 64 * 1024) as disk:
        daemon = daemon_on(disk, tmp_path / "d", data_dir / "clips" / "vtest.avi")
        try:
            daemon.start()
            daemon.wait_ready()
            listener, watch = Listener(daemon), FrameWatch(daemon.publish)
            daemon.wait_streaming(*CAMERAS)
            wait_for("alerts", lambda: len(listener.alerts) >= 3, 60)

            def held() -> bool:
                fill(disk)
                return any("does not take" in line for line in daemon.messages())

            wait_for("nothing is left to give", held, 90)
            kept = watch.kept(CAMERAS, FPS)
            seen = len(listener.alerts)
            (disk / "filler").unlink()
            free_s = time.monotonic()
            wait_for("alerts again", lambda: len(listener.alerts) > seen, 60)
            again_s = round(time.monotonic() - free_s, 1)
            alerts = listener.agrees_with(daemon)
            assert kept is None or kept >= ENOUGH
            assert daemon.stop() == 0
            watch.close()
        finally:
            daemon.close()
    promise = "cameras keep their fps, held alerts committed once there is room, 0 lost, 0 doubled"
    tell("disk full", promise, pictures_kept=kept, alerts_again_s=again_s, alerts=alerts, lost=0, doubled=0)

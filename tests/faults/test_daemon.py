"""The whole daemon on real video: cameras become tracks and alerts, and killing any part loses nothing that was raised."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.faults.cameras import busy_camera
from tests.faults.daemon import Daemon, Listener, alive, wait_for
from tests.faults.report import percentile, tell

pytestmark = pytest.mark.data


@pytest.fixture
def daemon(tmp_path: Path, data_dir: Path) -> Iterator[Daemon]:
    """A running daemon with two busy cameras."""
    clip = data_dir / "clips" / "vtest.avi"
    running = Daemon(tmp_path, {"east": busy_camera(clip), "west": busy_camera(clip)})
    try:
        running.start()
        running.wait_ready()
        yield running
    finally:
        running.close()


def test_a_clip_becomes_tracks_and_alerts(daemon: Daemon) -> None:
    """Alerts arrive gapless with a snapshot whose hash is right, tracks flow, and SIGTERM ends it cleanly."""
    listener = Listener(daemon)
    wait_for("alerts", lambda: len(listener.alerts) >= 12, 60)
    listener.check()
    start = next(a for a in listener.alerts if a["phase"] == "start" and a["evidence"]["snapshot"])
    assert start["kind"] in ("zone", "line")
    assert start["track_ids"][0].startswith(f"{start['camera']}/")
    picture = (daemon.store / start["evidence"]["snapshot"]).read_bytes()
    assert hashlib.sha256(picture).hexdigest() == start["evidence"]["sha256"]

    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.connect(daemon.publish)
    socket.subscribe(b"track.east")
    assert socket.poll(10_000), "no track message"
    topic, body = socket.recv_multipart()
    assert topic == b"track.east"
    assert json.loads(body)["camera"] == "east"
    socket.close(0)

    pids = [row["pid"] for row in daemon.processes()]
    assert len(pids) == 4
    assert daemon.stop() == 0, daemon.log.read_text()[-3000:]
    wait_for("children gone", lambda: not any(alive(pid) for pid in pids), 2)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("role", ["capture", "infer", "hub", "supervisor"])
def test_kill_nine_times_ten(daemon: Daemon, role: str) -> None:
    """SIGKILL of one role, ten times: the subscriber has exactly what was committed, in order, nothing twice."""
    listener = Listener(daemon)
    wait_for("first alerts", lambda: len(listener.alerts) >= 3, 60)
    again_s = []
    for _ in range(10):
        seen, began_s = len(listener.alerts), time.monotonic()
        if role == "supervisor":
            pids = [row["pid"] for row in daemon.processes()]
            daemon.kill()
            wait_for("children died with it", lambda pids=pids: not any(alive(p) for p in pids), 2)
            daemon.start()
            daemon.wait_ready()
        else:
            if role == "capture":
                daemon.wait_streaming("east")  # killed while it works, not while it waits for its next life
            pid = wait_for(f"pid of {role}", lambda: daemon.pid(role, "east" if role == "capture" else None), 30)
            os.kill(pid, signal.SIGKILL)
            wait_for("killed", lambda pid=pid: not alive(pid), 2)
        wait_for(f"alerts after the kill of {role}", lambda seen=seen: len(listener.alerts) > seen, 60)
        again_s.append(time.monotonic() - began_s)
    alerts = listener.agrees_with(daemon)
    assert daemon.stop() == 0, daemon.log.read_text()[-3000:]
    tell(
        f"kill -9 of {role}, ten times",
        "0 committed alerts lost, 0 doubled, last seq is the hub's",
        kills=10,
        alerts=alerts,
        lost=0,
        doubled=0,
        alerts_again_after_s_p95=round(percentile(again_s, 95), 1),
    )

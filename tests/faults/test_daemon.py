"""The whole daemon on real video: cameras become tracks and alerts, and killing any part loses nothing that was raised."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.faults.daemon import Daemon, Listener, alive, wait_for

pytestmark = pytest.mark.data


def busy_camera(clip: Path) -> dict[str, Any]:
    """A clip as an endless live camera whose rules fire all the time."""
    columns = [i / 6 for i in range(7)]
    zones = {f"z{i}": [[a, 0.0], [b, 0.0], [b, 1.0], [a, 1.0]] for i, (a, b) in enumerate(itertools.pairwise(columns))}
    return {
        "source": str(clip),
        "loop": True,
        "fps": 7,
        "zones": zones,
        "lines": {"middle": [[0.5, 0.0], [0.5, 1.0]]},
        "rules": [
            *({"kind": "zone", "zone": zone} for zone in zones),
            {"kind": "line", "line": "middle", "direction": "both"},
        ],
    }


@pytest.fixture
def daemon(tmp_path: Path, data_dir: Path) -> Iterator[Daemon]:
    """A running daemon with two busy cameras."""
    clip = data_dir / "clips" / "vtest.avi"
    running = Daemon(tmp_path, {"east": busy_camera(clip), "west": busy_camera(clip)})
    running.start()
    running.wait_ready()
    yield running
    if running.process is not None and running.process.poll() is None:
        running.kill()


def committed(daemon: Daemon) -> list[dict[str, Any]]:
    """Every alert of the store, over HTTP."""
    alerts: list[dict[str, Any]] = []
    while True:
        since = alerts[-1]["seq"] if alerts else 0
        page = daemon.get(f"/api/v1/alerts?from={since}")
        assert page is not None
        if not page["alerts"]:
            return alerts
        alerts += page["alerts"]


def caught_up(daemon: Daemon, listener: Listener) -> list[dict[str, Any]]:
    """The store's alerts once the subscriber has them all."""
    store = committed(daemon)
    wait_for("subscriber caught up", lambda: len(listener.alerts) >= len(store), 20)
    return store


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
    for _ in range(10):
        seen = len(listener.alerts)
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
    store = caught_up(daemon, listener)
    listener.check()
    assert [a["seq"] for a in store] == list(range(1, len(store) + 1))
    assert [(a["id"], a["rev"]) for a in listener.alerts[: len(store)]] == [(a["id"], a["rev"]) for a in store]
    assert daemon.stop() == 0, daemon.log.read_text()[-3000:]


@pytest.mark.slow
def test_a_stopped_capture_costs_only_its_camera(daemon: Daemon) -> None:
    """SIGSTOP of one capture: it is replaced, the other camera's process stays and its alerts go on."""
    daemon.wait_streaming("east", "west")  # a child that still starts is given a minute
    east = wait_for("east", lambda: daemon.pid("capture", "east"), 30)
    west = wait_for("west", lambda: daemon.pid("capture", "west"), 30)
    os.kill(east, signal.SIGSTOP)
    try:
        wait_for("east replaced", lambda: daemon.pid("capture", "east") not in (None, east), 60)
    finally:
        if alive(east):
            os.kill(east, signal.SIGKILL)
    assert daemon.pid("capture", "west") == west
    listener = Listener(daemon)
    began = time.monotonic()
    wait_for("alerts of west", lambda: any(a["camera"] == "west" and a["seq"] for a in listener.alerts), 60)
    assert time.monotonic() - began < 60
    assert daemon.stop() == 0

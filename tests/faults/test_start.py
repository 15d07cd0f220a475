"""What can be wrong at the start and at a reload: ports taken, no room for rings, a broken configuration."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests import supervised
from tests.faults.cameras import busy_camera
from tests.faults.daemon import Daemon, Listener, wait_for
from tests.faults.disks import fill, tmpfs
from tests.faults.leaks import as_before, holdings
from tests.faults.report import tell

TWO = "{a: {source: /steady}, b: {source: /steady}}"
UP = {"hub": "serving", "infer": "idle", "a": "streaming", "b": "streaming"}


def test_a_broken_configuration_on_reload_changes_nothing(tmp_path: Path) -> None:
    """SIGHUP with YAML that cannot be read, then with a wrong value: said with file and line, every pid stays; the
    mended file is taken over."""
    with supervised.Daemon(tmp_path, TWO) as daemon:
        before = {name: row["pid"] for name, row in daemon.until_states(**UP).items()}
        good = daemon.config.read_text()
        for broken, said in (("version: [1\n", "config.yaml:"), (good + "surprise: 1\n", "surprise")):
            refused = sum("the one that runs stays" in line for line in daemon.log())
            daemon.config.write_text(broken)
            daemon.signal(signal.SIGHUP)
            daemon.until(lambda n=refused: sum("the one that runs stays" in x for x in daemon.log()) > n)
            assert any(said in line for line in daemon.log())
        reports = len(daemon.told("process"))
        daemon.until(lambda: len(daemon.told("process")) > reports + 1)
        assert {name: row["pid"] for name, row in daemon.table().items()} == before
        daemon.write("{a: {source: /steady}}")
        daemon.signal(signal.SIGHUP)
        daemon.until(lambda: set(daemon.table()) == {"hub", "infer", "a"})
        assert {n: p for n, p in before.items() if n != "b"} == {n: r["pid"] for n, r in daemon.table().items()}
        assert daemon.stop() == 0
    tell("configuration broken on reload (twice)", "the last good one stays, file:line is said", restarts=0)


def test_no_room_for_a_ring_costs_only_the_cameras_that_need_it(tmp_path: Path) -> None:
    """The run folder's tmpfs holds one ring of two: that camera works, the other is told offline with the reason, and
    comes up by itself when there is room."""
    with (
        tempfile.TemporaryDirectory(prefix="vd-") as place,  # short: sockets lie in it
        tmpfs(Path(place), 16 * 1024) as shm,
        supervised.Daemon(tmp_path, "{}", environment={"XDG_RUNTIME_DIR": str(shm)}) as daemon,
    ):
        daemon.until_states(hub="serving", infer="idle")
        fill(shm)
        daemon.write(TWO)
        daemon.signal(signal.SIGHUP)
        told = daemon.until(lambda: [e for e in daemon.lines("events.jsonl") if e["kind"] == "camera_offline"])
        daemon.until(lambda: "cannot start" in str(daemon.table().get("a", {}).get("last_error")))
        assert "No space left" in daemon.table()["a"]["last_error"]
        assert not list(shm.glob("vedette-*/ring-*"))  # nothing half made
        began_s = time.monotonic()
        (shm / "filler").unlink()
        daemon.until_states(**UP)
        up_s = round(time.monotonic() - began_s, 1)
        assert daemon.stop() == 0
        assert not list(shm.glob("vedette-*"))
    tell("/dev/shm full", "told, nothing half made, up by itself when there is room", told=len(told), up_after_s=up_s)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_taken_ports_are_said_together_and_a_stolen_one_is_waited_for(tmp_path: Path, data_dir: Path) -> None:
    """At the start: exit 2, each port with file, line and key. Stolen while the hub is being restarted: tried again
    until it is free, and what happened meanwhile is committed."""
    camera = busy_camera(data_dir / "clips" / "vtest.avi") | {"fps": 3}
    daemon = Daemon(tmp_path, {"east": camera})
    ports = [int(address.rpartition(":")[2]) for address in (daemon.publish, daemon.replay, daemon.http)]
    thieves = [socket.create_server(("127.0.0.1", port)) for port in ports]
    command = [sys.executable, "-m", "vedette.streamer.cli", "run", str(daemon.path)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    for thief in thieves:
        thief.close()
    assert refused.returncode == 2
    for key in ("alerts.publish", "alerts.replay", "http.listen"):
        assert any(key in line and "in use" in line for line in refused.stderr.splitlines()), refused.stderr
    try:
        daemon.start()
        daemon.wait_ready()
        listener = Listener(daemon)
        wait_for("alerts", lambda: len(listener.alerts) >= 3, 60)
        before = holdings(daemon)
        hub = wait_for("the hub", lambda: daemon.pid("hub"))
        subprocess.run(["kill", "-9", str(hub)], check=True)
        thief = wait_for("the port is stolen", lambda: steal(ports[0]), 10)
        wait_for("said", lambda: any("hub: died" in x and "exit 2" in x for x in daemon.messages()), 60)
        seen, freed_s = len(listener.alerts), time.monotonic()
        thief.close()
        wait_for("alerts again", lambda: len(listener.alerts) > seen, 60)
        again_s = round(time.monotonic() - freed_s, 1)
        alerts = listener.agrees_with(daemon)
        as_before(daemon, before)
        assert daemon.stop() == 0
    finally:
        daemon.close()
    promise = "exit 2 with every key; a stolen port is waited for, 0 lost, 0 doubled"
    tell("ports taken", promise, alerts_again_s=again_s, alerts=alerts, lost=0, doubled=0)


def steal(port: int) -> socket.socket | None:
    """The port, once it is free."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return None

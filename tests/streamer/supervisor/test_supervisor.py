"""The supervisor with real processes: starts, reloads, stops, and truthful exit codes."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.supervised import Daemon, ServiceManager


def order(log: list[str], *names: str) -> list[int]:
    """Where each message first stands in the log."""
    return [next(i for i, line in enumerate(log) if name in line) for name in names]


def test_a_daemon_starts_serves_and_stops_cleanly(tmp_path: Path) -> None:
    """hub, infer, captures in this order; reversed at the end; systemd hears it; exit 0; nothing is left behind."""
    cameras = "{a: {source: /steady}, b: {source: /ended}}"
    with ServiceManager(tmp_path) as manager, Daemon(tmp_path, cameras, environment=manager.environment(0.4)) as daemon:
        table = daemon.until_states(hub="serving", infer="idle", a="streaming", b="ended")
        daemon.until(lambda: daemon.table()["b"]["pid"] is None)
        assert daemon.table()["b"]["restarts"] == 0
        assert table["a"]["beat"]["cameras"] == ["a"]  # a capture process knows no other camera
        (run_dir,) = daemon.runtime.iterdir()
        assert run_dir.stat().st_mode & 0o777 == 0o750
        assert {path.name.partition("-")[0] for path in run_dir.iterdir()} == {"events.sock", "ring", "telemetry.sock"}
        daemon.until(lambda: "STATUS=1 of 2 cameras streaming" in manager.said)
        daemon.until(lambda: manager.said.count("WATCHDOG=1") >= 2)
        assert "READY=1" in manager.said
        assert any(status["state"] == "streaming" and status["fps"] == 10.0 for status in daemon.told("status.a"))

        second = Daemon(tmp_path, "{a: {source: /steady}}").start()
        assert second.wait() == 2
        assert any(f"pid {daemon.process and daemon.process.pid}" in line for line in second.log())
        second.runtime.rmdir()

        children = daemon.descendants()
        assert len(children) == 3
        assert daemon.stop() == 0
        assert "STOPPING=1" in manager.said
        assert not any(child.is_running() for child in children)
        assert list(daemon.runtime.iterdir()) == []
        log = daemon.log()
        started, stopped = (
            [f"{n}: started" for n in ("hub", "infer", "a")],
            [f"{n}: stopped" for n in ("a", "infer", "hub")],
        )
        places = order(log, *started, *stopped)
        assert places == sorted(places)
        assert daemon.lines("events.jsonl") == []


def test_reload_restarts_only_what_changed(tmp_path: Path) -> None:
    """Rules reach infer, a new source its camera only; a wrong file changes nothing; a store cannot move."""
    with Daemon(tmp_path, "{a: {source: /steady}, b: {source: /steady}, gone: {source: /steady}}") as daemon:
        before = daemon.until_states(hub="serving", infer="idle", a="streaming", b="streaming", gone="streaming")
        zone = "zones: {gate: [[0, 0], [1, 0], [1, 1]]}, rules: [{kind: zone, zone: gate}]"
        daemon.write(f"{{a: {{source: /steady, {zone}}}, b: {{source: /steady-too}}, new: {{source: /steady}}}}")
        daemon.signal(signal.SIGHUP)
        after = daemon.until_states(hub="serving", infer="idle", a="streaming", b="streaming", new="streaming")
        after = daemon.until(lambda: daemon.table() if daemon.table()["b"]["pid"] != before["b"]["pid"] else None)
        daemon.until(lambda: daemon.table()["infer"]["beat"]["heard"] == [["reload", ["a", "b", "new"]]])
        for name in ("hub", "infer", "a"):
            assert after[name]["pid"] == before[name]["pid"], name
        daemon.until(lambda: "gone" not in daemon.table())

        good = daemon.config.read_text()
        for wrong in (good.replace("new:", "new: {}\n  NEW:"), good.replace("/store'", "/store2'")):
            refused = len([line for line in daemon.log() if "the one that runs stays" in line])
            daemon.config.write_text(wrong)
            daemon.signal(signal.SIGHUP)
            daemon.until(lambda n=refused: len([x for x in daemon.log() if "the one that runs stays" in x]) > n)
        assert any("alerts.store: cannot change while running" in line for line in daemon.log())
        daemon.until(lambda: daemon.told("process")[-1]["counters"]["reloads_refused"] == 2)
        assert daemon.told("process")[-1]["counters"]["reloads"] == 1
        assert {n: row["pid"] for n, row in daemon.table().items()} == {
            n: daemon.until_states(new="streaming")[n]["pid"] for n in ("hub", "infer", "a", "b", "new")
        }

        daemon.config.write_text(good + "engine: {size: 320x192}\n")
        daemon.signal(signal.SIGHUP)
        daemon.until(
            lambda: all(daemon.table()[n]["beat"].get("input_hw") == [192, 320] for n in ("infer", "a", "b", "new"))
        )
        assert daemon.table()["hub"]["pid"] == before["hub"]["pid"]
        assert daemon.stop() == 0


def test_no_engine_is_exit_3_with_the_sentence(tmp_path: Path) -> None:
    """When infer cannot load its engine at the first start, everything stops and the reason is said."""
    with Daemon(tmp_path, "{a: {source: /steady}}", extra="engine: {detector: missing}\n") as daemon:
        assert daemon.wait() == 3
        assert any("no model is called 'missing'" in line for line in daemon.log())
        assert list(daemon.runtime.iterdir()) == []


def test_an_unusable_database_is_exit_2_with_the_sentence(tmp_path: Path) -> None:
    """A store the hub refuses at the first start ends the daemon instead of a restart loop."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "hopeless").touch()
    with Daemon(tmp_path, "{a: {source: /steady}}") as daemon:
        assert daemon.wait() == 2
        assert any("the database is not one" in line for line in daemon.log())


def test_a_child_that_does_not_stop_is_killed_and_told(tmp_path: Path) -> None:
    """SIGTERM ignored by a camera: killed within the 8 s, exit 1, the others stop cleanly."""
    with Daemon(tmp_path, "{a: {source: /stubborn}, b: {source: /steady}}") as daemon:
        daemon.until_states(a="streaming", b="streaming")
        children = daemon.descendants()
        began_s = time.monotonic()
        assert daemon.stop() == 1
        assert time.monotonic() - began_s < 8
        assert not any(child.is_running() for child in children)
        assert list(daemon.runtime.iterdir()) == []
        assert [line for line in daemon.log() if "did not stop cleanly" in line] == ["a: did not stop cleanly"]


@pytest.mark.slow
def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    """The second SIGINT kills what still lives at once."""
    with Daemon(tmp_path, "{a: {source: /stubborn}}") as daemon:
        daemon.until_states(a="streaming")
        daemon.signal(signal.SIGINT)
        daemon.until(lambda: "stopping" in daemon.log())
        began_s = time.monotonic()
        while daemon.process is not None and daemon.process.poll() is None:
            daemon.signal(signal.SIGINT)  # the first of these may still count as an echo
            time.sleep(0.3)
        assert daemon.wait() == 1
        assert time.monotonic() - began_s < 2  # patience with the stubborn one would take longer
        assert list(daemon.runtime.iterdir()) == []


def test_camera_alerts_reach_the_hub(tmp_path: Path) -> None:
    """offline, frozen and back are raised over the event link, each start with its end, none for the first connection."""
    switch = tmp_path / "on"
    cameras = (
        f"{{a: {{source: '/while:{switch}', offline_after: 1}}, still: {{source: /still}}, ended: {{source: /ended}}}}"
    )
    with Daemon(tmp_path, cameras) as daemon:

        def events(camera: str) -> list[tuple[str, str]]:
            return [(e["kind"], e["phase"]) for e in daemon.lines("events.jsonl") if e["camera"] == camera]

        daemon.until(lambda: events("a") == [("camera_offline", "start")])
        switch.touch()
        daemon.until(lambda: events("a")[1:] == [("camera_offline", "end")])
        switch.unlink()
        daemon.until(lambda: len(events("a")) == 3)
        daemon.until(lambda: daemon.told("status.a")[-1]["state"] == "offline")
        switch.touch()
        daemon.until(
            lambda: events("a")[3:] == [("camera_offline", "end"), ("camera_back", "start"), ("camera_back", "end")]
        )
        assert events("still") == [("camera_frozen", "start")]
        assert daemon.stop() == 0
        assert events("still") == [("camera_frozen", "start"), ("camera_frozen", "end")]
        assert events("ended") == []
        back = [e for e in daemon.lines("events.jsonl") if e["kind"] == "camera_back"]
        assert back[0]["id"] == back[1]["id"]
        assert [e["rev"] for e in back] == [0, 1]
        assert back[0]["explain"]["outage_s"] >= 1
        assert all(e["producer"] == "supervisor" for e in daemon.lines("events.jsonl"))

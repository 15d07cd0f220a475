"""vedette watch as people run it: a process on a real hub, line by line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from vedette.streamer.alert import alert_from_event
from vedette.streamer.bench._hub import HubProcess, numbered_event
from vedette.streamer.commands.watch import alert_line, telemetry_line
from vedette.streamer.eventlink import EventLink
from vedette.streamer.telemetry import TelemetryLink


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub that holds six alerts of two cameras."""
    with HubProcess(tmp_path_factory.mktemp("watch") / "store") as running:
        with EventLink(running.events, "infer", "boot-1") as link:
            for number in range(6):
                link.send(numbered_event(number, camera=("dock", "dock2")[number % 2]))
            assert link.drain(10)
        yield running


def watch(hub: HubProcess, *arguments: str) -> subprocess.Popen[str]:
    """Start it."""
    command = [sys.executable, "-m", "vedette.streamer.cli", "watch", hub.publish, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    """Status, lines, what it complained about."""
    out, err = process.communicate(timeout=30)
    return process.returncode, out.splitlines(), err


def test_from_zero_prints_everything_as_the_public_json(hub: HubProcess) -> None:
    """The replay address is learned from the hub; a line is the alert's JSON."""
    status, lines, err = finish(watch(hub, "--from", "0", "--format", "json", "--count", "6"))
    assert (status, err) == (0, "")
    assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_from_is_exclusive_and_replay_can_be_given(hub: HubProcess) -> None:
    """--from 4 begins with 5."""
    status, lines, _ = finish(watch(hub, "--from", "4", "--replay", hub.replay, "--format", "json", "--count", "2"))
    assert status == 0
    assert [json.loads(line)["seq"] for line in lines] == [5, 6]


def test_one_camera_is_not_another_that_begins_alike(hub: HubProcess) -> None:
    """--camera dock hears dock and never dock2."""
    _, lines, _ = finish(watch(hub, "--from", "0", "--camera", "dock", "--format", "json", "--count", "3"))
    assert [json.loads(line)["camera"] for line in lines] == ["dock"] * 3


def test_lines_come_as_they_happen(hub: HubProcess) -> None:
    """Live, flushed: the line can be read while the program still runs; it survives a hub that is killed."""
    process = watch(hub, "--from", "6", "--format", "json", "--count", "2")
    assert process.stdout is not None
    with EventLink(hub.events, "infer", "boot-1") as link:
        link.send(numbered_event(100))
        assert link.drain(10)
        assert json.loads(process.stdout.readline())["id"] == "e100"
        hub.kill()
        hub.start()
        assert process.poll() is None
        link.send(numbered_event(101))
        assert link.drain(10)
    status, lines, _ = finish(process)
    assert status == 0
    assert [json.loads(line)["id"] for line in lines] == ["e101"]


def test_tracks_and_status_are_topics_too(hub: HubProcess) -> None:
    """--topic status prints the hub's word; --topic track --camera takes exactly that camera's tracks."""
    status, lines, _ = finish(watch(hub, "--topic", "status", "--format", "json", "--count", "1"))
    assert status == 0
    assert json.loads(lines[0])["topic"] == "status.hub"
    process = watch(hub, "--topic", "track", "--camera", "dock", "--format", "json", "--count", "1")
    with TelemetryLink(hub.telemetry) as link:
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            link.send("track.dock2", {"camera": "dock2", "tracks": []})
            link.send("track.dock", {"camera": "dock", "tracks": [{"id": "dock/b/1"}]})
            time.sleep(0.02)
    status, lines, _ = finish(process)
    assert status == 0
    assert json.loads(lines[0])["camera"] == "dock"


def test_a_reader_that_leaves_ends_it_quietly(hub: HubProcess) -> None:
    """`vedette watch | head -1`: no traceback."""
    process = watch(hub, "--from", "0")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    with EventLink(hub.events, "infer", "boot-1") as link:
        number = 200
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            number += 1
            link.send(numbered_event(number))
            link.drain(1)
            time.sleep(0.02)
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(5) in (0, 141)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--from", "-1"], "last seq"),
        (["--from", "x"], "last seq"),
        (["--camera", "A B"], "a-z0-9"),
        (["--count", "many"], "number of lines"),
        (["--replay", "5557"], "tcp://"),
        (["--topic", "track", "--from", "0"], "only for alerts"),
    ],
)
def test_wrong_options_are_told(hub: HubProcess, arguments: list[str], complaint: str) -> None:
    """Exit 2 and the rule."""
    status, _, err = finish(watch(hub, *arguments))
    assert status == 2
    assert complaint in err


def test_text_tells_the_story_and_cannot_drive_a_terminal() -> None:
    """Time, number, severity, camera, rule, label, score, zone; control characters become question marks."""
    event = numbered_event(7, wall_s=0.0)
    alert = alert_from_event(event, site="yard", stream=None, seq=3, prev=None, total_ms=41.6)
    line = alert_line({**alert, "label": "per\x1b[31mson"})
    for part in ("1970-01-01T00:00:00.000Z", "#3", "WARNING", "dock", "zone:gate end", "0.90", "in gate", "[42 ms]"):
        assert part in line
    assert "\x1b" not in line
    assert "\x1b" not in telemetry_line("track.dock", {"tracks": [1, 2], "note": "\x1b[2J"})
    assert "tracks=2" in telemetry_line("track.dock", {"tracks": [1, 2]})

"""What the supervisor says about cameras: true, bounded, and without credentials, whatever a capture process reports."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from vedette.streamer.config import Config
from vedette.streamer.supervisor.post import Post
from vedette.streamer.supervisor.reporter import Reporter, sight_of
from vedette.streamer.supervisor.restart import Backoff, Policy
from vedette.streamer.wire import encode
from vedette.streamer.worker import Setup


@pytest.fixture
def reporter() -> Iterator[Reporter]:
    """A reporter whose hub is not there."""
    config = Config.model_validate({"version": 1, "cameras": {"dock": {"source": "rtsp://h/x", "offline_after": 5}}})
    with tempfile.TemporaryDirectory(prefix="vd-") as folder:
        reporter = Reporter(config, folder, "b0")
        yield reporter
        reporter.release()


def post_with(beat: dict[str, Any] | None) -> Post:
    """A camera's post whose child last said ``beat``; no child when None."""
    post = Post(Setup("capture", "dock", "b", "/r", {}, -1, -1), Backoff(Policy(), Random(1)))
    if beat is not None:
        up = beat.get("state") not in ("starting", "loading")
        child = SimpleNamespace(beat=beat, state=beat.get("state", "starting"), up=up, pid=7, malformed=0)
        child.silent_for = lambda _now_s: 0.1
        post.child = child  # type: ignore[assignment]
    return post


def test_a_report_goes_out_as_it_is(reporter: Reporter) -> None:
    """The documented fields, from the capture process's own words."""
    beat = {"state": "streaming", "epoch": 3, "fps": 9.5, "drops": {"late": 2}, "reconnects": 2, "last_error": None}
    status = reporter.status_of(post_with(beat))
    assert status.pop("time").endswith("Z")
    expected = {"schema": "vedette.status/1", "camera": "dock"} | beat
    assert status == expected


def test_a_hostile_report_is_cut_to_what_it_may_say(reporter: Reporter) -> None:
    """Wrong types become zero, long lists and texts are cut, credentials are blanked."""
    beat = {
        "state": "streaming",
        "epoch": "x" * 30_000,
        "fps": [1],
        "drops": {f"reason{i}" * 50: "y" for i in range(500)},
        "reconnects": True,
        "last_error": "rtsp://me:secret@h/x failed " + "z" * 30_000,
        "last_frame_mono_ns": "soon",
    }
    status = reporter.status_of(post_with(beat))
    assert (status["epoch"], status["fps"], status["reconnects"]) == (0, 0, 0)
    assert len(status["drops"]) <= 32
    assert len(encode(status)) < 4096
    assert "secret" not in str(status)
    sight = sight_of(post_with(beat))
    assert sight.last_frame_s is None
    assert "secret" not in (sight.error or "")


def test_a_camera_without_a_process_has_a_status(reporter: Reporter) -> None:
    """Before the first start the words are the supervisor's own."""
    status = reporter.status_of(post_with(None))
    assert (status["state"], status["fps"], status["last_error"]) == ("starting", 0, None)


def test_a_slow_start_is_not_an_outage(reporter: Reporter) -> None:
    """While the process still loads its code nothing is raised; from its first word on the clock runs."""
    starting, connecting = post_with({"state": "starting"}), post_with({"state": "connecting"})
    for now_s in (100.0, 200.0):
        reporter.tick([starting], now_s)
    reporter.tick([connecting], 200.0)
    reporter.tick([connecting], 204.9)
    assert reporter.link.waiting == 0
    reporter.tick([connecting], 205.0)
    assert reporter.link.waiting == 1


def test_a_talkative_child_does_not_cost_everyone_the_table(
    reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the process table would not fit a message, it goes out without the children's reports."""
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(
        reporter.telemetry, "send", lambda topic, message: sent.append(message) if topic == "process" else None
    )
    talkative = post_with({"state": "streaming", "text": "x" * 30_000})
    reporter.tick([talkative], 100.0)
    reporter.tick([talkative] * 8, 200.0)
    assert len(sent[0]["processes"][0]["beat"]["text"]) == 30_000
    assert [row["beat"] for row in sent[1]["processes"]] == [{}] * 8
    assert sent[1]["processes"][0]["pid"] == 7

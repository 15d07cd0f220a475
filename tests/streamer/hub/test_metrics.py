"""Metrics from reports that are not trusted, and the lossy link that brings them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from vedette.streamer.config import Config
from vedette.streamer.errors import WireError
from vedette.streamer.hub.metrics import MOST_CAMERAS, MOST_LABELS, Metrics
from vedette.streamer.hub.publisher import Publisher
from vedette.streamer.hub.state import HubState
from vedette.streamer.outbox.committer import Committer
from vedette.streamer.outbox.diskguard import DiskGuard
from vedette.streamer.outbox.snapshots import Snapshots
from vedette.streamer.outbox.store import Outbox
from vedette.streamer.telemetry import TelemetryLink
from vedette.streamer.wire import encode

zmq = pytest.importorskip("zmq")


@pytest.fixture
def state(tmp_path: Path) -> Any:
    """A hub's account without the hub's sockets."""
    outbox = Outbox(tmp_path, site="yard")
    guard = DiskGuard(tmp_path, reserve_bytes=4096)
    counters: Counter[str] = Counter()
    context = zmq.Context()
    publisher = Publisher(context)
    committer = Committer(outbox, Snapshots(tmp_path), guard, counters)
    config = Config.model_validate({"version": 1, "cameras": {}})
    made = HubState(config, "boot", outbox, committer, guard, counters, publisher)
    yield made
    publisher.close()
    context.destroy(linger=0)
    outbox.close()


def report(state: HubState, *rows: dict[str, Any]) -> dict[str, list[Any]]:
    """Give the hub a process table; what Prometheus then reads, by metric name."""
    state.telemetry([b"process", encode({"processes": list(rows)})])
    text = Metrics(state).scrape().decode()
    return {family.name: family.samples for family in text_string_to_metric_families(text)}


@pytest.mark.parametrize(
    "beat",
    [
        {"fps": "fast", "frames": None, "drops": 7},
        {"fps": True, "frames": [1], "drops": {"x": "y"}},
        {"drops": {"a\n# HELP": 1, '"} 5': 2}},
        "not a dict",
        None,
    ],
)
def test_a_lying_report_breaks_nothing(state: HubState, beat: Any) -> None:
    """Wrong types are left out, strange names are escaped: the text still parses and the process is counted."""
    row = {"role": "capture", "name": "dock", "camera": "dock", "pid": 1, "restarts": 0, "state": "x", "beat": beat}
    samples = report(state, row)
    assert [s.value for s in samples["vedette_process_up"]] == [1]


def test_a_report_cannot_flood_the_labels(state: HubState) -> None:
    """At most so many reasons and numbers are taken from one report."""
    drops = {f"reason{i}": i for i in range(1000)}
    capture = {"role": "capture", "name": "dock", "camera": "dock", "pid": 1, "beat": {"drops": drops}}
    beat = {
        **{f"k{i}": i for i in range(1000)},
        "drops": {f"c{i}": {f"r{j}": j for j in range(40)} for i in range(300)},
    }
    infer = {"role": "infer", "name": "infer", "camera": None, "pid": 2, "beat": beat}
    samples = report(state, capture, infer)
    assert len(samples["vedette_camera_dropped"]) == MOST_LABELS
    assert len(samples["vedette_infer_dropped"]) == MOST_LABELS * MOST_CAMERAS
    assert not any("k1" in name for name in samples)


def test_a_dead_process_is_down(state: HubState) -> None:
    """No pid, no up; a camera is up only while pictures flow."""
    rows = [
        {"role": "capture", "name": n, "camera": n, "pid": p, "restarts": 3, "state": s, "beat_age_s": None, "beat": {}}
        for n, p, s in (("a", 5, "streaming"), ("b", None, "backoff"))
    ]
    samples = report(state, *rows)
    assert {s.labels["name"]: s.value for s in samples["vedette_process_up"]} == {"a": 1, "b": 0}
    assert {s.labels["camera"]: s.value for s in samples["vedette_camera_up"]} == {"a": 1, "b": 0}


@pytest.mark.parametrize(
    "message",
    [
        [b"process", b'{"processes": {}}'],
        [b"process", b'{"processes": [1]}'],
        [b"process", b"{}"],
        [b"status.hub", b"{}"],
        [b"track.", b"{}"],
        [b"track.a.b", b"{}"],
        [b"track.a"],
        [],
    ],
)
def test_telemetry_that_is_wrong_is_refused(state: HubState, message: list[bytes]) -> None:
    """A WireError, nothing remembered."""
    with pytest.raises(WireError):
        state.telemetry(message)
    assert state.processes == ()


def test_the_lossy_link_drops_and_counts_and_never_waits(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without a hub every message is dropped at once; with one that does not read, those beyond the bound are."""
    endpoint = f"ipc://{tmp_path_factory.mktemp('t')}/t"
    with TelemetryLink(endpoint, waiting=4) as link:
        assert [link.send("track.dock", {}) for _ in range(3)] == [False] * 3
        assert link.dropped == {"track": 3}
        with zmq.Context() as context, context.socket(zmq.PULL) as hub:
            hub.setsockopt(zmq.LINGER, 0)
            hub.setsockopt(zmq.RCVHWM, 4)
            hub.bind(endpoint)
            taken = 0
            while not link.send("status.dock", {"n": 0}):
                pass
            for number in range(20_000):
                taken += link.send("track.dock", {"n": number, "pad": "x" * 500})
            assert taken < 20_000
            assert hub.poll(5000)
        with pytest.raises(WireError):
            link.send("track.dock", {"x": float("nan")})

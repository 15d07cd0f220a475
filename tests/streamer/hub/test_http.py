"""The HTTP server of a real hub: health that means something, alerts, live events, pictures, and closed doors."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from tests.streamer.hub.hubs import JPEG, hub_with, until
from tests.streamer.rtsp import free_port
from vedette.streamer.bench._hub import HubProcess, numbered_event
from vedette.streamer.eventlink import EventLink
from vedette.streamer.telemetry import TelemetryLink

PROCESSES = {
    "processes": [
        {
            "role": "infer",
            "name": "infer",
            "camera": None,
            "pid": 12,
            "restarts": 1,
            "state": "running",
            "beat_age_s": 0.25,
            "beat": {"state": "running", "mono_ns": 5, "batches": 12, "engine_ms_p50": 12.5, "track_id": "dock/b/7"}
            | {"drops": {"dock": {"stale": 4}}},
        },
        {
            "role": "capture",
            "name": "dock",
            "camera": "dock",
            "pid": 13,
            "restarts": 0,
            "state": "streaming",
            "beat_age_s": 0.1,
            "beat": {"state": "streaming", "frames": 100, "fps": 10.0, "drops": {"no_credit": 3}, "reconnects": 2},
        },
    ],
    "counters": {"reloads": 2},
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub with HTTP and three alerts, the second with a picture."""
    events = [
        (numbered_event(number, camera="dock" if number else "gate"), JPEG if number == 1 else b"")
        for number in range(3)
    ]
    with hub_with(tmp_path_factory.mktemp("http") / "store", events) as running:
        yield running


@pytest.fixture
def client(hub: HubProcess) -> Iterator[httpx.Client]:
    """An HTTP client."""
    with httpx.Client(base_url=f"http://{hub.config['http']['listen']}", timeout=5) as made:
        yield made


def tell(hub: HubProcess, topic: str, message: dict[str, Any]) -> None:
    """Send telemetry as the supervisor does."""
    with TelemetryLink(hub.telemetry) as link:
        until(lambda: link.send(topic, message))
        time.sleep(0)  # PUSH hands over in its own thread; the caller waits for the effect


@pytest.fixture
def told(hub: HubProcess, client: httpx.Client) -> None:
    """The hub knows the processes and one camera's status."""

    def say() -> bool:
        with TelemetryLink(hub.telemetry) as link:
            until(lambda: link.send("process", PROCESSES))
            until(lambda: link.send("status.dock", {"camera": "dock", "state": "streaming", "fps": 9.9, "epoch": 4}))
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                cameras = client.get("/api/v1/cameras").json()["cameras"]
                if cameras and cameras[0]["state"] == "streaming":
                    return True
        return False

    until(say)


def test_health_is_ok_while_the_loop_turns(client: httpx.Client) -> None:
    """200 and the loop's age."""
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"


def test_readiness_needs_the_supervisors_word(client: httpx.Client) -> None:
    """Without a report about infer nobody detects anything: 503, and the reason is said."""
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["supervisor"] == "no report"


@pytest.mark.usefixtures("told")
def test_ready_when_infer_works(client: httpx.Client) -> None:
    """200 once the supervisor reports a working infer process."""
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)


@pytest.mark.usefixtures("told")
def test_processes_have_the_documented_fields(client: httpx.Client) -> None:
    """role, name, camera, pid, restarts, state, heartbeat age; the age grows after the report."""
    infer, capture = client.get("/api/v1/processes").json()["processes"]
    assert {k: infer[k] for k in ("role", "camera", "pid", "restarts", "state")} == {
        "role": "infer",
        "camera": None,
        "pid": 12,
        "restarts": 1,
        "state": "running",
    }
    assert infer["heartbeat_age_s"] >= 0.25
    assert capture["camera"] == "dock"


@pytest.mark.usefixtures("told")
def test_cameras_tell_their_state_and_never_their_source(client: httpx.Client) -> None:
    """State and fps from status.<camera>, the newest alert's seq from the store."""
    (camera,) = client.get("/api/v1/cameras").json()["cameras"]
    assert (camera["name"], camera["state"], camera["fps"], camera["last_alert"]) == ("dock", "streaming", 9.9, 3)
    assert "source" not in camera


@pytest.mark.usefixtures("told")
def test_metrics_have_base_units_and_no_track_ids(client: httpx.Client) -> None:
    """Parsable by Prometheus's own parser, every name prefixed, alerts counted, no track id anywhere."""
    from prometheus_client.parser import text_string_to_metric_families

    text = client.get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert all(name.startswith("vedette_") for name in families)
    values = {
        (s.name, tuple(sorted(s.labels.items()))): s.value for family in families.values() for s in family.samples
    }
    assert values["vedette_alerts_total", (("camera", "dock"), ("kind", "zone"))] == 2
    assert values["vedette_alert_latency_seconds_count", ()] == 3
    assert values["vedette_stream_last_seq", ()] == 3
    assert values["vedette_hub_events_total", (("outcome", "committed"),)] == 3
    assert values["vedette_camera_dropped_total", (("camera", "dock"), ("reason", "no_credit"))] == 3
    assert values["vedette_camera_reconnects_total", (("camera", "dock"),)] == 2
    assert values["vedette_process_restarts_total", (("name", "infer"), ("role", "infer"))] == 1
    assert values["vedette_infer_batches_total", (("name", "infer"),)] == 12
    assert values["vedette_infer_engine_seconds", (("name", "infer"),)] == pytest.approx(0.0125)
    assert values["vedette_infer_dropped_total", (("camera", "dock"), ("reason", "stale"))] == 4
    assert values["vedette_supervisor_reloads_total", ()] == 2
    assert "dock/b" not in text
    assert not any(name.endswith(("_ms", "_milliseconds")) for name in families)


def test_alerts_come_in_pages(client: httpx.Client) -> None:
    """from is exclusive, limit and camera narrow, through is the next cursor."""
    page = client.get("/api/v1/alerts", params={"from": 0, "limit": 2}).json()
    assert ([a["seq"] for a in page["alerts"]], page["through"], page["last_seq"]) == ([1, 2], 2, 3)
    rest = client.get("/api/v1/alerts", params={"from": page["through"]}).json()
    assert [a["seq"] for a in rest["alerts"]] == [3]
    gate = client.get("/api/v1/alerts", params={"camera": "gate"}).json()
    assert [a["seq"] for a in gate["alerts"]] == [1]
    assert client.get("/api/v1/alerts/2").json() == page["alerts"][1]


def test_pictures_come_by_alert(hub: HubProcess, client: httpx.Client) -> None:
    """The very bytes of the snapshot; 404 for an alert without one, 410 for one that was removed."""
    answer = client.get("/api/v1/alerts/2/snapshot")
    assert (answer.content, answer.headers["content-type"]) == (JPEG, "image/jpeg")
    assert client.get("/api/v1/alerts/1/snapshot").status_code == 404
    assert client.get("/api/v1/alerts/99/snapshot").status_code == 404
    path = hub.store / client.get("/api/v1/alerts/2").json()["evidence"]["snapshot"]
    aside = path.rename(path.with_suffix(".aside"))
    try:
        assert client.get("/api/v1/alerts/2/snapshot").status_code == 410
    finally:
        aside.rename(path)


def test_a_picture_is_drawn_into_only_when_asked(hub: HubProcess, client: httpx.Client) -> None:
    """``?draw=reasons`` is another picture of the same size, the kept one stays as it was; what is no picture is said to be none."""
    path = hub.store / client.get("/api/v1/alerts/2").json()["evidence"]["snapshot"]
    whole = cv2.imencode(".jpg", np.full((240, 320, 3), 90, np.uint8))[1].tobytes()
    path.write_bytes(whole)
    try:
        answer = client.get("/api/v1/alerts/2/snapshot", params={"draw": "reasons"})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
        shown = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
        assert shown.shape == (240, 320, 3)
        assert shown.std() > 5
        assert client.get("/api/v1/alerts/2/snapshot").content == whole
    finally:
        path.write_bytes(JPEG)
    assert client.get("/api/v1/alerts/2/snapshot", params={"draw": "reasons"}).status_code == 422
    assert client.get("/api/v1/alerts/2/snapshot", params={"draw": "cats"}).status_code == 400
    assert client.get("/api/v1/alerts/1/snapshot", params={"draw": "reasons"}).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/alerts?from=-1",
        "/api/v1/alerts?from=x",
        "/api/v1/alerts?from=99999999999999999999999",
        "/api/v1/alerts?from=%D9%A1",
        "/api/v1/alerts?limit=0",
        "/api/v1/alerts?limit=1001",
        "/api/v1/alerts?camera=../etc",
        "/api/v1/events?from=x",
        "/api/v1/events?camera=A",
    ],
)
def test_wrong_parameters_are_told(client: httpx.Client, path: str) -> None:
    """400 with the parameter's name and rule."""
    answer = client.get(path)
    assert answer.status_code == 400
    assert "needs" in answer.json()["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/alerts/../../alerts.db",
        "/api/v1/alerts/%2e%2e%2f%2e%2e%2falerts.db/snapshot",
        "/api/v1/alerts/99999999999999999999999999/snapshot",
        "/api/v1/alerts/-1",
        "/evidence/dock",
        "/",
    ],
)
def test_nothing_but_the_routes_answers(client: httpx.Client, path: str) -> None:
    """No path leads to the file system."""
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_the_api_only_reads(client: httpx.Client, method: str) -> None:
    """Every other method is refused on every route."""
    for path in ("/api/v1/alerts", "/api/v1/cameras", "/metrics", "/api/v1/alerts/1/snapshot", "/api/v1/events"):
        assert client.request(method, path).status_code == 405


def read_events(hub: HubProcess, count: int, within_s: float = 10.0, **how: Any) -> list[dict[str, str]]:
    """The first events of a stream."""
    got: list[dict[str, str]] = []
    with (
        httpx.Client(base_url=f"http://{hub.config['http']['listen']}", timeout=within_s) as client,
        client.stream("GET", "/api/v1/events", **how) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                key, _, value = line.partition(": ")
                event[key] = value
            elif event:
                got.append(event)
                event = {}
                if len(got) == count:
                    break
    return got


def test_live_events_resume_by_last_event_id(hub: HubProcess) -> None:
    """hello first; then every alert after the id, each with its seq as id."""
    hello, second, third = read_events(hub, 3, headers={"Last-Event-ID": "1"})
    assert (hello["event"], json.loads(hello["data"])["last_seq"]) == ("hello", 3)
    assert [(e["event"], e["id"]) for e in (second, third)] == [("alert", "2"), ("alert", "3")]
    assert json.loads(second["data"])["seq"] == 2
    everything = read_events(hub, 4, params={"from": 0})
    assert [e["id"] for e in everything[1:]] == ["1", "2", "3"]


def test_live_events_arrive_as_they_are_committed(tmp_path: Path) -> None:
    """A stream that was opened before the alert hears it, and another camera's listener does not."""
    with HubProcess(tmp_path / "store", http=f"127.0.0.1:{free_port()}") as hub:
        got: dict[str, list[dict[str, str]]] = {}
        threads = [
            threading.Thread(target=lambda c=c: got.__setitem__(c, read_events(hub, 3, params={"camera": c})))  # type: ignore[misc]
            for c in ("dock", "gate")
        ]
        for thread in threads:
            thread.start()
        with EventLink(hub.events, "infer", "boot-1") as link:
            number = 0
            while any(thread.is_alive() for thread in threads):
                number += 1
                link.send(numbered_event(number, camera="dock" if number % 2 else "gate"))
                link.drain(1)
                assert number < 2000
                time.sleep(0.01)
        for thread in threads:
            thread.join()
    for camera, events in got.items():
        assert {json.loads(e["data"])["camera"] for e in events[1:]} == {camera}


def test_a_listener_that_never_reads_does_not_stop_the_hub(tmp_path: Path) -> None:
    """Its connection stands still; alerts are committed, others are served, and the hub still ends in time."""
    with HubProcess(tmp_path / "store", http=f"127.0.0.1:{free_port()}") as hub:
        host, port = hub.config["http"]["listen"].split(":")
        with socket.create_connection((host, int(port))) as deaf, EventLink(hub.events, "infer", "b") as link:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.sendall(b"GET /api/v1/events?from=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for number in range(3000):
                link.send(numbered_event(number))
            assert link.drain(30)
            assert len(read_events(hub, 11, params={"from": 2990})) == 11
            began = time.monotonic()
            assert hub.stop() == 0
            assert time.monotonic() - began < 4


def test_the_clip_of_an_alert_is_served(hub: HubProcess, client: httpx.Client) -> None:
    """404 for an alert whose clip has not come (or never will), the very bytes from the rev that brought it on."""
    film = b"\x00\x00\x00\x1cftypisom film"
    assert client.get("/api/v1/alerts/2/clip").status_code == 404
    with EventLink(hub.events, "infer", "boot-1") as link:
        link.send(numbered_event(1, rev=7, camera="dock"), film)
        assert link.drain(10)
    newest = client.get("/api/v1/alerts?from=0").json()["alerts"][-1]
    assert newest["evidence"]["clip"].endswith("-7.mp4")
    assert newest["evidence"]["snapshot"], "the picture of the start is still shown"
    answer = client.get(f"/api/v1/alerts/{newest['seq']}/clip")
    assert (answer.content, answer.headers["content-type"]) == (film, "video/mp4")
    assert hashlib.sha256(film).hexdigest() == newest["evidence"]["clip_sha256"]
    assert client.get("/api/v1/alerts/2/clip").status_code == 404, "what was told is never changed"

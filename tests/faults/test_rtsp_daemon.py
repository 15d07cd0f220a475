"""Four RTSP cameras through the whole daemon, their server killed and restarted: they come back, no alert is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cameras import live_camera, server_options
from tests.faults.daemon import Daemon, Listener, wait_for
from tests.faults.frames import FrameWatch
from tests.faults.report import percentile, tell
from tests.streamer.rtsp import RtspServer, rtsp_server

pytestmark = [pytest.mark.data, pytest.mark.slow, pytest.mark.timeout(400)]

RUN_S = 60.0
OUTAGES, HEALTHY_S, OUTAGE_S = 3, 8.0, 6.5
CAMERAS = [f"cam{i}" for i in range(4)]


@pytest.fixture
def server(data_dir: Path) -> Iterator[RtspServer]:
    """Four mounts that replay the campus clip as H.264."""
    with rtsp_server(*server_options(data_dir / "clips" / "vtest.avi", 4)) as running:
        yield running


def test_four_cameras_come_back_and_no_alert_is_missed(server: RtspServer, tmp_path: Path, data_dir: Path) -> None:
    """Sixty seconds, three power cuts: every camera is back each time, the subscriber's seq has no gap."""
    clip = data_dir / "clips" / "vtest.avi"
    daemon = Daemon(tmp_path, {name: live_camera(clip, server.url(i), fps=5) for i, name in enumerate(CAMERAS)})
    daemon.start()
    daemon.wait_ready()
    listener, watch = Listener(daemon), FrameWatch(daemon.publish)
    recovery_s: list[float] = []
    try:
        began_s = time.monotonic()
        wait_for("all cameras stream", lambda: all(watch.count(c) for c in CAMERAS), 60)
        for _ in range(OUTAGES):
            time.sleep(HEALTHY_S)  # the fault is this long, nothing is waited for
            server.kill()
            time.sleep(OUTAGE_S)
            server.start()
            up_s = time.monotonic()
            wait_for("cameras back", lambda up_s=up_s: all(watch.back_since(c, up_s) for c in CAMERAS), 40)
            recovery_s += [watch.back_since(c, up_s) or 0.0 for c in CAMERAS]
        wait_for("the rest of the run", lambda: time.monotonic() - began_s > RUN_S, RUN_S)
        alerts = listener.agrees_with(daemon)
        kinds = {alert["kind"] for alert in listener.alerts}
        assert {"camera_offline", "camera_back"} <= kinds, kinds
        assert daemon.stop() == 0, daemon.log.read_text()[-3000:]
    finally:
        watch.close()
        daemon.close()
    tell(
        f"RTSP server killed and restarted, {OUTAGES} times {OUTAGE_S:g} s, {len(CAMERAS)} cameras",
        "every camera back, 0 committed alerts lost, 0 doubled; aim: 3 s and one keyframe interval (1 s) p95",
        alerts=alerts,
        lost=0,
        doubled=0,
        recovery_s_p50=round(percentile(recovery_s, 50), 2),
        recovery_s_p95=round(percentile(recovery_s, 95), 2),
        recovery_s_max=round(max(recovery_s), 2),
    )

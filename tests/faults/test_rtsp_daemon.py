"""Four RTSP cameras through the whole daemon, their server killed and restarted: they come back, no alert is lost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.faults.daemon import Daemon, Listener, wait_for
from tests.faults.test_daemon import busy_camera, caught_up
from tests.streamer.rtsp import RtspServer, rtsp_server

pytestmark = [pytest.mark.data, pytest.mark.slow, pytest.mark.timeout(400)]

KEYFRAME_S = 1.0
RUN_S = 60.0
OUTAGES, HEALTHY_S, OUTAGE_S = 3, 8.0, 6.5
CAMERAS = [f"cam{i}" for i in range(4)]


class FrameWatch:
    """When each camera's newest analysed picture of each epoch arrived at a subscriber of ``track.``."""

    def __init__(self, endpoint: str) -> None:
        self.first: dict[tuple[str, int], float] = {}
        self.count: dict[str, int] = dict.fromkeys(CAMERAS, 0)
        self._socket = zmq.Context.instance().socket(zmq.SUB)
        self._socket.connect(endpoint)
        self._socket.subscribe(b"track.")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._stop.is_set():
            if self._socket.poll(100):
                body = json.loads(self._socket.recv_multipart()[1])
                self.first.setdefault((body["camera"], body["epoch"]), time.monotonic())
                self.count[body["camera"]] += 1

    def back_since(self, camera: str, moment_s: float) -> float | None:
        """Seconds from ``moment_s`` until the first picture of an epoch that began after it."""
        times = [t for (name, _), t in self.first.items() if name == camera and t > moment_s]
        return min(times) - moment_s if times else None

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        self._thread.join()
        self._socket.close(0)


@pytest.fixture
def server(data_dir: Path) -> Iterator[RtspServer]:
    """Four mounts that replay the campus clip as H.264."""
    clip = data_dir / "clips" / "vtest.avi"
    options = ("--cameras", "4", "--file", str(clip), "--fps", "10", "--seconds", "30", "--keyframe", str(KEYFRAME_S))
    with rtsp_server(*options) as running:
        yield running


def test_four_cameras_come_back_and_no_alert_is_missed(server: RtspServer, tmp_path: Path, data_dir: Path) -> None:
    """Sixty seconds, three power cuts: every camera is back each time, the subscriber's seq has no gap."""
    camera = busy_camera(data_dir / "clips" / "vtest.avi") | {"fps": 5}
    del camera["loop"]
    daemon = Daemon(tmp_path, {name: camera | {"source": server.url(i)} for i, name in enumerate(CAMERAS)})
    daemon.start()
    daemon.wait_ready()
    listener, watch = Listener(daemon), FrameWatch(daemon.publish)
    recovery_s: list[float] = []
    try:
        began_s = time.monotonic()
        wait_for("all cameras stream", lambda: all(watch.count.values()), 60)
        for _ in range(OUTAGES):
            time.sleep(HEALTHY_S)  # the fault is this long, nothing is waited for
            server.kill()
            time.sleep(OUTAGE_S)
            server.start()
            up_s = time.monotonic()
            wait_for("cameras back", lambda up_s=up_s: all(watch.back_since(c, up_s) for c in CAMERAS), 40)
            recovery_s += [watch.back_since(c, up_s) or 0.0 for c in CAMERAS]
        wait_for("the rest of the run", lambda: time.monotonic() - began_s > RUN_S, RUN_S)
        store = caught_up(daemon, listener)
        listener.check()
        kinds = {alert["kind"] for alert in store}
        assert {"camera_offline", "camera_back"} <= kinds, kinds
        assert daemon.stop() == 0, daemon.log.read_text()[-3000:]
    finally:
        watch.close()
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()
    recovery_s.sort()
    print(
        json.dumps(
            {
                "cameras": len(CAMERAS),
                "outages": OUTAGES,
                "alerts": len(store),
                "frames": watch.count,
                "keyframe_interval_s": KEYFRAME_S,
                "recovery_s": [round(s, 2) for s in recovery_s],
                "recovery_p95_s": round(recovery_s[int(0.95 * len(recovery_s))], 2),
                "recovery_max_s": round(recovery_s[-1], 2),
            }
        )
    )

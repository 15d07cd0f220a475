"""A bad network between camera and us: real packets lost and a real cable pulled, between two network namespaces."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cameras import live_camera, server_options
from tests.faults.daemon import Daemon, Listener, wait_for
from tests.faults.frames import FrameWatch
from tests.faults.leaks import as_before, holdings
from tests.faults.load import Cost, kept_under_load
from tests.faults.netns import Cable, cable
from tests.faults.report import tell
from tests.streamer.rtsp import RtspServer, require_rtsp

pytestmark = [pytest.mark.data, pytest.mark.slow, pytest.mark.timeout(240)]

#: Of a hundred packets from the camera, so many are lost.
LOSS = 5


class Site:
    """A daemon at one end of the cable, its two cameras (tcp and udp) at the other; a third is a file, untouched."""

    def __init__(self, folder: Path, clip: Path, laid: Cable, fps: float) -> None:
        options = (*server_options(clip, 2), "--host", laid.CAMERA)
        self.server = RtspServer(*options, port=8554, prefix=laid.camera.prefix)
        cameras = {
            "wired": live_camera(clip, f"rtsp://{laid.CAMERA}:8554/cam0", fps=fps, offline_after=3),
            "radio": live_camera(clip, f"rtsp://{laid.CAMERA}:8554/cam1", fps=fps, transport="udp", offline_after=3),
            "file": live_camera(clip, str(clip), fps=fps, loop=True),
        }
        self.daemon = Daemon(folder, cameras, namespace=laid.edge)
        # sockets in the file system cross network namespaces
        alerts = self.daemon.config["alerts"]
        self.daemon.publish = alerts["publish"] = f"ipc://{folder}/p"
        self.daemon.replay = alerts["replay"] = f"ipc://{folder}/r"
        self.daemon.write()
        self.laid, self.fps = laid, fps

    def start(self) -> None:
        """Everything streams when it returns."""
        self.server.start()
        self.daemon.start()
        self.daemon.wait_ready()
        self.listener, self.watch = Listener(self.daemon), FrameWatch(self.daemon.publish)
        self.daemon.wait_streaming("wired", "radio", "file", timeout_s=90)

    def close(self) -> None:
        """Nothing is left running."""
        if hasattr(self, "watch"):
            self.watch.close()
        self.daemon.close()
        self.server.kill()


@pytest.fixture
def site(tmp_path: Path, data_dir: Path, cost: Cost) -> Iterator[Site]:
    """A site that streams."""
    require_rtsp()
    clip = data_dir / "clips" / "vtest.avi"
    with cable() as laid, contextlib.closing(Site(tmp_path, clip, laid, cost.fps(3))) as running:
        running.start()
        yield running


def test_lost_packets_cost_pictures_at_most(site: Site) -> None:
    """Five of a hundred packets are lost: both transports go on, the other camera keeps its rate, alerts are whole."""
    before = holdings(site.daemon)
    site.laid.lose(LOSS)
    counts = {name: site.watch.count(name) for name in ("wired", "radio")}
    kept, load = kept_under_load(site.daemon, site.watch, ["file"], site.fps)
    got = {name: site.watch.count(name) - counts[name] for name in counts}
    dropped = site.laid.lost()
    site.laid.lose(0)
    alerts = site.listener.agrees_with(site.daemon)
    as_before(site.daemon, before)
    assert dropped > 0
    assert kept is None or kept >= 0.95
    assert all(got.values()), got
    assert site.daemon.stop() == 0
    tell(
        f"{LOSS} % of the camera's packets lost (nftables)",
        "both transports go on, others keep their rate",
        packets_lost=dropped,
        pictures=got,
        others_kept=kept,
        load=load,
        alerts=alerts,
        lost=0,
        doubled=0,
    )


def test_a_pulled_cable_is_told_and_forgotten(site: Site) -> None:
    """No packet passes, nobody hangs up: both cameras are told offline, and are back when the cable is; a read that
    hangs may cost those cameras their process, and nobody else."""
    before = holdings(site.daemon)
    pids = {row["name"]: row["pid"] for row in site.daemon.processes() if row["name"] not in ("wired", "radio")}
    site.laid.plug("down")
    cameras = {"wired", "radio"}

    def offline() -> bool:
        return cameras <= {a["camera"] for a in site.listener.alerts if a["kind"] == "camera_offline"}

    wait_for("both offline", offline, 60)
    kept, load = kept_under_load(site.daemon, site.watch, ["file"], site.fps)
    site.laid.plug("up")
    up_s = time.monotonic()
    wait_for("both back", lambda: all(site.watch.since(c, up_s) is not None for c in cameras), 90)
    back_s = {c: round(site.watch.since(c, up_s) or 0.0, 2) for c in sorted(cameras)}
    alerts = site.listener.agrees_with(site.daemon)
    as_before(site.daemon, before)
    assert kept is None or kept >= 0.95
    assert pids.items() <= {row["name"]: row["pid"] for row in site.daemon.processes()}.items()
    assert site.daemon.stop() == 0
    tell(
        "camera's cable pulled (veth down)",
        "told offline, others keep their rate, back by itself",
        others_kept=kept,
        load=load,
        recovery_s=back_s,
        alerts=alerts,
        lost=0,
        doubled=0,
    )

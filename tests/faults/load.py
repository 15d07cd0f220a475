"""The load the faults happen under: as many pictures a second as keep our processes at about 60 % of this machine.

What a camera and what an analysed picture cost here is measured once, with a short calibration; everything else follows.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.faults.cameras import SOURCE_FPS, live_camera, server_options
from tests.faults.daemon import Daemon, wait_for
from tests.faults.frames import MOST_WINDOWS, FrameWatch
from tests.streamer.rtsp import RtspServer, require_rtsp

#: The share of all processors that our processes shall take.
TARGET = 0.6
#: The calibration: cameras, pictures a second of each, seconds.
CAMERAS, FPS, SECONDS = 4, 3.0, 10.0
#: Fewer pictures would make 5 % of them no whole picture in a window.
LEAST_FPS = 2.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor seconds. camera_s: of one camera a second, whatever is analysed of it. picture_s: of one analysed picture."""

    camera_s: float
    picture_s: float

    def fps(self, cameras: int) -> float:
        """Pictures a second of each of so many cameras that load this machine by `TARGET`; half steps, the source's at most."""
        left_s = TARGET * (psutil.cpu_count() or 1) - cameras * self.camera_s
        return min(SOURCE_FPS, max(LEAST_FPS, round(2 * left_s / (cameras * self.picture_s)) / 2))


class Meter:
    """What a daemon's processes take of the machine, from construction on."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._began_s, self._used_s = time.monotonic(), self.used_s()

    def used_s(self, *names: str) -> float:
        """Processor seconds so far of the whole daemon, or of its processes of these names."""
        assert self._daemon.process is not None
        parent = psutil.Process(self._daemon.process.pid)
        total_s = 0.0
        for process in [parent, *parent.children()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                if not names or process.name() in names:
                    times = process.cpu_times()
                    total_s += times.user + times.system
        return total_s + (0.0 if names else parent.cpu_times().children_user + parent.cpu_times().children_system)

    def share(self) -> float:
        """0..1 of all processors."""
        took_s = self.used_s() - self._used_s
        return round(took_s / ((time.monotonic() - self._began_s) * (psutil.cpu_count() or 1)), 2)


def measure(folder: Path, clip: Path) -> Cost:
    """Run a daemon of `CAMERAS` cameras for a moment."""
    require_rtsp()
    server = RtspServer(*server_options(clip, CAMERAS))
    names = [f"cam{i}" for i in range(CAMERAS)]
    daemon = Daemon(folder, {name: live_camera(clip, server.url(i), fps=FPS) for i, name in enumerate(names)})
    with contextlib.ExitStack() as stack:
        stack.callback(server.kill)
        server.start()
        stack.callback(daemon.close)
        daemon.start()
        daemon.wait_ready()
        watch = FrameWatch(daemon.publish)
        stack.callback(watch.close)
        daemon.wait_streaming(*names, timeout_s=90)
        wait_for("pictures of all", lambda: all(watch.count(name) >= 2 * FPS for name in names), 60)
        meter, began_s = Meter(daemon), time.monotonic()
        eyes = [f"vd-{name}" for name in names]
        eyes_s, all_s, pictures = meter.used_s(*eyes), meter.used_s(), sum(map(watch.count, names))
        wait_for("the window's end", lambda: time.monotonic() >= began_s + SECONDS, 2 * SECONDS)
        span_s, eyes_s, all_s = time.monotonic() - began_s, meter.used_s(*eyes) - eyes_s, meter.used_s() - all_s
        pictures = sum(map(watch.count, names)) - pictures
        daemon.stop()
    return Cost(eyes_s / span_s / CAMERAS, (all_s - eyes_s) / max(1, pictures))


def kept_under_load(
    daemon: Daemon, watch: FrameWatch, cameras: Iterable[str], fps: float, windows: int = MOST_WINDOWS
) -> tuple[float | None, float]:
    """See `FrameWatch.kept`; and the share of the machine that the daemon took meanwhile."""
    meter = Meter(daemon)
    return watch.kept(cameras, fps, windows), meter.share()

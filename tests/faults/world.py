"""The world of the camera and process faults: a daemon with one camera that will suffer and three that must not notice.

All four are real RTSP cameras with busy rules; the victim has a server and a proxy of its own. A subscriber is attached
throughout. One world serves the tests of a module, one after the other: faults must not add up either.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.faults.cameras import live_camera, server_options
from tests.faults.daemon import Daemon, Listener, wait_for
from tests.faults.frames import ENOUGH, MOST_WINDOWS, FrameWatch
from tests.faults.leaks import Holdings, as_before, holdings, run_dir_of
from tests.faults.load import kept_under_load
from tests.faults.proxy import Proxy
from tests.streamer.rtsp import RtspServer, require_rtsp

#: Whose cameras they are.
VICTIM, OTHERS = "victim", ("east", "north", "west")
LOGIN = "viewer:open-sesame-7"


class World:
    """What the tests of a module share; see the module."""

    def __init__(self, folder: Path, clip: Path, fps: float) -> None:
        """fps: of each camera."""
        self.clip, self.fps = clip, fps
        self.load: float | None = None
        self._steady = RtspServer(*server_options(clip, len(OTHERS)))
        self.server = RtspServer(*server_options(clip, 1))
        self.proxy = Proxy(self.server.port)
        victim = f"rtsp://{LOGIN}@127.0.0.1:{self.proxy.port}/cam0"
        cameras = {name: live_camera(clip, self._steady.url(i), fps=fps) for i, name in enumerate(OTHERS)}
        cameras[VICTIM] = live_camera(clip, victim, fps=fps, frozen_after=2, offline_after=3)
        self.daemon = Daemon(folder, cameras)
        self.listener: Listener
        self.watch: FrameWatch

    def start(self) -> None:
        """Everything streams when it returns."""
        self._steady.start()
        self.server.start()
        self.daemon.start()
        self.daemon.wait_ready()
        self.listener, self.watch = Listener(self.daemon), FrameWatch(self.daemon.publish)
        self.calm()

    def calm(self) -> Holdings:
        """Wait until all is well: every camera streams and is analysed; what the daemon then holds."""
        self.daemon.wait_streaming(VICTIM, *OTHERS, timeout_s=90)
        now_s = time.monotonic()
        wait_for("pictures of all", lambda: all(self.watch.since(c, now_s) for c in (VICTIM, *OTHERS)), 60)
        return holdings(self.daemon)

    def serve(self, *options: str) -> None:
        """Replace the victim's camera by one with these further options."""
        self.server.kill()
        self.server = RtspServer(*server_options(self.clip, 1, *options), port=self.server.port)
        self.server.start()

    def pids(self) -> dict[str, int]:
        """Every process of the table."""
        return {row["name"]: row["pid"] for row in self.daemon.processes()}

    def others_keep(self, windows: int = MOST_WINDOWS) -> float | None:
        """The share of their rate that the other cameras keep while the fault lasts; less than 95 % fails. None when
        strangers kept the machine so busy that nothing can be said."""
        share, self.load = kept_under_load(self.daemon, self.watch, OTHERS, self.fps, windows)
        assert share is None or share >= ENOUGH, f"the others kept {share:.0%} of their rate"
        return share

    def recovery_s(self, healed_s: float) -> float:
        """Seconds from ``healed_s`` until the victim's pictures are analysed again."""
        wait_for("the victim is back", lambda: self.watch.since(VICTIM, healed_s) is not None, 60)
        return round(self.watch.since(VICTIM, healed_s) or 0.0, 2)

    def settle(self, before: Holdings) -> dict[str, object]:
        """After the fault: the subscriber has exactly what was committed, and nothing leaked. What was measured."""
        self.daemon.wait_streaming(VICTIM, *OTHERS, timeout_s=90)
        alerts = self.listener.agrees_with(self.daemon)
        after = as_before(self.daemon, before)
        measured: dict[str, object] = {"alerts": alerts, "lost": 0, "doubled": 0}
        if self.load is not None:
            measured["load"], self.load = self.load, None
        return measured | {"descriptors": [before.descriptors, after.descriptors]}

    def stop(self) -> None:
        """Stop: exit 0, and nothing is left of it."""
        run_dir = run_dir_of(self.daemon)
        assert self.daemon.process is not None
        children = psutil.Process(self.daemon.process.pid).children(recursive=True)
        code = self.daemon.stop()
        assert code == 0, "\n".join(self.daemon.messages()[-30:])
        assert not [child for child in children if child.is_running()]
        assert not run_dir.exists()

    def close(self) -> None:
        """Nothing of it is left running, however it went."""
        if hasattr(self, "watch"):
            self.watch.close()
        self.daemon.close()
        self.proxy.close()
        self.server.kill()
        self._steady.kill()


@contextlib.contextmanager
def opened(folder: Path, clip: Path, fps: float) -> Iterator[World]:
    """A world that streams; at its end the daemon must stop cleanly."""
    require_rtsp()
    world = World(folder, clip, fps)
    try:
        world.start()
        yield world
        world.stop()
    finally:
        world.close()

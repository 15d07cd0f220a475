"""A daemon that streams, with those who watch it: how most fault tests begin and end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from tests.faults.daemon import Daemon, Listener, wait_for
from tests.faults.frames import FrameWatch

#: Alerts that show that everything works before the fault begins.
ENOUGH_ALERTS = 3


@contextlib.contextmanager
def streaming(daemon: Daemon, cameras: Sequence[str]) -> Iterator[tuple[Listener, FrameWatch]]:
    """Inside: every camera streams, alerts come, a subscriber and a count of pictures are attached. At its end the daemon
    must stop cleanly; however it ends, nothing is left running."""
    with contextlib.ExitStack() as stack:
        stack.callback(daemon.close)
        daemon.start()
        daemon.wait_ready()
        listener, watch = Listener(daemon), FrameWatch(daemon.publish)
        stack.callback(watch.close)
        daemon.wait_streaming(*cameras, timeout_s=90)
        wait_for("alerts", lambda: len(listener.alerts) >= ENOUGH_ALERTS, 60)
        yield listener, watch
        assert daemon.stop() == 0

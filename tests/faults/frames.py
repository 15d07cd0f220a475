"""Counting analysed pictures as a subscriber of ``track.`` sees them: what a camera gets while another one suffers.

Only counts decide: the pictures whose own monotonic stamp lies in a window, over what its configured rate makes of
that window. The promise is about a machine that is ours: a window in which strangers took its processors is void, and
the best of a few windows counts, all of them within the fault: a fault that costs the others shows in every one.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterable

import psutil
import zmq

from tests.faults.daemon import wait_for

#: One window, seconds, and the most of them that are tried.
WINDOW_S, MOST_WINDOWS = 12.0, 5
#: What the others must keep of their rate.
ENOUGH = 0.95
#: A window is void when processes that are not ours took more than this of the machine.
STRANGERS = 0.2


class FrameWatch:
    """A subscriber in a thread that notes each analysed picture's stamp, and when each epoch was first heard of."""

    def __init__(self, endpoint: str) -> None:
        self.first: dict[tuple[str, int], float] = {}
        self.stamps_s: defaultdict[str, list[float]] = defaultdict(list)
        self.latency_s: defaultdict[str, list[float]] = defaultdict(list)
        self._socket = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 50)
        self._socket.connect(endpoint)
        self._socket.subscribe(b"track.")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._stop.is_set():
            if self._socket.poll(100):
                body = json.loads(self._socket.recv_multipart()[1])
                now_s, camera = time.monotonic(), body["camera"]
                self.first.setdefault((camera, body["epoch"]), now_s)
                self.stamps_s[camera].append(body["mono_ns"] / 1e9)
                self.latency_s[camera].append(now_s - body["mono_ns"] / 1e9)

    def count(self, camera: str) -> int:
        """Pictures of a camera so far."""
        return len(self.stamps_s[camera])

    def since(self, camera: str, moment_s: float) -> float | None:
        """Seconds from ``moment_s`` to the first picture taken after it, or None."""
        stamps_s = [stamp_s for stamp_s in self.stamps_s[camera][-2000:] if stamp_s > moment_s]
        return min(stamps_s) - moment_s if stamps_s else None

    def back_since(self, camera: str, moment_s: float) -> float | None:
        """Seconds from ``moment_s`` until the first picture of an epoch that was first heard of after it, or None."""
        times = [t for (name, _), t in self.first.items() if name == camera and t > moment_s]
        return min(times) - moment_s if times else None

    def kept(self, cameras: Iterable[str], fps: float, windows: int = MOST_WINDOWS) -> float | None:
        """The share of ``fps`` that the worst of ``cameras`` kept, in the best of at most ``windows`` windows; None when
        each window that fell short was void."""
        best: float | None = None
        for _ in range(windows):
            strangers = Strangers()
            share = self._kept_once(list(cameras), fps)
            if share >= ENOUGH:
                return round(share, 3)
            if strangers.share() < STRANGERS:
                best = max(best or 0.0, share)
        return None if best is None else round(best, 3)

    def _kept_once(self, cameras: list[str], fps: float) -> float:
        from_s = time.monotonic()
        until_s = from_s + WINDOW_S
        wait_for("the window's end", lambda: time.monotonic() > until_s + 1.0, WINDOW_S + 10)
        counts = [sum(from_s < s <= until_s for s in self.stamps_s[camera][-2000:]) for camera in cameras]
        return min(counts) / (fps * WINDOW_S)

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        self._thread.join()
        self._socket.close(0)


class Strangers:
    """What processes that are not the test's descendants take of the machine, from construction on."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._busy_s, self._ours_s = _busy_s(), _ours_s()

    def share(self) -> float:
        """0..1 of all processors."""
        took_s = (_busy_s() - self._busy_s) - (_ours_s() - self._ours_s)
        return max(0.0, took_s / ((time.monotonic() - self._began_s) * (psutil.cpu_count() or 1)))


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def _ours_s() -> float:
    total_s = 0.0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total_s += times.user + times.system + times.children_user + times.children_system
    return total_s

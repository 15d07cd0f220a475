"""``vedette demo``: a real clip played as a live camera through the whole daemon, tracks and alerts as they happen.

No configuration is needed: one is written with zones, a line and rules that suit the clip, and the ordinary ``vedette
run`` is started on it. What is printed comes from an ordinary subscriber; annotated pictures of the alerts, the
configuration and the daemon's log stay in the ``--out`` folder.
"""

from __future__ import annotations

import argparse
import json
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import zmq

from vedette.streamer.client import Subscription, subscribe
from vedette.streamer.commands.watch import alert_line
from vedette.streamer.demodaemon import Daemon
from vedette.streamer.errors import VedetteError
from vedette.streamer.offline.gallery import Gallery
from vedette.streamer.offline.sample import find_clip, scene_of

CAMERA = "demo"
#: How long until the first picture must have been seen, seconds: processes start and a network is loaded.
START_S = 90.0
#: Tracks are printed for people this often, seconds; as JSON every message is.
TRACKS_EVERY_S = 1.0
#: How long the last alerts may take after the end, seconds.
TAIL_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette demo`` takes."""
    parser.add_argument("--video", type=Path, metavar="FILE", help="play this file (default: a sample clip)")
    parser.add_argument("--seconds", type=_seconds, metavar="N", help="end after N seconds of video (default: Ctrl-C)")
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="json: the public messages, one a line"
    )
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder for pictures (default: demo-out)")


def run(args: argparse.Namespace) -> int:
    """Play until ``--seconds`` are over or Ctrl-C. Exit 0; 4 when no clip can be had; the daemon's own otherwise."""
    clip = find_clip(args.video, _say)
    scene = scene_of(clip)
    args.out.mkdir(parents=True, exist_ok=True)
    for old in args.out.glob("[0-9][0-9][0-9]-*.jpg"):
        old.unlink()
    camera = {"source": str(clip.resolve()), "loop": True, "pace": "realtime", **scene}
    with Daemon({CAMERA: camera}, args.out / "daemon.log") as daemon, _stopping() as stopping:
        shutil.copy(daemon.config, args.out / "demo.yaml")
        _say(f"playing {clip} as camera {CAMERA!r}; the daemon logs to {args.out / 'daemon.log'}")
        gallery = Gallery(args.out, daemon.store, scene)
        printer = _Printer(args.format, gallery)
        _follow(daemon, printer, args.seconds, stopping)
        status = daemon.stop()
    _say(printer.farewell(args.out))
    return status


def _follow(daemon: Daemon, printer: _Printer, seconds: float | None, stopping: threading.Event) -> None:
    """Hand every message to the printer, in the order they come, until the time is over."""
    began_s, first_s = time.monotonic(), None
    with zmq.Context() as context, context.socket(zmq.SUB) as tracks, _alerts(daemon.publish) as alerts:
        tracks.setsockopt(zmq.LINGER, 0)
        tracks.subscribe("track.")
        tracks.connect(daemon.publish)
        while not stopping.is_set():
            if tracks.poll(50):
                _, raw = tracks.recv_multipart()
                first_s = first_s or time.monotonic()
                printer.tracks(json.loads(raw))
            while not alerts.empty():
                printer.alert(alerts.get())
            now_s = time.monotonic()
            daemon.check()
            if first_s is None and now_s - began_s > START_S:
                raise VedetteError(f"demo: no picture within {START_S:.0f} s; the daemon's log says why")
            if first_s is not None and seconds is not None and now_s - first_s >= seconds:
                break
        until_s = time.monotonic() + TAIL_S
        while time.monotonic() < until_s:
            try:
                printer.alert(alerts.get(timeout=0.1))
            except queue.Empty:
                continue


@contextmanager
def _alerts(endpoint: str) -> Iterator[queue.Queue[dict[str, Any]]]:
    """Alerts of the public client, read in a thread."""
    found: queue.Queue[dict[str, Any]] = queue.Queue()
    subscription: Subscription = subscribe(endpoint, since=0)

    def read() -> None:
        for alert in subscription:
            found.put(alert)

    thread = threading.Thread(target=read, name="alerts", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        subscription.close()
        thread.join(2.0)


class _Printer:
    """Prints for people or machines, and fills the gallery."""

    def __init__(self, style: str, gallery: Gallery) -> None:
        self._json = style == "json"
        self._gallery = gallery
        self._next_s = 0.0
        self._counts = {"pictures": 0, "tracks": 0, "alerts": 0}
        self._ids: set[str] = set()

    def tracks(self, message: dict[str, Any]) -> None:
        """A track message: every one as JSON, one a second for people."""
        self._gallery.take_tracks(message)
        self._counts["pictures"] += 1
        self._ids.update(track["id"] for track in message["tracks"])
        if self._json:
            print(json.dumps(message, separators=(",", ":")), flush=True)
        elif time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + TRACKS_EVERY_S
            print(_tracks_line(message), flush=True)

    def alert(self, alert: dict[str, Any]) -> None:
        """An alert: always printed, drawn when it has a snapshot."""
        self._counts["alerts"] += 1
        if self._json:
            print(json.dumps(alert, separators=(",", ":")), flush=True)
        else:
            line = alert_line(alert)
            print(f"\x1b[1;31m{line}\x1b[0m" if sys.stdout.isatty() and alert["phase"] == "start" else line, flush=True)
        self._gallery.take_alert(alert)

    def farewell(self, folder: Path) -> str:
        """What was seen, and where to look."""
        pictures = self._gallery.written
        where = f"look at {pictures[-1]} ({len(pictures)} annotated pictures)" if pictures else (
            f"no alert was raised, so there is no picture; draw your own zones in {folder / 'demo.yaml'}"
        )  # fmt: skip
        counts = self._counts
        return f"{counts['pictures']} pictures analysed, {len(self._ids)} tracks, {counts['alerts']} alert messages; {where}"


def _tracks_line(message: dict[str, Any]) -> str:
    """``12:00:01  tracks  person 3 at 0.51,0.60  ...``."""
    shown = [
        f"{track['label']} {track['id'].rpartition('/')[2]} at "
        f"{(track['box'][0] + track['box'][2]) / 2:.2f},{track['box'][3]:.2f}"
        for track in message["tracks"][:6]
    ]
    more = len(message["tracks"]) - len(shown)
    words = ", ".join(shown) or "nobody"
    return f"{message['time']}  {message['camera']}  tracks: {words}" + (f" and {more} more" if more > 0 else "")


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Set by SIGINT or SIGTERM while inside; the daemon is then stopped in order."""
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"needs seconds in 0..86400, got {text}")
    return value

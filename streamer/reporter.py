"""What the supervisor tells the hub: alerts about cameras (never lost), status and the process table (lossy)."""

from __future__ import annotations

import time
from typing import Any

from vedette.streamer.alert import rfc3339
from vedette.streamer.config import Config
from vedette.streamer.eventlink import EventLink
from vedette.streamer.health import CameraHealth, Incident, Sight
from vedette.streamer.log import redact
from vedette.streamer.post import Post
from vedette.streamer.telemetry import TelemetryLink
from vedette.streamer.types import Event, Severity, incident_id
from vedette.streamer.wire import EVENTS, MAX_JSON, TELEMETRY, encode, ipc

#: How often status and the process table go out, seconds.
REPORT_S = 1.0
STATUS_SCHEMA = "vedette.status/1"
PRODUCER = "supervisor"
SEVERITY: dict[str, Severity] = {"camera_offline": "critical", "camera_frozen": "critical", "camera_back": "info"}
#: What a capture process reports that everyone may know, with what it is before the first report.
_GAUGES: dict[str, Any] = {"epoch": 0, "fps": 0.0, "drops": {}, "reconnects": 0}


class Reporter:
    """Owns the supervisor's two links to the hub and the health of every camera."""

    def __init__(self, config: Config, run_dir: str, boot: str) -> None:
        self.boot = boot
        self.link = EventLink(ipc(run_dir, EVENTS), PRODUCER, boot)
        self.telemetry = TelemetryLink(ipc(run_dir, TELEMETRY))
        self.counters = {"reloads": 0, "reloads_refused": 0, "malformed_beats": 0}
        self._config = config
        self._health: dict[str, CameraHealth] = {}
        self._next_report_s = float("-inf")

    def follow(self, config: Config, now_s: float) -> None:
        """Watch the cameras of ``config``: new ones from now on, removed ones are closed, patience is updated."""
        self._config = config
        for name in [name for name in self._health if name not in config.cameras]:
            self._raise(name, self._health.pop(name).close("removed"), now_s)
        for name, camera in config.cameras.items():
            health = self._health.setdefault(name, CameraHealth(camera.offline_after, now_s))
            health.offline_after_s = camera.offline_after

    def tick(self, posts: list[Post], now_s: float) -> None:
        """Judge every camera, and once a second report; the link is worked either way."""
        for post in posts:
            health = self._health.get(post.name) if post.camera else None
            if health is not None:
                self._raise(post.name, health.update(sight_of(post), now_s), now_s)
        self.link.work()
        if now_s >= self._next_report_s:
            self._next_report_s = now_s + REPORT_S
            self._report(posts, now_s)

    def status_of(self, post: Post) -> dict[str, Any]:
        """The public ``status.<camera>`` message."""
        health = self._health.get(post.name)
        beat = post.child.beat if post.child else {}
        gauges = {key: beat.get(key, default) for key, default in _GAUGES.items()}
        error = beat.get("last_error") or post.last_error
        return {
            "schema": STATUS_SCHEMA,
            "camera": post.name,
            "time": rfc3339(time.time()),
            "state": "offline" if health is not None and health.offline else post.state,
            **gauges,
            "last_error": redact(str(error))[:500] if error else None,
        }

    def close(self, timeout_s: float) -> bool:
        """Close what is open and wait for the hub to have it; False when some alerts were not acknowledged.

        Call it while the hub still lives.
        """
        now_s = time.monotonic()
        for name, health in self._health.items():
            self._raise(name, health.close("stopped"), now_s)
        return self.link.drain(timeout_s)

    def release(self) -> None:
        """Close the sockets."""
        self.link.close()
        self.telemetry.close()

    def _report(self, posts: list[Post], now_s: float) -> None:
        rows = [post.row(now_s) for post in posts]
        if len(encode({"processes": rows})) > MAX_JSON // 2:
            rows = [{**row, "beat": {}} for row in rows]  # one talkative child must not cost everybody the table
        self.telemetry.send("process", {"processes": rows, "counters": self.counters})
        for post in posts:
            if post.camera:
                self.telemetry.send(f"status.{post.camera}", self.status_of(post))

    def _raise(self, camera: str, incidents: list[Incident], now_s: float) -> None:
        for incident in incidents:
            self.link.send(self._event(camera, incident, now_s))

    def _event(self, camera: str, incident: Incident, now_s: float) -> Event:
        kind = incident.kind
        return Event(
            id=incident_id(self._config.site, camera, self.boot, kind, f"health:{incident.number}", ()),
            rev=0 if incident.phase == "start" else 1,
            producer=PRODUCER,
            boot=self.boot,
            camera=camera,
            rule=kind,
            kind=kind,
            phase=incident.phase,
            severity=SEVERITY[kind],
            mono_ns=round(now_s * 1e9),
            wall_s=time.time(),
            explain=incident.explain,
        )


def sight_of(post: Post) -> Sight:
    """What a capture post's last beat says about its camera; a report of the wrong type counts as none."""
    beat = post.child.beat if post.child else {}
    newest_ns = beat.get("last_frame_mono_ns")
    error = beat.get("last_error") or post.last_error
    return Sight(
        last_frame_s=newest_ns / 1e9 if isinstance(newest_ns, int | float) and newest_ns > 0 else None,
        frozen=beat.get("state") == "frozen",
        ended=post.ended or beat.get("state") == "ended",
        dying=post.dying,
        error=redact(str(error))[:500] if error else None,
    )

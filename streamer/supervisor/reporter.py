"""What the supervisor tells the hub: alerts about cameras (never lost), status and the process table (lossy)."""

from __future__ import annotations

import time
from typing import Any

from vedette.streamer.alert import rfc3339
from vedette.streamer.config import Config
from vedette.streamer.eventlink import EventLink
from vedette.streamer.log import redact
from vedette.streamer.supervisor.health import CameraHealth, Incident, Sight
from vedette.streamer.supervisor.post import Post
from vedette.streamer.telemetry import TelemetryLink
from vedette.streamer.types import Event, Severity, incident_id
from vedette.streamer.wire import EVENTS, MAX_JSON, TELEMETRY, encode, ipc

#: How often status and the process table go out, seconds.
REPORT_S = 1.0
STATUS_SCHEMA = "vedette.status/1"
PRODUCER = "supervisor"
SEVERITY: dict[str, Severity] = {"camera_offline": "critical", "camera_frozen": "critical", "camera_back": "info"}


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
        """Watch the cameras of ``config``: removed ones are closed, patience is updated."""
        self._config = config
        for name in [name for name in self._health if name not in config.cameras]:
            self._raise(name, self._health.pop(name).close("removed"), now_s)
        for name, health in self._health.items():
            health.offline_after_s = config.cameras[name].offline_after

    def tick(self, posts: list[Post], now_s: float) -> None:
        """Judge every camera, and once a second report; the link is worked either way."""
        for post in posts:
            if post.camera in self._config.cameras:
                self._judge(post, now_s)
        self.link.work()
        if now_s >= self._next_report_s:
            self._next_report_s = now_s + REPORT_S
            self._report(posts, now_s)

    def _judge(self, post: Post, now_s: float) -> None:
        health = self._health.get(post.name)
        if health is None:
            if not (post.up or post.restarts or post.dying or post.ended):
                return  # its process still loads: that is our slowness, not an outage of the camera
            camera = self._config.cameras[post.name]
            health = self._health[post.name] = CameraHealth(camera.offline_after, now_s)
        self._raise(post.name, health.update(sight_of(post), now_s), now_s)

    def status_of(self, post: Post) -> dict[str, Any]:
        """The public ``status.<camera>`` message."""
        health = self._health.get(post.name)
        beat = post.child.beat if post.child else {}
        error = beat.get("last_error") or post.last_error
        return {
            "schema": STATUS_SCHEMA,
            "camera": post.name,
            "time": rfc3339(time.time()),
            "state": "offline" if health is not None and health.offline else post.state,
            "epoch": _number(beat.get("epoch")),
            "fps": _number(beat.get("fps")),
            "drops": _counts(beat.get("drops")),
            "reconnects": _number(beat.get("reconnects")),
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
        self.counters["malformed_beats"] = sum(post.malformed for post in posts)
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


def _number(value: object) -> int | float:
    """The number, or 0: what a capture process says goes out to everyone, and it decodes what strangers send."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53 else 0


def _counts(value: object) -> dict[str, int | float]:
    """Counts by short reasons, at most 32 of them."""
    items = list(value.items())[:32] if isinstance(value, dict) else []
    return {str(key)[:64]: _number(count) for key, count in items}


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

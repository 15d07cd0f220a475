"""What Prometheus scrapes: the hub's account and the processes' reports, base units, prefix ``vedette_``.

Labels are cameras, kinds, roles, sinks and reasons: sets that the configuration bounds. Never a track id.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from vedette.streamer.hubstate import HubState
from vedette.streamer.outbox import Outcome

LATENCY_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 30.0)
#: Reasons or numbers exported from one report, at most; a child's report is not trusted to be short.
MOST_LABELS = 32

#: hub counter -> (metric, label, value)
_HUB_COUNTERS = {
    "alerts": ("vedette_hub_events", "outcome", "committed"),
    "duplicates": ("vedette_hub_events", "outcome", "duplicate"),
    "interrupted": ("vedette_hub_events", "outcome", "interrupted"),
    "malformed_events": ("vedette_hub_events", "outcome", "malformed"),
    "held_dropped": ("vedette_hub_events", "outcome", "not_held"),
    "commits": ("vedette_hub_commits", "", ""),
    "store_errors": ("vedette_store_errors", "", ""),
    "pictures_malformed": ("vedette_hub_pictures_lost", "reason", "malformed"),
    "pictures_dropped": ("vedette_hub_pictures_lost", "reason", "memory"),
    "pictures_unwritten": ("vedette_hub_pictures_lost", "reason", "disk"),
    "replay_requests": ("vedette_replay_requests", "", ""),
    "replay_malformed": ("vedette_replay_failures", "reason", "malformed"),
    "replay_errors": ("vedette_replay_failures", "reason", "store"),
    "replay_dropped": ("vedette_replay_failures", "reason", "unread"),
    "malformed_telemetry": ("vedette_hub_telemetry_malformed", "", ""),
}
_HELP = {
    "vedette_hub_events": "Events received from producers and the ends the hub wrote itself, by what became of them",
    "vedette_hub_commits": "Transactions, each one fsync",
    "vedette_store_errors": "Writes that the store did not take",
    "vedette_hub_pictures_lost": "Alerts that lost their picture",
    "vedette_replay_requests": "Pages asked for",
    "vedette_replay_failures": "Pages that were not given",
    "vedette_hub_telemetry_malformed": "Telemetry messages dropped because they were malformed",
}
#: numbers in a capture process's report that only grow -> metric, help
_CAMERA_COUNTERS = {
    "frames": ("vedette_camera_frames", "Pictures taken from the source"),
    "sent": ("vedette_camera_frames_sent", "Pictures given to the infer process"),
    "reconnects": ("vedette_camera_reconnects", "Times the source was opened again"),
}
_CAMERA_GAUGES = {"fps": ("vedette_camera_fps", "Pictures a second")}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


class Metrics:
    """The registry of one hub. `scrape` may be called from any thread."""

    def __init__(self, state: HubState) -> None:
        self._registry = CollectorRegistry()
        self._alerts = Counter("vedette_alerts", "Committed alerts", ["camera", "kind"], registry=self._registry)
        self._latency = Histogram(
            "vedette_alert_latency_seconds",
            "From the decoded picture to the committed alert",
            buckets=LATENCY_S,
            registry=self._registry,
        )
        self._registry.register(HubCollector(state))
        state.on_commit.append(self._committed)

    def _committed(self, outcome: Outcome) -> None:
        for alert in outcome.stored:
            self._alerts.labels(alert.camera, alert.kind).inc()
        for total_ms in outcome.total_ms:
            self._latency.observe(total_ms / 1000)

    def scrape(self) -> bytes:
        """The exposition text."""
        return generate_latest(self._registry)


class HubCollector(Collector):
    """Reads the hub's account when it is scraped."""

    def __init__(self, state: HubState) -> None:
        self._state = state

    def describe(self) -> Iterable[Metric]:
        """Nothing is collected at registration."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family, hub first."""
        yield from self._hub()
        yield from self._sinks()
        rows = self._state.processes
        yield from self._processes(rows)
        yield from self._cameras([row for row in rows if isinstance(row.get("camera"), str)])
        yield from self._infer([row for row in rows if row.get("role") == "infer"])

    def _hub(self) -> Iterator[Metric]:
        state, status = self._state, self._state.status()
        yield _gauge("vedette_build_info", "What runs here", 1.0, version=_version())
        yield _gauge("vedette_stream_last_seq", "seq of the newest alert", status["last_seq"])
        yield _gauge("vedette_stream_first_seq", "seq of the oldest alert that is kept", status["first_seq"])
        yield _gauge("vedette_hub_events_held", "Events in memory that the disk has not taken", status["held"])
        yield _gauge("vedette_hub_storing", "1 while the store takes alerts", float(status["trouble"] is None))
        yield _gauge("vedette_store_free_bytes", "Free space of the store's file system", status["disk_free_bytes"])
        yield _gauge("vedette_store_reserve", "1 while the emergency reserve lies ready", float(status["reserve"]))
        families: dict[str, CounterMetricFamily] = {}
        for key, (name, label, value) in _HUB_COUNTERS.items():
            family = families.setdefault(name, CounterMetricFamily(name, _HELP[name], labels=[label] if label else []))
            family.add_metric([value] if label else [], float(state.counters[key]))
        yield from families.values()
        tracks = CounterMetricFamily("vedette_track_messages", "Track messages passed on", labels=["camera"])
        for camera, count in dict(state.track_messages).items():
            tracks.add_metric([camera], float(count))
        yield tracks

    def _sinks(self) -> Iterator[Metric]:
        labels = ["sink", "kind"]
        up = GaugeMetricFamily("vedette_sink_up", "1 while the sink takes alerts", labels=labels)
        lag = GaugeMetricFamily("vedette_sink_lag_alerts", "Committed alerts it has not got yet", labels=labels)
        done = CounterMetricFamily("vedette_sink_alerts", "Alerts by outcome", labels=[*labels, "outcome"])
        failures = CounterMetricFamily("vedette_sink_failures", "Tries that failed", labels=labels)
        for sink in self._state.sinks:
            status = sink.status()
            names = [status["name"], status["kind"]]
            up.add_metric(names, float(status["state"] == "ok"))
            lag.add_metric(names, float(status["lag"]))
            failures.add_metric(names, float(status["failures"]))
            for outcome in ("delivered", "refused", "skipped"):
                done.add_metric([*names, outcome], float(status[outcome]))
        yield from (up, lag, done, failures)

    def _processes(self, rows: Iterable[dict[str, Any]]) -> Iterator[Metric]:
        labels = ["role", "name"]
        up = GaugeMetricFamily("vedette_process_up", "1 while the process lives", labels=labels)
        restarts = CounterMetricFamily("vedette_process_restarts", "Lives after the first", labels=labels)
        age = GaugeMetricFamily("vedette_process_heartbeat_age_seconds", "Since its last heartbeat", labels=labels)
        for row in rows:
            names = [str(row.get("role", ""))[:64], str(row.get("name", ""))[:64]]
            up.add_metric(names, float(isinstance(row.get("pid"), int)))
            for family, key in ((restarts, "restarts"), (age, "beat_age_s")):
                value = _number(row.get(key))
                if value is not None:
                    family.add_metric(names, value)
        yield from (up, restarts, age)

    def _cameras(self, rows: list[dict[str, Any]]) -> Iterator[Metric]:
        up = GaugeMetricFamily("vedette_camera_up", "1 while pictures flow", labels=["camera"])
        dropped = CounterMetricFamily("vedette_camera_dropped", "Pictures not analysed", labels=["camera", "reason"])
        families: dict[str, Metric] = {}
        for row in rows:
            camera, beat = str(row["camera"])[:32], _dict(row.get("beat"))
            up.add_metric([camera], float(row.get("state") == "streaming"))
            for key, (name, help_text) in {**_CAMERA_COUNTERS, **_CAMERA_GAUGES}.items():
                value = _number(beat.get(key))
                if value is None:
                    continue
                kind = CounterMetricFamily if key in _CAMERA_COUNTERS else GaugeMetricFamily
                family = families.setdefault(name, kind(name, help_text, labels=["camera"]))
                family.add_metric([camera], value)  # type: ignore[attr-defined]  # both kinds have it
            for reason, count in list(_dict(beat.get("drops")).items())[:MOST_LABELS]:
                value = _number(count)
                if value is not None:
                    dropped.add_metric([camera, str(reason)[:32]], value)
        yield from (up, dropped, *families.values())

    def _infer(self, rows: list[dict[str, Any]]) -> Iterator[Metric]:
        """Every plain number that infer reports, under its own key: ``vedette_infer{name="infer", what="fps"}``."""
        family = GaugeMetricFamily("vedette_infer", "Numbers the infer process reports", labels=["name", "what"])
        for row in rows:
            for key, raw in list(_dict(row.get("beat")).items())[:MOST_LABELS]:
                value = _number(raw)
                if value is not None and key not in ("mono_ns", "deadline_s"):
                    family.add_metric([str(row.get("name", ""))[:64], str(key)[:64]], value)
        yield family


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _gauge(name: str, help_text: str, value: float, **labels: str) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=list(labels))
    family.add_metric(list(labels.values()), float(value))
    return family


def _version() -> str:
    try:
        return version("vedette")
    except PackageNotFoundError:
        return "unknown"

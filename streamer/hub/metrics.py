"""What Prometheus scrapes: the hub's account and the processes' reports, base units, prefix ``vedette_``.

Labels are cameras, kinds, roles, sinks and reasons: sets that the configuration bounds. Never a track id.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from vedette.streamer.hub.state import HubState
from vedette.streamer.outbox.records import Outcome

LATENCY_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 30.0)
#: Reasons or numbers exported from one report, at most; a child's report is not trusted to be short.
MOST_LABELS = 32
MOST_CAMERAS = 256

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
    "curve_accepted": ("vedette_curve_handshakes", "outcome", "accepted"),
    "curve_denied": ("vedette_curve_handshakes", "outcome", "denied"),
    "floods": ("vedette_hub_floods", "", ""),
    "malformed_telemetry": ("vedette_hub_telemetry_malformed", "", ""),
}
_HELP = {
    "vedette_hub_events": "Events received from producers and the ends the hub wrote itself, by what became of them",
    "vedette_hub_commits": "Transactions, each one fsync",
    "vedette_store_errors": "Writes that the store did not take",
    "vedette_hub_pictures_lost": "Alerts that lost their picture",
    "vedette_replay_requests": "Pages asked for",
    "vedette_replay_failures": "Pages that were not given",
    "vedette_curve_handshakes": "Subscribers' keys looked at",
    "vedette_hub_floods": "Times all tcp connections were ended because memory grew too fast",
    "vedette_hub_telemetry_malformed": "Telemetry messages dropped because they were malformed",
}
#: key of a report -> metric, help, kind, what one of ours is in base units. Counters only grow within a life.
_Row = tuple[str, str, type[CounterMetricFamily] | type[GaugeMetricFamily], float]
_CAMERA: dict[str, _Row] = {
    "frames": ("vedette_camera_frames", "Pictures taken from the source", CounterMetricFamily, 1),
    "sent": ("vedette_camera_frames_sent", "Pictures given to the infer process", CounterMetricFamily, 1),
    "reconnects": ("vedette_camera_reconnects", "Times the source was opened again", CounterMetricFamily, 1),
    "fps": ("vedette_camera_fps", "Pictures a second", GaugeMetricFamily, 1),
    "interval_s": ("vedette_camera_frame_interval_seconds", "The camera's learned interval", GaugeMetricFamily, 1),
    "evidence_bytes": ("vedette_camera_evidence_bytes", "Memory of the evidence ring", GaugeMetricFamily, 1),
}
_INFER: dict[str, _Row] = {
    "frames": ("vedette_infer_frames", "Pictures analysed", CounterMetricFamily, 1),
    "skipped": (
        "vedette_infer_pictures_still",
        "Pictures whose answer stood because nothing moved",
        CounterMetricFamily,
        1,
    ),
    "batches": ("vedette_infer_batches", "Runs of the engine", CounterMetricFamily, 1),
    "batch_mean": ("vedette_infer_batch_size", "Pictures a run, mean", GaugeMetricFamily, 1),
    "engine_ms_p50": ("vedette_infer_engine_seconds", "One run of the engine, median", GaugeMetricFamily, 1e-3),
    "events": ("vedette_infer_events", "Events raised by rules", CounterMetricFamily, 1),
    "events_lost": ("vedette_infer_events_lost", "Events that no longer fitted", CounterMetricFamily, 1),
    "unacked": ("vedette_infer_events_unacked", "Events the hub has not committed yet", GaugeMetricFamily, 1),
    "waiting_for_pictures": ("vedette_infer_events_waiting", "Events that wait for a picture", GaugeMetricFamily, 1),
    "pictures_missed": ("vedette_infer_pictures_missed", "Events that got no picture", CounterMetricFamily, 1),
    "tracks_unsent": ("vedette_infer_track_messages_dropped", "Track messages dropped", CounterMetricFamily, 1),
}
_SUPERVISOR = {
    "reloads": "Configurations taken over while running",
    "reloads_refused": "Configurations refused while running",
    "malformed_beats": "Heartbeats that were malformed",
}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


class Metrics:
    """The registry of one hub. `scrape` may be called from any thread."""

    def __init__(self, state: HubState) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series a series, told by nobody
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
        yield from self._supervisor()
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
        dropped = CounterMetricFamily("vedette_camera_dropped", "Pictures not sent on", labels=["camera", "reason"])
        families: dict[str, Metric] = {}
        for row in rows:
            camera, beat = str(row["camera"])[:32], _dict(row.get("beat"))
            up.add_metric([camera], float(row.get("state") == "streaming"))
            _add_numbers(families, _CAMERA, beat, "camera", camera)
            _add_reasons(dropped, camera, beat.get("drops"))
        yield from (up, dropped, *families.values())

    def _infer(self, rows: list[dict[str, Any]]) -> Iterator[Metric]:
        labels = ["name", "engine", "backend"]
        info = GaugeMetricFamily("vedette_infer_backend_info", "What analyses the pictures", labels=labels)
        dropped = CounterMetricFamily("vedette_infer_dropped", "Pictures not analysed", labels=["camera", "reason"])
        families: dict[str, Metric] = {}
        for row in rows:
            name, beat = str(row.get("name", ""))[:64], _dict(row.get("beat"))
            if "engine" in beat:
                info.add_metric([name, str(beat["engine"])[:64], str(beat.get("backend", ""))[:64]], 1.0)
            _add_numbers(families, _INFER, beat, "name", name)
            for camera, reasons in list(_dict(beat.get("drops")).items())[:MOST_CAMERAS]:
                _add_reasons(dropped, str(camera)[:32], reasons)
        yield from (info, dropped, *families.values())

    def _supervisor(self) -> Iterator[Metric]:
        for key, help_text in _SUPERVISOR.items():
            value = _number(self._state.supervisor.get(key))
            if value is not None:
                family = CounterMetricFamily(f"vedette_supervisor_{key}", help_text)
                family.add_metric([], value)
                yield family


def _add_numbers(
    families: dict[str, Metric], table: dict[str, _Row], beat: dict[str, Any], label: str, value: str
) -> None:
    """Add what a report says to the families, made when they are first needed."""
    for key, (name, help_text, kind, unit) in table.items():
        number = _number(beat.get(key))
        if number is not None:
            family = families.setdefault(name, kind(name, help_text, labels=[label]))
            family.add_metric([value], number * unit)  # type: ignore[attr-defined]  # both kinds have it


def _add_reasons(family: CounterMetricFamily, camera: str, reasons: object) -> None:
    for reason, count in list(_dict(reasons).items())[:MOST_LABELS]:
        number = _number(count)
        if number is not None:
            family.add_metric([camera, str(reason)[:32]], number)


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

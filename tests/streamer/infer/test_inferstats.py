"""What infer tells of itself: totals for the heartbeat, one line a camera for people."""

from __future__ import annotations

import json

from vedette.streamer.infer.stats import InferStats


def test_a_line_tells_rates_drops_and_latency_of_its_window_only() -> None:
    """Rates are of the window, drops are those since the last line, by reason; the next window starts at zero."""
    stats = InferStats(100.0)
    for k in range(50):
        stats.frame("dock", float(k))
    (line,) = stats.lines(110.0, {("dock", "superseded"): 30, ("lobby", "superseded"): 5})
    assert line == (
        "dock: in 8.0 fps, out 5.0 fps, dropped superseded=30, latency p50 24 ms p99 49 ms"
    )  # fmt: skip
    (line,) = stats.lines(120.0, {("dock", "superseded"): 30})
    assert line.startswith("dock: in 0.0 fps, out 0.0 fps, dropped none")
    stats.forget("dock")
    assert stats.lines(130.0, {}) == []


def test_a_report_is_plain_numbers_by_camera_and_reason() -> None:
    """The heartbeat carries totals since the start, as JSON can hold them."""
    stats = InferStats(0.0)
    assert stats.report({})["batch_mean"] == 0.0
    stats.batch(3, 3, 12.0)
    stats.batch(2, 1, 8.0)
    stats.batch(4, 0, 0.1)
    report = stats.report({("dock", "superseded"): 2, ("dock", "stale_boot"): 1})
    assert json.loads(json.dumps(report)) == report
    assert (report["frames"], report["batches"], report["batch_mean"], report["engine_ms_p50"]) == (9, 2, 2.0, 10.0)
    assert report["skipped"] == 5
    assert (report["dropped"], report["drops"]) == (3, {"dock": {"stale_boot": 1, "superseded": 2}})

"""vedette bench alerts measures what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_bench_alerts_prints_checked_figures(tmp_path: Path) -> None:
    """JSON with the disk's own limit beside ours, every sequence verified."""
    command = [
        sys.executable,
        "-m",
        "vedette.streamer.cli",
        "bench",
        "alerts",
        "--seconds",
        "1",
        "--store",
        str(tmp_path),
    ]
    done = subprocess.run(
        [*command, "--subscribers", "2", "--snapshot-kb", "20"], stdout=subprocess.PIPE, timeout=100, check=True
    )
    report = json.loads(done.stdout)
    assert report["raw_fsync"]["before"]["per_s"] > 0
    assert report["raw_fsync"]["after"]["per_s"] > 0
    assert [row["mode"] for row in report["results"]] == ["flat_out", "tenth"]
    assert report["results"][1]["alerts_per_s"] < report["results"][0]["alerts_per_s"]
    for row in report["results"]:
        assert row["gapless"]
        assert row["alerts"] > 0
        assert row["commits_per_s"] > 0
        assert all(cpu_us > 0 for cpu_us in row["cpu_us_per_alert"].values())
        assert 0 < row["ack_p50_ms"] <= row["ack_p99_ms"]
        assert row["delivery_p50_ms"] > 0
    assert list(tmp_path.iterdir()) == []

"""`vedette bench budget` measures every stage of a real frame and says what the machine's limit is. Figures are not judged."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from tests.streamer.clips import write_clip
from vedette.engines import weights
from vedette.streamer.bench import budget


def measured(tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """What the command prints for a short clip."""
    write_clip(tmp_path / "c.avi", 9)
    parser = argparse.ArgumentParser()
    budget.add_arguments(parser)
    assert budget.run(parser.parse_args(["--video", str(tmp_path / "c.avi"), "--store", str(tmp_path), *more])) == 0
    return capsys.readouterr().out


@pytest.mark.slow
def test_every_stage_is_measured_against_a_limit_of_the_same_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All stages are there, their sum is the frame, shares are limit over time, and nothing is left on the disk."""
    document = json.loads(measured(tmp_path, capsys))
    stages = document["stages"]
    assert list(stages) == [*budget.FRAME_STAGES, *budget.LEARNED_STAGES, *budget.ALERT_STAGES]
    assert all(row["p50_us"] > 0 for stage, row in stages.items() if stage != "batch_wait")
    assert document["frames"] == 9 - budget.WARM
    assert document["frame_us"] == pytest.approx(sum(stages[s]["p50_us"] for s in budget.FRAME_STAGES), abs=0.1)
    assert stages["detector"]["limit_us"] == pytest.approx(
        2e6 * next(iter(budget.MULTIPLY_ADDS.values())) / document["limits"]["gemm_flop_per_s"], rel=1e-3
    )
    for row in stages.values():
        assert (row["limit_us"] is None) == (row["limit_is"] is None)
    assert [path.name for path in tmp_path.iterdir()] == ["c.avi"]


def test_the_table_shows_every_stage() -> None:
    """The table for people leaves nothing out, whether or not a stage has a limit."""
    row = {"p50_us": 2.0, "p95_us": 3.0, "limit_us": 1.0, "limit_is": "memory: it", "share_of_limit": 0.5}
    bare = {**row, "limit_us": None, "limit_is": None, "share_of_limit": None}
    document = {
        "clip": {"name": "c.avi", "width": 160, "height": 120},
        "engine": {"name": "n", "precision": "fp32", "backend": "onnxruntime"},
        "machine": {"cpus": 2},
        "frame_us": 2000.0,
        "learned_us": 500.0,
        "alert_us": 1000.0,
        "stages": {"decode": row, "rules": bare},
    }
    table = budget.markdown_of(document).splitlines()
    assert "2.0 ms; learned evidence 0.5 ms and an alert 1.0 ms more" in table[0]
    assert table[-2:] == ["| decode | 2.0 | 3.0 | 1.0 | 50% | memory: it |", "| rules | 2.0 | 3.0 |  |  |  |"]


def test_the_shipped_network_has_its_multiply_adds() -> None:
    """Whoever changes the weights counts their multiply-adds again, or the detector has no limit."""
    listed = (Path(weights.__file__).parent / "SHA256SUMS").read_text().split()
    assert listed[listed.index("vedette-nano.onnx") - 1] in budget.MULTIPLY_ADDS

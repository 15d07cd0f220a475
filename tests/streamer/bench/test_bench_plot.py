"""`vedette bench NAME --plot PNG` draws what it printed; without matplotlib it says so before it measures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest

from vedette.streamer.bench import _plot
from vedette.streamer.commands import bench
from vedette.streamer.errors import VedetteError

ALERTS = {"subscribers": 1, "alerts_per_s": 700.0, "delivery_p99_ms": 9.0}
SCALE = [{"cameras": n, "cores": n / 9, "cpu_s_per_camera_hour": 400.0, "memory_mb": 90.0 * n} for n in (1, 2)]
FIRSTS = {"first_decoded_s": 1.0, "first_detection_s": 1.2, "first_alert_s": None}
LOADED = {"latency_p95_ms": None, "cpu_s_per_camera_hour": 300.0}
SENT = {"flat_out": {"fps": 900.0}, "paced_30_fps": {"p50_ms": 0.7}}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "alerts": {
        "raw_fsync": {"before": {"per_s": 1500.0}},
        "results": [{**ALERTS, "mode": "flat_out"}, {**ALERTS, "mode": "tenth"}],
    },
    "budget": {
        "stages": {"decode": {"p50_us": 9.0, "share_of_limit": 0.1}, "rules": {"p50_us": 0.0, "share_of_limit": None}}
    },
    "pipeline": {"clips": {"fps": 15.0}, "cameras_sustained": {"vedette": 8}, "at_80_percent": {"vedette": LOADED}},
    "scale": {"scenes": {"synthetic": {"rows": SCALE}, "recorded": {"rows": SCALE[:1]}}},
    "startup": {"steps": list(FIRSTS), "contenders": {"vedette": {"median": FIRSTS}}},
    "temporal": {
        "rows": [{"T": 64, "B": 16, "threads": 1, "case": case, "wall_ms": 2.0} for case in ("ring", "window")],
        "rift": [{"case": "int8", "cameras": 16, "wall_ms": 20.0}],
    },
    "tracker": {
        "ours": [{"cameras": 1, "objects": n, "ms_per_camera_frame_p50": 0.3} for n in (10, 50)],
        "peers": {"ms_per_frame_p50": {"sort": {"10": 1.0, "50": None}}},
    },
    "transport": {"sizes": {"1080p": {"transports": {"vedette": SENT}}}},
}


def test_every_measurement_can_be_drawn() -> None:
    """A measurement without panels would fail after minutes of measuring."""
    assert set(_plot.PANELS) == set(bench.names()) == set(DOCUMENTS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_picture_is_a_png(name: str, tmp_path: Path) -> None:
    """Whatever is missing in a document is left out of its picture."""
    _plot.draw_plot(name, DOCUMENTS[name], tmp_path / "p.png")
    picture = cv2.imread(str(tmp_path / "p.png"))
    assert picture is not None
    assert picture.shape[0] > 300
    assert picture.std() > 5, "nothing is drawn"


def chosen(monkeypatch: pytest.MonkeyPatch, printed: str, *words: str) -> int:
    """`vedette bench scale` with a measurement that only prints."""

    def run(_args: argparse.Namespace) -> int:
        print(printed)
        return 1

    module = SimpleNamespace(__doc__="m", add_arguments=lambda _parser: None, run=run)
    monkeypatch.setattr(bench.importlib, "import_module", lambda _name: module)
    return bench.run(argparse.Namespace(name="scale", rest=list(words)))


def test_what_is_printed_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With a picture or without, standard output and the exit status are the measurement's."""
    text = json.dumps(DOCUMENTS["scale"])
    assert chosen(monkeypatch, text) == 1
    assert chosen(monkeypatch, text, "--plot", str(tmp_path / "p.png")) == 1
    assert capsys.readouterr().out == f"{text}\n{text}\n"
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_figures_are_not_lost_with_their_picture(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A table for people cannot be drawn, and is printed all the same."""
    with pytest.raises(VedetteError, match="draws the JSON document"):
        chosen(monkeypatch, "| stage |", "--plot", str(tmp_path / "p.png"))
    assert capsys.readouterr().out == "| stage |\n"


def test_what_cannot_be_drawn_is_said_before_measuring(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A missing folder, a missing matplotlib: minutes are not spent for nothing."""
    with pytest.raises(VedetteError, match="there is no such folder"):
        chosen(monkeypatch, "{}", "--plot", str(tmp_path / "away" / "p.png"))
    monkeypatch.setattr(_plot, "find_spec", lambda _name: None)
    with pytest.raises(VedetteError, match=r"pip install 'vedette\[plot\]'"):
        chosen(monkeypatch, "{}", "--plot", str(tmp_path / "p.png"))
    assert capsys.readouterr().out == ""

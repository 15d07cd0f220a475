"""``vedette doctor``: tells the truth about this machine and cannot be brought down by it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from vedette.streamer import cli, machine
from vedette.streamer.commands.doctor import advice_for


def healthy() -> dict[str, Any]:
    """Facts of a machine that lacks nothing."""
    return {
        "system": {},
        "memory": {"total_mb": 8000, "container_limit_mb": None},
        "limits": {"open_files": 4096},
        "shared_memory": {"free_mb": 4000},
        "opencv": {"ffmpeg": True},
        "zmq": {"curve": True},
        "gpu": {"present": False, "names": []},
        "optional": {"tensorrt": None, "tensorrt_rtx": None, "pycuda": None, "paho-mqtt": "2"},
    }


def test_the_report_is_json_and_true(capsys: pytest.CaptureFixture[str]) -> None:
    """Versions are those installed, the model's hash is that of the file, the backend comes with a reason."""
    import cv2
    import onnxruntime

    assert cli.main(["doctor", "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["opencv"]["version"] == cv2.__version__
    assert facts["opencv"]["ffmpeg"] is True
    assert facts["onnxruntime"]["version"] == onnxruntime.__version__
    assert "CPUExecutionProvider" in facts["onnxruntime"]["providers"]
    assert facts["system"]["cores"] == len(os.sched_getaffinity(0))
    assert facts["zmq"]["curve"] in (True, False)
    model = Path(facts["engine"]["model"])
    assert facts["engine"]["model_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert facts["engine"]["backend"]
    assert facts["engine"]["why"]
    assert not any("error" in topic for topic in facts.values() if isinstance(topic, dict))


def test_the_text_names_every_topic(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """For people: one line a fact, advice at the end."""
    monkeypatch.setattr("vedette.streamer.commands.doctor.machine_facts", healthy)
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for topic in healthy():
        assert f"{topic.replace('_', ' ')}:" in out
    assert out.endswith("advice: nothing to do\n")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import os; os.abort()", "ended with status -6"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("print('not json')", None),
    ],
    ids=["aborts", "missing", "babbles"],
)
def test_a_library_that_takes_its_process_down_is_a_fact(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: str, error: str | None
) -> None:
    """The doctor survives it, says so, and advises."""
    monkeypatch.setattr(machine, "_CV2", code)
    monkeypatch.setattr(machine, "_ENGINE", "print('{}')")
    monkeypatch.setattr(machine, "_ORT", "print('{}')")
    assert cli.main(["doctor", "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["opencv"]["error"] == error if error else "JSONDecodeError" in facts["opencv"]["error"]
    assert any(line.startswith("opencv cannot be used: ") for line in facts["advice"])


def test_a_library_that_hangs_is_a_fact() -> None:
    """An import that never ends is cut."""
    assert machine.ask("import time; time.sleep(60)", timeout_s=0.5) == {"error": "did not answer within 0.5 s"}


@pytest.mark.parametrize(
    ("topic", "change", "advice"),
    [
        ("limits", {"open_files": 256}, "open files"),
        ("shared_memory", {"free_mb": 64}, "--shm-size"),
        ("memory", {"container_limit_mb": 512}, "512 MB"),
        ("opencv", {"ffmpeg": False}, "opencv-python-headless"),
        ("zmq", {"curve": False}, "CURVE"),
        ("optional", {"paho-mqtt": None}, "vedette[mqtt]"),
        ("gpu", {"present": True, "names": ["NVIDIA GeForce RTX 4070, 580"]}, "vedette[rtx]"),
        ("gpu", {"present": True, "names": ["Orin"]}, "vedette[gpu]"),
        ("engine", {"error": "EngineFault: no model"}, "engine cannot be used: EngineFault: no model"),
    ],
)
def test_each_lack_has_its_advice(topic: str, change: dict[str, Any], advice: str) -> None:
    """What to install or raise; a healthy machine gets none."""
    facts = healthy()
    assert advice_for(facts) == []
    facts[topic] = {**facts.get(topic, {}), **change}
    (line,) = advice_for(facts)
    assert advice in line


def test_the_known_failures_of_learned_rules_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Every failure on the model card is a line of the report, for people and for programs."""
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert cli.main(["doctor", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)["learned_rules_fail"]
    assert [line.partition(":")[0] for line in told][:1] == ["Fights"]
    assert all(f"  - {line}" in shown for line in told)

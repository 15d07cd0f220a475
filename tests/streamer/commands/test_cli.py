"""The command line: quick, truthful, quiet."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from vedette.streamer import cli
from vedette.streamer.errors import EngineError

CLI = [sys.executable, "-m", "vedette.streamer.cli"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *words], capture_output=True, text=True, check=False, timeout=60)


def test_help_and_version_import_nothing_heavy() -> None:
    """Neither numpy nor pydantic nor zmq is loaded before a command needs it."""
    code = (
        "import sys, contextlib, vedette.streamer.cli as c\n"
        "with contextlib.suppress(SystemExit): c.main(['--help'])\n"
        "with contextlib.suppress(SystemExit): c.main(['--version'])\n"
        "print([m for m in ('numpy', 'pydantic', 'zmq', 'cv2', 'onnxruntime', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert f"vedette {version('vedette')}" in done.stdout
    for command in cli.COMMANDS:
        assert f"\n    {command} " in done.stdout


def test_every_command_of_the_table_is_there() -> None:
    """Each module has add_arguments and run, and its help can be printed."""
    for command, (path, _) in cli.COMMANDS.items():
        module = __import__(path, fromlist=["run"])
        assert callable(module.add_arguments), command
        assert callable(module.run), command
        with pytest.raises(SystemExit) as caught:
            cli.main([command, "--help"])
        assert caught.value.code == 0


def test_no_command_and_an_unknown_command_are_usage_errors() -> None:
    """Exit 2 and the list of commands."""
    for words in ([], ["fly"]):
        done = run(*words)
        assert done.returncode == 2
        assert "usage: vedette" in done.stderr


def test_an_operational_error_is_one_redacted_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``vedette: <sentence>`` and the error's own exit code; no traceback, no password."""

    def fail(_words: list[str]) -> int:
        raise EngineError("engine: cannot fetch https://me:secret@host/model")

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert cli.main(["doctor"]) == 3
    assert capsys.readouterr().err == "vedette: engine: cannot fetch https://***@host/model\n"


def test_a_wrong_configuration_prints_its_lines_as_they_are(tmp_path: Path) -> None:
    """``file:line: key: rule, got value``, one a fault, exit 2, for run as for check."""
    config = tmp_path / "c.yaml"
    config.write_text("version: 1\ncamera: {}\ncameras: {Dock: {source: x}}\n")
    for command in ("check", "run"):
        done = run(command, str(config))
        assert done.returncode == 2
        lines = done.stderr.splitlines()
        assert len(lines) == 2, lines
        assert all(line.startswith(f"{config}:") for line in lines)
        assert done.stdout == ""


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the shell reports a program that SIGINT ended."""

    def interrupt(_words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", interrupt)
    assert cli.main(["watch"]) == 130


def test_a_reader_that_left_is_not_an_error_message() -> None:
    """``vedette ... | head`` ends quietly."""
    code = "import sys, vedette.streamer.cli as c\nc._dispatch = lambda w: [print('x' * 100) for _ in range(10000)] and 0\nsys.exit(c.main(['x']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == cli.EXIT_PIPE


def test_bench_hands_its_words_to_the_measurement() -> None:
    """``bench NAME --help`` is the measurement's own help; an unknown name lists what there is."""
    from vedette.streamer.commands import bench

    names = bench.names()
    assert names
    assert not any(name.startswith("_") for name in names)
    done = run("bench", "nonsense")
    assert done.returncode == 2
    assert names[0] in done.stderr
    done = run("bench", names[0], "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: vedette bench {names[0]}")

"""``vedette check``: ok, or every fault, and never a trace on the machine."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from vedette.streamer import cli
from vedette.streamer.supervisor.store_lock import StoreLock


def config(folder: Path, port: int = 0, cameras: str = "{a: {source: rtsp://h/y}, b: {source: rtsp://h/x}}") -> str:
    """A file whose publish port is ``port``."""
    path = folder / "c.yaml"
    path.write_text(
        f"version: 1\ncameras: {cameras}\nalerts:\n  publish: tcp://127.0.0.1:{port}\n"
        f"  replay: ipc://{folder}/r\n  store: {folder}/store\nhttp: {{listen: null}}\n"
    )
    return str(path)


def test_a_good_configuration_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on standard output, exit 0, nothing made."""
    assert cli.main(["check", config(tmp_path)]) == 0
    assert capsys.readouterr().out == "ok: 2 cameras, 0 rules, 0 sinks\n"
    assert not (tmp_path / "store").exists()


def test_a_port_in_use_is_exit_2_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """file:line: key: rule, got value."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert cli.main(["check", config(tmp_path, port)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"{tmp_path}/c.yaml:4: alerts.publish: the port is in use")
    assert err.endswith(f"got 'tcp://127.0.0.1:{port}'\n")


def test_the_running_daemons_own_ports_are_not_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Checking a file before a reload works while the daemon holds store and ports."""
    (tmp_path / "store").mkdir()
    lock = StoreLock(tmp_path / "store")
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert cli.main(["check", config(tmp_path, server.getsockname()[1])]) == 0
    lock.release()
    captured = capsys.readouterr()
    assert captured.out.startswith("ok: ")
    assert "ports not tried, vedette (pid " in captured.err


def test_a_missing_file_is_a_warning_not_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file source may appear later."""
    assert cli.main(["check", config(tmp_path, cameras="{a: {source: /no/such.mp4}}")]) == 0
    captured = capsys.readouterr()
    assert captured.out == "ok: 1 camera, 0 rules, 0 sinks\n"
    assert "warning: " in captured.err
    assert "cameras.a.source: no such file here yet, got '/no/such.mp4'" in captured.err


def test_what_is_legal_and_unsafe_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tcp address for others without keys, a password in the file, a webhook without encryption: warned, exit 0."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "version: 1\n"
        "cameras:\n"
        "  dock: {source: 'rtsp://viewer:hunter2@10.0.0.5/s'}\n"
        "alerts:\n"
        f"  store: '{tmp_path}/s'\n"
        "  publish: tcp://0.0.0.0:0\n"
        "  replay: tcp://127.0.0.1:0\n"
        "  sinks: [{kind: webhook, url: 'http://example.org/h'}]\n"
        "http: {listen: null}\n"
    )
    assert cli.main(["check", str(path)]) == 0
    said = capsys.readouterr().err
    assert f"{path}:3: cameras.dock.source: holds a secret" in said
    assert f"{path}:6: alerts.publish: others can listen without a key" in said
    assert "alerts.replay" not in said
    assert "alerts.sinks[0].url: is not encrypted" in said
    assert "hunter2" not in said


def test_keys_that_are_not_there_are_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """alerts.curve names a folder without keys: exit 2, the line, and the command that makes them; then exit 0."""
    path, keys = tmp_path / "c.yaml", tmp_path / "keys"
    path.write_text(
        "version: 1\ncameras: {}\nhttp: {listen: null}\nalerts:\n"
        f"  store: '{tmp_path}/s'\n  publish: tcp://127.0.0.1:0\n  replay: ipc://{tmp_path}/r\n  curve: {{keys: '{keys}'}}\n"
    )
    assert cli.main(["check", str(path)]) == 2
    said = capsys.readouterr().err
    assert f"{path}:8: alerts.curve.keys" in said
    assert f"vedette keys new NAME --dir {keys}" in said
    assert cli.main(["keys", "new", "wall", "--dir", str(keys), "--out", str(tmp_path / "wall.key")]) == 0
    assert cli.main(["check", str(path)]) == 0

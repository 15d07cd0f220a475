"""The systemd unit and the Dockerfile say what is true of this tree."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from vedette.streamer.cli import COMMANDS
from vedette.streamer.config import AlertsSection, HttpSection
from vedette.streamer.supervisor.role import STOP_ORDER

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "configs" / "vedette.service"


def unit() -> dict[str, list[str]]:
    """Every key of the unit with its values."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, rest) of the Dockerfile, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [(i, rest.strip()) for i, _, rest in (line.partition(" ") for line in text.splitlines()) if i.isupper()]


def only(instruction: str) -> str:
    """The one instruction of this kind."""
    (rest,) = (rest for kind, rest in dockerfile() if kind == instruction)
    return rest


def test_the_unit_waits_longer_than_a_stop_takes() -> None:
    """Only the supervisor is signalled, and it has more time than its own deadlines add up to."""
    keys = unit()
    assert keys["Type"] == ["notify"]
    assert keys["KillMode"] == ["mixed"]
    assert int(keys["TimeoutStopSec"][0]) > sum(within_s for _, within_s in STOP_ORDER) + 1


def test_the_unit_runs_a_command_that_exists_on_the_default_store() -> None:
    """ExecStart is a command of the CLI; StateDirectory is where alerts.store is by default."""
    keys = unit()
    program, command, _ = keys["ExecStart"][0].split()
    assert Path(program).name in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert command in COMMANDS
    assert AlertsSection().store == f"/var/lib/{keys['StateDirectory'][0]}"
    assert keys["RestartPreventExitStatus"] == ["2 3"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit_and_finds_it_tight(tmp_path: Path) -> None:
    """No unknown key; the exposure is what the unit and SECURITY.md say it is, and that is at most 2.0 of 10."""
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={shutil.which('true')}", UNIT.read_text()))
    checked = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", copy]
    tight = subprocess.run(command, capture_output=True, text=True, check=False)
    assert tight.returncode == 0, tight.stdout[-300:]
    figure = re.search(r"exposure level for \S+: ([\d.]+)", tight.stdout)
    assert figure is not None
    for document in (UNIT, ROOT / "SECURITY.md"):
        assert f"{figure[1]} of 10" in document.read_text(), document


def test_the_image_is_made_of_files_that_exist() -> None:
    """Every COPY from the context names something in the tree, and the package's own folders are all there."""
    sources = [
        word for kind, rest in dockerfile() if kind == "COPY" and "--from" not in rest for word in rest.split()[:-1]
    ]
    assert {"streamer", "engines", "kernels", "pyproject.toml"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source


def test_the_image_runs_the_daemon_as_nobody_special() -> None:
    """The entry point is the project's script, the user is not root, docker stop is SIGTERM."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.loads(only("ENTRYPOINT"))[0] in scripts
    assert json.loads(only("CMD"))[0] in COMMANDS
    assert only("USER") == "vedette"
    assert only("STOPSIGNAL") == "SIGTERM"
    bases = [rest.split()[0] for kind, rest in dockerfile() if kind == "FROM"]
    assert set(bases) == {"python:3.11-slim-bookworm"}


def test_the_image_exposes_the_default_ports_and_asks_the_default_health_page() -> None:
    """EXPOSE and HEALTHCHECK follow the configuration's defaults, and the page is one the hub serves."""
    alerts, http = AlertsSection(), HttpSection()
    ports = {urlsplit(alerts.publish).port, urlsplit(alerts.replay).port, int((http.listen or "").rpartition(":")[2])}
    assert {int(port) for port in only("EXPOSE").split()} == ports
    asked = re.search(r"http://([\d.:]+)(/\w+)", only("HEALTHCHECK"))
    assert asked is not None
    assert asked[1] == http.listen
    assert f'"{asked[2]}"' in (ROOT / "streamer" / "hub" / "http" / "app.py").read_text()

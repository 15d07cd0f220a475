"""What the documents say is what the code does."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from vedette.streamer.cli import COMMANDS, parse
from vedette.streamer.config import CameraDefaults, CameraSection, Config, load_config
from vedette.streamer.rules import KINDS as RULES
from vedette.streamer.sinks import KINDS as SINKS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
MANUAL = ROOT / "configs" / "vedette.yaml"


def keys_of(model: type[BaseModel]) -> dict[str, Any]:
    """Every plain key below a model, dotted, with its default; sections are opened."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel) and name != "defaults":
            found |= {f"{name}.{below}": value for below, value in keys_of(type(default)).items()}
        else:
            found[name] = default
    return found


def test_the_manual_is_a_valid_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """configs/vedette.yaml loads as it is, so copying any part of it works."""
    monkeypatch.setenv("DOCK_PASSWORD", "x")
    assert set(load_config(MANUAL).config.cameras) == {"dock", "lobby"}


def test_the_manual_shows_every_key_with_its_default() -> None:
    """No key is undocumented, and a default shown in the manual is the default of the code."""
    manual = yaml.safe_load(MANUAL.read_text().replace("!file ", ""))

    def look(dotted: str, tree: Any) -> Any:
        for part in dotted.split("."):
            assert isinstance(tree, dict), dotted
            assert part in tree, f"configs/vedette.yaml does not show {dotted}"
            tree = tree[part]
        return tree

    for key, default in keys_of(Config).items():
        shown = look(key, manual)
        if key not in ("version", "site", "cameras", "defaults", "alerts.sinks"):
            assert shown == default, key
    for key, default in keys_of(CameraDefaults).items():
        assert look(key, manual["defaults"]) == default, key


def test_the_manual_shows_every_rule_and_sink() -> None:
    """Each kind of rule and sink has its stanza."""
    manual = yaml.safe_load(MANUAL.read_text())
    rules = {rule["kind"] for camera in manual["cameras"].values() for rule in camera.get("rules", [])}
    assert rules == set(RULES)
    assert {sink["kind"] for sink in manual["alerts"]["sinks"]} == set(SINKS)


def test_the_readme_table_names_every_key() -> None:
    """The index in README has every key of the configuration."""
    table = README[README.index("## Configuration") : README.index("## Alerts")]
    named = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`]+)`", table))))
    for key in [*keys_of(Config), *keys_of(CameraSection)]:
        assert key.split(".")[-1] in named, key


def test_every_command_in_the_readme_parses() -> None:
    """Each `vedette ...` line of README's shell blocks is accepted by the command line."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("vedette ")]
    assert len(lines) >= 6
    for line in lines:
        parse(shlex.split(line, comments=True)[1:])


def test_every_command_is_in_the_readme() -> None:
    """The table of commands is complete."""
    for command in COMMANDS:
        assert f"`vedette {command}" in README, command


def test_links_in_documents_lead_somewhere() -> None:
    """Relative links point at files that exist."""
    for document in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "engines" / "weights").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_changelog_and_version_agree() -> None:
    """The newest entry of the changelog is the version of the package."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version

"""SECURITY.md names tests and commands that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from vedette.streamer.cli import parse

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "SECURITY.md").read_text()


def test_every_test_it_names_exists() -> None:
    """A promise whose test is gone is no promise."""
    named = re.findall(r"`((?:tests/)?(?:\w+/)*test_\w+\.py)`", TEXT)
    assert len(named) > 15
    known = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    for name in named:
        assert (ROOT / name).exists() if "/" in name else name in known, name


def test_every_command_it_shows_parses() -> None:
    """Each `vedette ...` line is accepted by the command line."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("vedette ")]
    assert len(lines) >= 5
    for line in lines:
        parse(shlex.split(line, comments=True)[1:])


def test_its_links_lead_somewhere() -> None:
    """Relative links point at files that exist."""
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert "://" in target or (ROOT / target).exists(), target

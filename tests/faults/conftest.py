"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.world import World, opened


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Iterator[World]:
    """One daemon with four RTSP cameras for the tests of a module."""
    with opened(tmp_path_factory.mktemp("world"), data_dir / "clips" / "vtest.avi") as running:
        yield running

"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.load import Cost, measure
from tests.faults.world import OTHERS, World, opened


@pytest.fixture(scope="session")
def cost(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Cost:
    """What a camera and a picture cost on this machine, measured once."""
    return measure(tmp_path_factory.mktemp("cost"), data_dir / "clips" / "vtest.avi")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, data_dir: Path, cost: Cost) -> Iterator[World]:
    """One daemon with four RTSP cameras for the tests of a module."""
    fps = cost.fps(1 + len(OTHERS))
    with opened(tmp_path_factory.mktemp("world"), data_dir / "clips" / "vtest.avi", fps) as running:
        yield running

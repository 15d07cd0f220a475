"""Over many frames ids are never reused and nothing grows; ``tools/soak_tracker.py`` does the same for ten million."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parents[3] / "tools" / "soak_tracker.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The soak script as a module."""
    spec = importlib.util.spec_from_file_location("soak_tracker", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("embedding", [0, 16])
def test_ids_are_unique_and_tracks_bounded_over_many_frames(tool: ModuleType, embedding: int) -> None:
    """People come and go by the hundred; the number alive at the end is that of the people there are."""
    report = tool.soak(frames=16_000, cameras=64, people=3, embedding=embedding)
    assert report["ids_given"] > 300
    assert report["rejected"] == {}
    assert max(row["tracks"] for row in report["rows"]) < 2 * 64 * 3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_is_flat_over_a_million_frames(tool: ModuleType) -> None:
    """Resident memory of the last tenth is that of the second."""
    assert tool.main(["--frames", "1000000", "--embedding", "8"]) == 0

"""Fixtures shared by every test: where the real data is, and nothing left running behind a test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The shared real test data; the test is skipped with the reason when it is not on this machine."""
    path = Path(os.environ.get("VEDETTE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (path / "clips").is_dir():
        pytest.skip(f"needs the shared test data at {path} (set VEDETTE_TEST_DATA)")
    return path

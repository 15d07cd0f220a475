"""Fixtures shared by every test: where the real data is, and nothing left running behind a test."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
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


@pytest.fixture(autouse=True)
def _one_test_at_a_time() -> Iterator[None]:
    """What a command sets for its whole process (logging, FFmpeg options) ends with the test that ran it."""
    logger = logging.getLogger("vedette")
    handlers, propagate, level = logger.handlers[:], logger.propagate, logger.level
    options = os.environ.get("OPENCV_FFMPEG_CAPTURE_OPTIONS")
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)
    if options is None:
        os.environ.pop("OPENCV_FFMPEG_CAPTURE_OPTIONS", None)
    else:
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = options

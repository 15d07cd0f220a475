"""TensorRT-RTX where it is installed; CI promises it, so that there a missing one fails instead of skipping."""

from __future__ import annotations

import os

import pytest

from vedette.engines import build
from vedette.engines.api import EngineFault


def need_rtx() -> None:
    """Skip, or fail under VEDETTE_REQUIRE_TENSORRT, unless TensorRT-RTX can build here."""
    try:
        _, flavour = build.load_tensorrt()
    except EngineFault as e:
        if os.environ.get("VEDETTE_REQUIRE_TENSORRT"):
            pytest.fail(f"VEDETTE_REQUIRE_TENSORRT is set: {e}")
        pytest.skip(str(e))
    if flavour != "tensorrt_rtx":
        pytest.skip("full TensorRT builds only for the GPU it stands on")

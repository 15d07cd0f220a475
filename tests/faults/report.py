"""What a fault test says when it is done: one JSON line {fault, promise, measured}. `tools/fault_table.py` makes a table."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import NoReturn

import pytest


def tell(fault: str, promise: str, **measured: object) -> None:
    """Print the line, with the test that measured it."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    print(json.dumps({"fault": fault, "promise": promise, "measured": measured, "test": test}, default=str))


def percentile(samples: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of at least one sample."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def refuse(why: str) -> NoReturn:
    """Skip with the reason; fail instead where VEDETTE_REQUIRE_FAULTS=1 promises that every fault can be made."""
    if os.environ.get("VEDETTE_REQUIRE_FAULTS") == "1":
        pytest.fail(why)
    pytest.skip(why)

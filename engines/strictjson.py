"""JSON from files that came with a model: whatever is wrong with it is a ValueError. A leaf."""

from __future__ import annotations

import json
import math
from typing import Any


def load_json(text: str) -> Any:
    """The value in ``text``. Raises ValueError when it is not JSON, nested too deeply or holds a number that is not finite
    (NaN, Infinity, 1e999)."""
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"a number is not finite, got {text[:20]}")
    return value

"""JSON that came with a model."""

from __future__ import annotations

import json

import pytest

from vedette.engines.strictjson import load_json


@pytest.mark.parametrize(
    "text", ["1e999", "-1e999", "NaN", "Infinity", "[" * 5000, '{"a": ' * 5000, "", "{", "9" * 5000]
)
def test_whatever_is_wrong_is_a_value_error(text: str) -> None:
    """Nobody who reads a sidecar must know what else a JSON reader raises."""
    with pytest.raises(ValueError, match=r"."):
        load_json(text)


def test_what_is_right_is_read() -> None:
    """As the standard library does."""
    text = '{"a": [1, 2.5, -3e-2, null, true, "x"], "b": {"c": 10000000000000000000000}}'
    assert load_json(text) == json.loads(text)

"""Bad input out of good input: bytes are cut and spliced, JSON gets values nobody expects. Same seed, same inputs."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

#: What parsers stumble over, as bytes.
TOKENS = (
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"null",
        b"true",
        b"{}",
        b"[]",
        b"{",
        b"]",
        b'"',
        b'"\\ud800"',
        b"\\u0000",
        b"\x00",
    ),
    *(b"\xff", b"\xef\xbb\xbf", b"\n", b"\r\n", b"../", b"%00", b"%2e%2e", b":", b",", b"-", b"9" * 400, b"[" * 300),
    *(b"&a [*a]", b"!!python/object:os.system", b"!file /etc/passwd", b"${HOME}", b"<<: *a", b"HTTP/9.9", b"Host: a"),
)
#: And as JSON values.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 255, 256, 2**31, 2**53, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e308, 5e-324),
    *(
        "",
        "x",
        "x" * 300,
        "\x00",
        "é\u2028",
        "../../etc",
        "dock",
        "1",
        "NaN",
        [],
        {},
        [[]],
        [None],
        {"a": {}},
        [0, 0, 0, 0],
    ),
    *([1e308] * 4, ["x"] * 300, {"": 0}),
)

#: An input's length at most, bytes.
MOST_BYTES = 100_000


class Mutator:
    """Makes inputs from a pool of earlier ones. seed: what decides about everything."""

    def __init__(self, seeds: Sequence[bytes], seed: int) -> None:
        self._random = random.Random(seed)
        self.pool = list(seeds) or [b""]

    def next(self) -> bytes:
        """Another input: a few changes to one of the pool."""
        data = self._random.choice(self.pool)
        for _ in range(self._random.choice((1, 1, 1, 2, 4))):
            data = self._random.choice((self._json, self._json, self._splice, self._cut, self._flip, self._cross))(data)
            data = data[:MOST_BYTES]
        return data

    def keep(self, data: bytes) -> None:
        """It led somewhere new: start from it, too."""
        if len(self.pool) < 1000:
            self.pool.append(data)

    def _json(self, data: bytes) -> bytes:
        start, end = data.find(b"{"), data.rfind(b"}")
        try:
            value = json.loads(data[start : end + 1])
        except (ValueError, RecursionError):
            return self._splice(data)
        return data[:start] + json.dumps(self._changed(value)).encode() + data[end + 1 :]

    def _changed(self, value: Any) -> Any:
        pick = self._random
        if isinstance(value, dict) and value and pick.random() < 0.9:
            key = pick.choice(list(value))
            what = pick.random()
            if what < 0.1:
                return {k: v for k, v in value.items() if k != key}
            if what < 0.2:
                return {**value, pick.choice(("", "x", "from", "__proto__", key.upper())): value[key]}
            if what < 0.3:
                return {**value, key: value[pick.choice(list(value))]}
            return {**value, key: self._changed(value[key])}
        if isinstance(value, list) and value and pick.random() < 0.7:
            at = pick.randrange(len(value))
            changed = [*value[:at], self._changed(value[at]), *value[at + 1 :]]
            # a long one is not made 300 times longer again: four such changes would make gigabytes
            return (
                changed
                if pick.random() < 0.8
                else changed + value * pick.choice((1, 2, 300 if len(value) < 100 else 1))
            )
        return pick.choice(VALUES)

    def _splice(self, data: bytes) -> bytes:
        at = self._random.randint(0, len(data))
        return data[:at] + self._random.choice(TOKENS) + data[at + self._random.choice((0, 0, 1, 4)) :]

    def _cut(self, data: bytes) -> bytes:
        first, last = sorted(self._random.randint(0, len(data)) for _ in range(2))
        return data[:first] + data[last:] if self._random.random() < 0.7 else data[:last] + data[first:]

    def _flip(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self._random.randint(1, 4)):
            if changed:
                changed[self._random.randrange(len(changed))] = self._random.randrange(256)
        return bytes(changed)

    def _cross(self, data: bytes) -> bytes:
        other = self._random.choice(self.pool)
        return data[: self._random.randint(0, len(data))] + other[self._random.randint(0, len(other)) :]

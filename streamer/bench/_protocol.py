"""How every measurement is taken and told: contenders in turn, progress to standard error, on which machine."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable


def in_turn(names: Iterable[str], number: int) -> list[str]:
    """The contenders of round ``number``: each round another one begins."""
    order = list(names)
    first = number % len(order) if order else 0
    return order[first:] + order[:first]


def say(text: object) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, object]:
    """What the figures of a document were taken on."""
    return {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}

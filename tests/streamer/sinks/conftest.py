"""What every sink's test delivers from and to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.streamer.sinks.sink_ends import Receiver, opened
from vedette.streamer.outbox.store import Outbox


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """A store to deliver from."""
    yield from opened(tmp_path / "store")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A webhook's other end."""
    made = Receiver()
    yield made
    made.end()

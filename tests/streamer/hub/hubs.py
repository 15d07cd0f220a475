"""A real hub with HTTP that already has alerts: what the tests of its doors begin with."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.streamer.rtsp import free_port
from vedette.streamer.bench._hub import HubProcess
from vedette.streamer.eventlink import EventLink
from vedette.streamer.types import Event

JPEG = b"\xff\xd8\xff\xe0 picture \xff\xd9"


def until(condition: Callable[[], object], within_s: float = 20.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


@contextlib.contextmanager
def hub_with(
    store: Path, events: Iterable[tuple[Event, bytes]] = (), *, alerts: dict[str, Any] | None = None, **http: Any
) -> Iterator[HubProcess]:
    """A hub on a free port that has committed these events, each with its picture (or b""). http: further keys of that
    section."""
    made = HubProcess(store, alerts=alerts, http=f"127.0.0.1:{free_port()}")
    made.config["http"].update(http)
    with made as running:
        with EventLink(running.events, "infer", "boot-1") as link:
            for event, picture in events:
                link.send(event, picture)
            assert link.drain(10)
        yield running

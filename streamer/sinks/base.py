"""What every sink has: its part of the configuration, and the one verb the hub calls.

A sink is offered alerts in order, from its own cursor in the store, in its own thread. It may see an alert again
after a crash (at least once): ``id:rev`` tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field

from vedette.streamer.outbox.records import Stored


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sink works. stream: the store's UUID. since: the cursor it goes on from."""

    site: str
    stream: str
    since: int


class Sink(Protocol):
    """An open connection to where alerts go; used by one thread."""

    def deliver(self, alerts: Sequence[Stored]) -> int:
        """Hand over alerts in order and return how many of them are done with: delivered for good, or refused for
        good. At least one, or SinkError: the same alerts are offered again later."""
        ...

    def refused(self) -> int:
        """How many of them were refused for good since the last call."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class SinkConfig(BaseModel):
    """Keys that every sink takes. name: unique, remembers where delivery stopped; the kind when absent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")] | None = None

    def title(self) -> str:
        """The name under which the sink's cursor is kept."""
        return self.name or self.kind

    def connect(self, place: Place) -> Sink:
        """Open the sink. Raises SinkError when it cannot be opened now; it is tried again later."""
        raise NotImplementedError(f"{type(self).__name__}.connect")

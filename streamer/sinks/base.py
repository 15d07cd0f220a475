"""What every sink has: its part of the configuration, and the one verb the hub calls."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class SinkConfig(BaseModel):
    """Keys that every sink takes. name: unique, remembers where delivery stopped; the kind when absent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")] | None = None

    def title(self) -> str:
        """The name under which the sink's cursor is kept."""
        return self.name or self.kind

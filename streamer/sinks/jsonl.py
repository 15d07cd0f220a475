"""Alerts appended to a file, one JSON object a line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from vedette.streamer.sinks.base import SinkConfig


class JsonlConfig(SinkConfig):
    """path: the file; it is created when absent and only ever appended to."""

    kind: Literal["jsonl"] = "jsonl"
    path: Annotated[str, Field(min_length=1)]

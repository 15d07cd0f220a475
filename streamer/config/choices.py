"""A pydantic type that is one of several models, told apart by their ``kind`` key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Union

from pydantic import BaseModel, Discriminator, Tag


def _kind(value: Any) -> str | None:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) else None


def one_of(kinds: Mapping[str, type[BaseModel]]) -> Any:
    """The tagged union of ``kinds``; an unknown kind is refused with the list of known ones."""
    choices = tuple(Annotated[model, Tag(kind)] for kind, model in kinds.items())
    return Annotated[
        Union[choices],  # noqa: UP007 - built at run time from a table
        Discriminator(
            _kind,
            custom_error_type="unknown_kind",
            custom_error_message=f"`kind` must be one of {', '.join(kinds)}",
        ),
    ]

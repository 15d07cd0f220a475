"""Vedette's runtime: cameras become frames, frames become tracks and alerts, alerts reach everyone once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vedette.streamer.client import Gap, StreamChanged, Subscription, subscribe

__all__ = ["Gap", "StreamChanged", "Subscription", "subscribe"]


def __getattr__(name: str) -> object:
    """The client is imported when it is asked for, so that a capture process never pays for it."""
    if name in __all__:
        from vedette.streamer import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

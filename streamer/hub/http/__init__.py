"""The small HTTP server in the hub: health, metrics, processes, cameras, alerts, live events, pictures."""

from vedette.streamer.hub.http.server import HttpServer

__all__ = ["HttpServer"]

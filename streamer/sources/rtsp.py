"""``rtsp://`` and ``rtsps://`` cameras, by tcp or udp."""

from __future__ import annotations

import contextlib
from urllib.parse import urlsplit

from vedette.streamer.errors import SourceError
from vedette.streamer.sources.base import Kind, Reader, Want
from vedette.streamer.sources.handshake import described


def _takes(source: str) -> bool:
    return source.lower().startswith(("rtsp://", "rtsps://"))


def _address(source: str) -> tuple[str, int] | None:
    parts = urlsplit(source)
    return (parts.hostname or "", parts.port or (322 if parts.scheme == "rtsps" else 554))


def _open(source: str, want: Want) -> Reader:
    # FFmpeg cannot say why it failed, and may wait for ever for a server that never answers: ask first ourselves.
    connection = described(source, want.open_timeout_s)
    from vedette.streamer.sources.opencv import network_options
    from vedette.streamer.sources.packets import open_reader

    options = network_options(want, "rtsp,rtsps,rtp,srtp,udp,tcp,tls,crypto") | {"rtsp_transport": want.transport}
    # While we stay, a server that prepares its stream for the first client keeps it for the second: FFmpeg.
    with contextlib.closing(connection), contextlib.suppress(SourceError):
        return open_reader(source, want, live=True, options=options)
    # A camera that allows one client at a time, perhaps.
    return open_reader(source, want, live=True, options=options)


KIND = Kind(live=True, takes=_takes, open=_open, address=_address)

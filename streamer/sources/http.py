"""``http://`` and ``https://`` streams: MJPEG, MPEG-TS, HLS and video files on a web server."""

from __future__ import annotations

from urllib.parse import urlsplit

from vedette.streamer.sources.base import Kind, Reader, Want
from vedette.streamer.sources.handshake import ask_http


def _takes(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _address(source: str) -> tuple[str, int] | None:
    parts = urlsplit(source)
    return (parts.hostname or "", parts.port or (443 if parts.scheme.lower() == "https" else 80))


def _open(source: str, want: Want) -> Reader:
    ask_http(source, want.open_timeout_s)
    from vedette.streamer.sources.opencv import OpenCvReader, network_options

    return OpenCvReader(source, want, live=True, options=network_options(want, "http,https,tcp,tls,crypto,httpproxy"))


KIND = Kind(live=True, takes=_takes, open=_open, address=_address)

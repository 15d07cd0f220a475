"""``http://`` and ``https://`` streams: MJPEG, MPEG-TS, HLS and video files on a web server.

The server is not trusted with our network: a redirect may lead to another path of the same host, never to another host
or protocol; and a playlist (whose parts may lie on any web server) is read only where the address says m3u8 or mpd.
"""

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
    final = ask_http(source, want.open_timeout_s)
    from vedette.streamer.sources.opencv import CONTAINERS, PLAYLISTS, network_options
    from vedette.streamer.sources.packets import open_reader

    named = any(word in urlsplit(source).path.lower() for word in ("m3u8", "mpd"))
    options = network_options(want, "http,https,tcp,tls,crypto,httpproxy") | {
        "max_redirects": "0",  # FFmpeg 8 and newer; we went there ourselves
        "format_whitelist": f"{CONTAINERS},{PLAYLISTS}" if named else CONTAINERS,
    }
    return open_reader(final, want, live=True, options=options)


KIND = Kind(live=True, takes=_takes, open=_open, address=_address)

"""Which values of a configuration must never be printed, wherever they came from, and which should not stand in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

from vedette.streamer.config.schema import Config
from vedette.streamer.config.yamlfile import Key

#: A token as `vedette keys token` prints it for the configuration; it opens no door.
HASH = re.compile(r"^sha256:[0-9a-f]{64}$")
#: Keys of a URL's query that hold what must not be told.
_TELLING = re.compile(r"pass|pwd|token|key|secret|auth|sig|credential", re.IGNORECASE)
#: Parts of a webhook's path this long are tokens, not names.
_TOKEN_LENGTH = 16
#: Headers that are nobody's secret.
_PLAIN_HEADERS = frozenset({"accept", "content-type", "user-agent"})
Found = Iterator[tuple[Key, str]]


def secret_values(config: Config) -> Found:
    """(key, value) of every secret, a URL's password among them. Hashes are none."""
    for name, camera in config.cameras.items():
        if not camera.source.startswith("gst:"):
            yield from _in_url(("cameras", name, "source"), camera.source)
    for i, sink in enumerate(config.alerts.sinks):
        at: Key = ("alerts", "sinks", i)
        for field in ("secret", "password"):
            value = getattr(sink, field, None)
            if value:
                yield (*at, field), value
        for header, value in getattr(sink, "headers", {}).items():
            if header.lower() not in _PLAIN_HEADERS:
                yield (*at, "headers", header), value.rpartition(" ")[2]
        url = getattr(sink, "url", None)
        if url:
            yield from _in_url((*at, "url"), url)
            yield from (((*at, "url"), part) for part in urlsplit(url).path.split("/") if len(part) >= _TOKEN_LENGTH)
    for i, row in enumerate(config.http.tokens):
        if HASH.fullmatch(row.token) is None:
            yield ("http", "tokens", i, "token"), row.token


def _in_url(key: Key, url: str) -> Found:
    parts = urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0]
    user, _, password = credentials.partition(":")
    if password or user:
        yield key, password or user
    for name, value in parse_qsl(parts.query):
        if _TELLING.search(name):
            yield key, value

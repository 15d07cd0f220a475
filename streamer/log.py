"""Logging as this project wants it: few lines, JSON for machines, short for people, never a secret.

Redaction is a filter on the handler, so nobody has to remember it: user names and passwords in URLs,
and every secret the configuration took from the environment or a file, never reach a stream.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from urllib.parse import quote, unquote

# With a colon everything up to the last @ of the word is taken for user and password, slashes too: people do not
# always quote what stands in their passwords, and a URL that lost its host is better than one that kept a secret.
_USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{1,12}://)(?:[^\s/@\"']*:[^\s\"']*|[^\s/@\"']+)@", re.IGNORECASE)
_QUERY_SECRET = re.compile(
    r"(?P<key>[?&;/_][\w.-]*?(?:pass|passwd|password|pwd|token|key|secret|auth|sig|signature|credential)=)[^&;\s\"']+",
    re.IGNORECASE,
)
_secrets: set[str] = set()
#: Shorter values would blank ordinary text.
_SHORTEST = 3


def register_secret(value: str) -> None:
    """Never print this value again (three characters or more), nor as a URL, Python or JSON would write it."""
    lines = [line for line in value.splitlines() if len(line) >= 8]
    for known in (value, *lines):
        forms = {known, quote(known), quote(known, safe=""), unquote(known), repr(known)[1:-1], json.dumps(known)[1:-1]}
        _secrets.update(form for form in forms if len(form) >= _SHORTEST)


def redact(text: str) -> str:
    """The text without credentials: ``rtsp://user:pw@host/`` -> ``rtsp://***@host/``."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _USERINFO.sub(r"\g<scheme>***@", text)
    return _QUERY_SECRET.sub(r"\g<key>***", text)


class _Redact(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = redact(record.getMessage())
        if record.exc_info and not record.exc_text:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        record.msg, record.args = message, None
        return True


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": record.name.removeprefix("vedette."),
            "message": record.getMessage(),
        }
        if record.exc_text:
            line["error"] = record.exc_text
        return json.dumps(line, ensure_ascii=False)


class _Pretty(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        text = f"{clock} {record.name.removeprefix('vedette.'):<14} {level}{record.getMessage()}"
        return f"{text}\n{record.exc_text}" if record.exc_text else text


def setup_logging(level: str | None = None, secrets: tuple[str, ...] = ()) -> None:
    """Send the ``vedette`` loggers to stderr: pretty on a terminal, JSON lines otherwise.

    level: debug, info, warning, error; ``VEDETTE_LOG`` when None, info by default.
    """
    for secret in secrets:
        register_secret(secret)
    handler = logging.StreamHandler(sys.stderr)
    pretty = sys.stderr.isatty() or os.environ.get("VEDETTE_LOG_FORMAT") == "pretty"
    handler.setFormatter(_Pretty() if pretty else _Json())
    handler.addFilter(_Redact())
    root = logging.getLogger("vedette")
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel((level or os.environ.get("VEDETTE_LOG", "info")).upper())

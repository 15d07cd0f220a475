"""Logging never prints a credential."""

from __future__ import annotations

import json
import logging
from urllib.parse import quote

import pytest

from vedette.streamer import log as vlog


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("open rtsp://viewer:s3cret@10.0.0.5/stream1 failed", "open rtsp://***@10.0.0.5/stream1 failed"),
        ("http://cam/img?user=a&password=hunter2&x=1", "http://cam/img?user=a&password=***&x=1"),
        ("rtsp://token@host/x and RTSPS://u:p@host/y", "rtsp://***@host/x and RTSPS://***@host/y"),
        ("mail me at someone@example.org", "mail me at someone@example.org"),
        ("rtsp://u:p@ss@h/x", "rtsp://***@h/x"),
        ("rtsp://u:pa/ss@h/x", "rtsp://***@h/x"),
        ("rtsp://h/user=admin_password=tlJwpbo6_channel=1", "rtsp://h/user=admin_password=***"),
        ("http://h/a?api_key=1234&b=2;X-Amz-Signature=ab", "http://h/a?api_key=***&b=2;X-Amz-Signature=***"),
        ("tcp://127.0.0.1:5556 and http://h:8080/x, key=3", "tcp://127.0.0.1:5556 and http://h:8080/x, key=3"),
    ],
)
def test_urls_lose_their_credentials(text: str, clean: str) -> None:
    """User names and passwords of URLs are replaced, other text stays."""
    assert vlog.redact(text) == clean


def test_registered_secrets_never_appear() -> None:
    """A value from the environment is blanked wherever it stands, the longest first."""
    vlog.register_secret("opensesame")
    vlog.register_secret("opensesame-2")
    assert vlog.redact("x=opensesame-2 y=opensesame") == "x=*** y=***"


def test_a_secret_is_found_in_whatever_way_it_is_written() -> None:
    """As a URL, Python and JSON write it, and each long line of a secret of several."""
    vlog.register_secret('k\u00e4se/br"ot\\')
    vlog.register_secret("first line\nsecond line")
    quoted = quote('k\u00e4se/br"ot\\', safe="")
    for form in (
        'k\u00e4se/br"ot\\',
        quoted,
        repr('k\u00e4se/br"ot\\'),
        json.dumps('k\u00e4se/br"ot\\'),
        "second line",
    ):
        assert "***" in vlog.redact(f"got {form} here")
        assert "br" not in vlog.redact(f"got {form} here")
        assert "second" not in vlog.redact(f"got {form} here")


def test_log_lines_and_tracebacks_are_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    """A handler set up by setup_logging prints JSON lines without secrets, in messages and in tracebacks."""
    vlog.setup_logging("info")
    logger = logging.getLogger("vedette.test")
    try:
        raise OSError("cannot open rtsp://u:p4ss@h/")
    except OSError:
        logger.exception("camera %s", "rtsp://u:p4ss@h/")
    line = json.loads(capsys.readouterr().err)
    assert line["level"] == "error"
    assert "p4ss" not in json.dumps(line)
    assert "rtsp://***@h/" in line["error"]

"""Logging never prints a credential."""

from __future__ import annotations

import json
import logging

import pytest

from vedette.streamer import log as vlog


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("open rtsp://viewer:s3cret@10.0.0.5/stream1 failed", "open rtsp://***@10.0.0.5/stream1 failed"),
        ("http://cam/img?user=a&password=hunter2&x=1", "http://cam/img?user=a&password=***&x=1"),
        ("rtsp://token@host/x and RTSPS://u:p@host/y", "rtsp://***@host/x and RTSPS://***@host/y"),
        ("mail me at someone@example.org", "mail me at someone@example.org"),
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

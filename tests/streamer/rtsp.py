"""A real RTSP server for tests (`tools/rtsp_server.py`): start it, kill it, start it again on the same port."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "rtsp_server.py"
PYTHON = "/usr/bin/python3"
_PARTS = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer; Gst.init(None);"
    "raise SystemExit(0 if Gst.ElementFactory.find('x264enc') else 'no x264enc')"
)


def require_rtsp() -> None:
    """Skip with the reason where Debian's RTSP server is not installed; fail where VEDETTE_REQUIRE_RTSP=1 promises it."""
    try:
        found = subprocess.run([PYTHON, "-c", _PARTS], capture_output=True, text=True, timeout=60, check=False)
        problem = found.stderr.strip().splitlines()[-1] if found.returncode else ""
    except OSError as error:
        problem = str(error)
    if problem:
        text = f"needs gir1.2-gst-rtsp-server-1.0, python3-gi and gstreamer1.0-plugins-ugly: {problem}"
        if os.environ.get("VEDETTE_REQUIRE_RTSP") == "1":
            pytest.fail(text)
        pytest.skip(text)


def free_port() -> int:
    """A TCP port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RtspServer:
    """One server on one port; its options are those of tools/rtsp_server.py."""

    def __init__(self, *options: str, port: int | None = None, prefix: Sequence[str] = ()) -> None:
        """prefix: what its command line begins with, to run it somewhere else."""
        self.port = port or free_port()
        self._options = options
        self._prefix = prefix
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Return when clients may come."""
        self._process = subprocess.Popen(
            [*self._prefix, PYTHON, str(TOOL), "--port", str(self.port), *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the RTSP server did not start"
        assert json.loads(line)["port"] == self.port

    def kill(self) -> None:
        """SIGKILL, as when a camera loses its power."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None

    def url(self, camera: int = 0, login: str = "") -> str:
        """The address of a mount."""
        return f"rtsp://{login}{'@' if login else ''}127.0.0.1:{self.port}/cam{camera}"


@contextmanager
def rtsp_server(*options: str) -> Iterator[RtspServer]:
    """A running server; gone afterwards."""
    if "--silent" not in options:
        require_rtsp()
    server = RtspServer(*options)
    server.start()
    try:
        yield server
    finally:
        server.kill()

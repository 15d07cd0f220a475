"""Both ends of a sink under test: a store that alerts are committed to, and a real web server that takes them."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vedette.streamer.bench._hub import numbered_event
from vedette.streamer.outbox.records import Draft
from vedette.streamer.outbox.store import Outbox
from vedette.streamer.sinks.base import SinkConfig
from vedette.streamer.sinks.runner import SinkRunner


def until(condition: Callable[[], object], within_s: float = 15.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)


def commit(outbox: Outbox, count: int, runner: SinkRunner | None = None) -> None:
    """Commit some alerts and say so."""
    begin = outbox.last_seq
    outbox.commit([Draft(numbered_event(begin + i + 1)) for i in range(count)])
    if runner is not None:
        runner.wake(outbox.last_seq)


def start(outbox: Outbox, config: SinkConfig) -> SinkRunner:
    """Run a sink over the store."""
    return SinkRunner(config, outbox.path.parent, "yard", longest_pause_s=0.2)


def numbers(lines: list[str]) -> list[int]:
    """The seqs of JSON lines."""
    return [json.loads(line)["seq"] for line in lines]


def opened(folder: Path) -> Iterator[Outbox]:
    """A store to deliver from, closed at the end: the body of a fixture."""
    folder.mkdir()
    box = Outbox(folder, site="yard")
    yield box
    box.close()


class Receiver(http.server.ThreadingHTTPServer):
    """A real HTTP server that answers what the test decides and writes down what it got."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receive)
        self.decide: Callable[[dict[str, Any]], tuple[int, dict[str, str]]] = lambda _alert: (200, {})
        self.got: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.say = b""
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}/hook"

    def end(self) -> None:
        """Stop."""
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Receive(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        alert = json.loads(body)
        status, headers = self.server.decide(alert)
        if status < 300:
            self.server.got.append(alert)
            self.server.headers.append(dict(self.headers.items()))
            self.server.bodies.append(body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.say)))
        self.end_headers()
        self.wfile.write(self.server.say)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

"""uvicorn in a thread of the hub. The socket is bound first, so that a port in use is a clear error."""

from __future__ import annotations

import logging
import socket
import threading
from pathlib import Path

import uvicorn

from vedette.streamer.address import is_loopback_host
from vedette.streamer.errors import ConfigError
from vedette.streamer.hub.http.app import build_app
from vedette.streamer.hub.http.events import Bell
from vedette.streamer.hub.metrics import Metrics
from vedette.streamer.hub.state import HubState
from vedette.streamer.outbox.reader import OutboxReader
from vedette.streamer.outbox.records import Outcome

log = logging.getLogger("vedette.http")

#: Connections at the same time; more are refused with 503.
MOST_CONNECTIONS = 256


def bind_tcp(listen: str, *, tokens: bool) -> socket.socket:
    """A listening TCP socket at ADDRESS:PORT. Raises ConfigError naming the fix, also when others could reach it and
    it asks for no ``tokens``."""
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"http.listen: no such address, got {listen!r}: {error}") from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(128)
    except OSError as error:
        found.close()
        raise ConfigError(
            f"http.listen: cannot be bound, got {listen!r}: {error.strerror}; choose another port"
        ) from error
    if not is_loopback_host(found.getsockname()[0]):
        if not tokens:
            found.close()
            raise ConfigError(f"http.listen: others could read it without a token, got {listen!r}; add http.tokens")
        log.warning("http.listen: %s is open to the network, and HTTP is not encrypted; put TLS before it", listen)
    return found


class HttpServer:
    """Serves until `stop`. address: where it really listens, (host, port)."""

    def __init__(self, listen: str, state: HubState, store: Path) -> None:
        """Bind and start. Raises ConfigError."""
        self._socket = bind_tcp(listen, tokens=bool(state.config.http.tokens))
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._reader = OutboxReader(store)
        self._bell = Bell()
        state.on_commit.append(self._ring)
        app = build_app(state, self._reader, Metrics(state), self._bell)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="on",
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_keep_alive=15,
                timeout_graceful_shutdown=1,
                http="h11",  # httptools, which uvicorn prefers where it is installed, does not bound a request's head
                h11_max_incomplete_event_size=16384,
                ws="none",
            )
        )
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()
        log.info("http://%s:%d/", *self.address)

    def _ring(self, _outcome: Outcome) -> None:
        self._bell.ring()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except Exception:  # the hub goes on without its web server; /healthz then says so by silence
            log.exception("the HTTP server ended")

    def stop(self, timeout_s: float = 0.6) -> None:
        """End every stream, then the server."""
        self._bell.stop()
        self._server.should_exit = True
        self._thread.join(timeout_s)
        self._socket.close()
        self._reader.close()  # the last reader out lets SQLite fold the WAL away

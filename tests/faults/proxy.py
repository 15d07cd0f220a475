"""A bad network in a box: a TCP proxy before a camera that cuts, swallows, or doles out single bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Literal

Mode = Literal["pass", "refuse", "swallow", "trickle"]
#: What ``trickle`` passes: one byte in so many seconds.
TRICKLE_S = 0.5


class Proxy:
    """Listens on a port of its own and passes to ``port``, as ``mode`` says: ``refuse`` hangs up on everybody,
    ``swallow`` accepts and passes nothing on, ``trickle`` passes the answers a byte at a time."""

    def __init__(self, port: int) -> None:
        self.mode: Mode = "pass"
        self.accepted = 0
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            self.accepted += 1
            if self.mode == "refuse":
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target), 5)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            for source, sink, answers in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pump, args=(source, sink, answers), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answers and self.mode == "trickle":
                    for i in range(len(data)):
                        if self._closed.wait(TRICKLE_S) or self.mode != "trickle":
                            sink.sendall(data[i:])
                            break
                        sink.sendall(data[i : i + 1])
                elif self.mode != "swallow":
                    sink.sendall(data)
        self._drop({source, sink})

    def _drop(self, ends: set[socket.socket]) -> None:
        with self._lock:
            self._open -= ends
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def cut(self) -> None:
        """Hang up on everybody who is connected."""
        with self._lock:
            ends = set(self._open)
        self._drop(ends)

    @contextlib.contextmanager
    def flapping(self, every_s: float) -> Iterator[list[int]]:
        """Cut every ``every_s`` seconds; the number of cuts so far."""
        stop, cuts = threading.Event(), [0]

        def flap() -> None:
            while not stop.wait(every_s):
                self.cut()
                cuts[0] += 1

        thread = threading.Thread(target=flap)
        thread.start()
        try:
            yield cuts
        finally:
            stop.set()
            thread.join()

    def close(self) -> None:
        """Hang up on everybody and stop listening."""
        self._closed.set()
        self._listener.close()
        self.cut()

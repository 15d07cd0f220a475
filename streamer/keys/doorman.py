"""Who comes in: the ZAP handler of one ZeroMQ context (RFC 27). It lets in the keys of the site's folder, nobody else.

The folder is looked at before every decision and twice a second, so that `vedette keys new` and `revoke` take effect on
a running daemon; when a key that had come in is revoked, every `Door` is cleared.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

import zmq
from zmq.utils import z85

from vedette.streamer.keys.curve import DOMAIN
from vedette.streamer.keys.door import Doors
from vedette.streamer.keys.folder import KeyFolder

log = logging.getLogger("vedette.doorman")

#: Seconds between looks at the folder while nobody knocks.
LOOK_S = 0.5
#: Strangers that are remembered, so that each is logged once.
MOST_STRANGERS = 256
#: ZAP says 300 for "not now": the peer tries again by itself, so that a key that is let in later works. 400 would
#: make libzmq's clients give up for ever.
_YES, _NOT_NOW, _BROKEN = b"200", b"300", b"500"


class Doorman:
    """Answers libzmq's questions in a thread, and has the doors cleared when a key that had come in was taken away.

    Fails closed: a folder that cannot be read lets in nobody new, and a dead thread lets in nobody at all.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], folder: KeyFolder, doors: Doors, counters: Counter[str]
    ) -> None:
        """Read the keys, give the doors theirs and start; before any is bound. Raises ConfigError (exit 2)."""
        self._folder, self._doors, self._counters = folder, doors, counters
        doors.pair = folder.server()
        self._keys: frozenset[str] = frozenset()
        self._came_in: set[str] = set()
        self._strangers: set[str] = set()
        self._stamp: tuple[object, ...] | None = None
        self._complaint = ""
        self._read_keys()
        self._stopping = threading.Event()
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind("inproc://zeromq.zap.01")
        self._thread = threading.Thread(target=self._serve, name="doorman", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        looked_s = time.monotonic()
        try:
            while not self._stopping.is_set():
                if self._socket.poll(100):
                    self._socket.send_multipart(self._answer(self._socket.recv_multipart()))
                elif time.monotonic() - looked_s >= LOOK_S:
                    looked_s = time.monotonic()
                    self._look()
        finally:
            self._socket.close()

    def _answer(self, question: list[bytes]) -> list[bytes]:
        """version, request, status, text, user, metadata."""
        request = question[1] if len(question) > 1 else b""
        verdict, user = self._judge(question)
        return [b"1.0", request, verdict, b"", user, b""]

    def _judge(self, question: list[bytes]) -> tuple[bytes, bytes]:
        if len(question) != 7 or question[0] != b"1.0" or question[2] != DOMAIN or question[5] != b"CURVE":
            self._counters["curve_denied"] += 1
            return _BROKEN, b""
        self._look()
        key = z85.encode(question[6]).decode()
        if key in self._keys:
            self._came_in.add(key)
            self._counters["curve_accepted"] += 1
            return _YES, key.encode()
        self._counters["curve_denied"] += 1
        if key not in self._strangers and len(self._strangers) < MOST_STRANGERS:
            self._strangers.add(key)
            log.warning("refused %s, whose key %s is not let in", question[3].decode("ascii", "replace"), key)
        return _NOT_NOW, b""

    def _look(self) -> None:
        """Follow the folder."""
        before = self._keys
        self._read_keys()
        gone = before - self._keys
        if gone:
            log.info("%d of the subscribers' keys revoked", len(gone))
        if gone & self._came_in:
            self._came_in -= gone
            self._doors.clear("a key was revoked")

    def _read_keys(self) -> None:
        try:
            stamp = self._folder.stamp()
            if stamp == self._stamp:
                return
            keys = frozenset(self._folder.subscribers(broken=self._complain).values())
        except FileNotFoundError as error:
            if self._folder.exists():
                return  # a file went between the listing and the look at it; the next look finds it gone
            stamp, keys = None, frozenset()
            self._complain(f"nobody is let in: {error.filename}: {error.strerror}")
        except OSError as error:
            stamp, keys = None, frozenset()
            self._complain(f"nobody is let in: {error.filename}: {error.strerror}")
        self._stamp, self._keys = stamp, keys

    def _complain(self, what: str) -> None:
        if what != self._complaint:
            self._complaint = what
            log.error("keys: %s", what)

    def stop(self) -> None:
        """Stop the thread; after the doors are closed."""
        self._stopping.set()
        self._thread.join(2.0)

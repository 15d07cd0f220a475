"""The public sockets of a hub: bound, asking for keys where there are some, and able to show everybody out.

libzmq cannot end one peer's connection. So when somebody inside must go - a key was revoked, or a peer fills the memory
with a message that never ends - every tcp door ends all of its connections and opens again: whoever may come in is back
within a second, and replay gives what was missed.
"""

from __future__ import annotations

import logging
import time

import zmq

from vedette.streamer.endpoint import bind
from vedette.streamer.errors import ConfigError
from vedette.streamer.keys.curve import secure_server
from vedette.streamer.keys.folder import Pair

log = logging.getLogger("vedette.door")

#: libzmq lets go of an address in a thread of its own; longer than this is worth a word.
PATIENCE_S = 1.0


class Doors:
    """What all doors of a hub share. pair: the site's keys, None when nobody is asked for one. orders: how often
    everybody was shown out, why: the last reason."""

    def __init__(self) -> None:
        self.pair: Pair | None = None
        self.orders = 0
        self.why = ""

    def clear(self, why: str) -> None:
        """Have every door end its connections when it is next tended; safe from any thread."""
        self.why = why
        self.orders += 1


class Door:
    """A public socket, bound; owned by the thread that owns the socket. endpoint: where it really listens.

    Only tcp asks for keys and is cleared: on ipc the folder's permissions decide who comes in.
    """

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str, key: str, doors: Doors) -> None:
        """Bind. key: the configuration's, for errors. Raises ConfigError."""
        self._socket, self._key, self._doors = socket, key, doors
        self._is_tcp = endpoint.startswith("tcp://")
        self._has_keys = self._is_tcp and doors.pair is not None
        if self._is_tcp and doors.pair is not None:
            secure_server(socket, doors.pair)
        self.endpoint = bind(socket, endpoint, key, keys=self._has_keys)
        self._seen = doors.orders
        self._shut = self._complained = False
        self._shut_s = 0.0

    def tend(self) -> None:
        """Call now and then: obey the order to clear, and open again as soon as that works. Never blocks."""
        if self._is_tcp and self._seen != self._doors.orders and not self._shut:
            self._seen = self._doors.orders
            self._socket.unbind(self.endpoint)
            self._shut, self._shut_s = True, time.monotonic()
        if not self._shut:
            return
        try:
            bind(self._socket, self.endpoint, self._key, keys=True)  # about missing keys it was warned at the start
        except ConfigError as error:
            if not self._complained and time.monotonic() - self._shut_s > PATIENCE_S:
                log.error("%s; trying again", error)
                self._complained = True
            return
        self._shut = self._complained = False
        log.warning("%s: all connections ended: %s; %s is open again", self._key, self._doors.why, self.endpoint)

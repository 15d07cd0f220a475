"""CURVE on ZeroMQ sockets: encrypted, and both ends know who the other one is (RFC 25 and 26 of ZeroMQ)."""

from __future__ import annotations

from pathlib import Path

import zmq

from vedette.streamer.errors import ConfigError
from vedette.streamer.keys.folder import Pair, checked, pair_of, read_key

#: The ZAP domain of our sockets.
DOMAIN = b"vedette"
#: How long a peer may take to prove itself; also after how long one that was refused tries again, milliseconds.
HANDSHAKE_MS = 3000


def secure_server(socket: zmq.Socket[bytes], pair: Pair) -> None:
    """Before bind: nobody gets in without a key that the ZAP handler knows; without a handler nobody at all."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())
    socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)


class ClientKeys:
    """What a subscriber needs: its own pair and the site's public key. Both are Z85 text. Raises ConfigError."""

    def __init__(self, server_key: str, secret_key: str) -> None:
        self.server = checked(server_key, "server_key")
        self._pair = pair_of(checked(secret_key, "secret_key"))

    @classmethod
    def of(cls, server_key: str | None, secret_key: str | None) -> ClientKeys | None:
        """None without keys. Raises ConfigError when there is one key without the other."""
        if server_key is None and secret_key is None:
            return None
        if server_key is None or secret_key is None:
            missing = "server_key" if server_key is None else "secret_key"
            raise ConfigError(
                f"{missing}: is needed too; a subscriber has a secret key and knows the site's public key"
            )
        return cls(server_key, secret_key)

    def secure(self, socket: zmq.Socket[bytes], endpoint: str) -> None:
        """Before connect. Only tcp is encrypted: on ipc the folder's permissions decide who comes in."""
        if not endpoint.startswith("tcp://"):
            return
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._pair.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._pair.secret.encode())
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)


def public_key_of(text: str) -> str:
    """A public key as a person gives it: the key itself, or the file that holds it. Raises ConfigError."""
    return text if len(text) == 40 and not Path(text).exists() else read_key(Path(text), secret=False)

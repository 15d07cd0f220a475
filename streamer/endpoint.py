"""ZeroMQ endpoints: bind with a clear error, keep ipc sockets private, find out where a wildcard really is."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from urllib.parse import urlsplit

import zmq

from vedette.streamer.address import is_loopback_host
from vedette.streamer.errors import ConfigError

log = logging.getLogger("vedette.endpoint")

#: Longest path of a unix socket that Linux takes, bytes (sockaddr_un without its final zero).
MAX_IPC_PATH = 107


def is_loopback(endpoint: str) -> bool:
    """Whether only this host can reach the endpoint."""
    parts = urlsplit(endpoint)
    if parts.scheme != "tcp":
        return True
    return is_loopback_host(parts.hostname or "")


def bind(socket: zmq.Socket[bytes], endpoint: str, key: str, *, keys: bool = False) -> str:
    """Bind and return where: wildcards in the port are resolved, ipc sockets are 0660 from their first moment.

    key: what the endpoint is called in the configuration; it opens the ConfigError when binding fails. keys: whether
    the socket asks for a key; a tcp address that others reach and that does not is worth a warning.
    """
    path = endpoint.removeprefix("ipc://")
    is_ipc = path != endpoint
    if is_ipc and len(os.fsencode(path)) > MAX_IPC_PATH:
        raise ConfigError(f"{key}: path of {len(path)} characters; a unix socket takes {MAX_IPC_PATH}, got {path!r}")
    mask = os.umask(0o117) if is_ipc else None
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        fix = {
            zmq.EADDRINUSE: "another program listens there; stop it or choose another port",
            zmq.EADDRNOTAVAIL: "no interface of this host has that address",
            errno.ENODEV: "no interface of this host has that name or address",
        }.get(error.errno or 0, str(error))
        raise ConfigError(f"{key}: cannot be bound, got {endpoint!r}; {fix}") from error
    finally:
        if mask is not None:
            os.umask(mask)
    if is_ipc:
        Path(path).chmod(0o660)
        return endpoint
    if not is_loopback(endpoint) and not keys:
        log.warning("%s: %s is open to the network, unencrypted and without a key", key, endpoint)
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def reachable(advertised: str, through: str) -> str:
    """``advertised`` as seen by a client that came ``through`` another endpoint of the same host.

    ``tcp://0.0.0.0:5557`` learned over ``tcp://edge-1:5556`` becomes ``tcp://edge-1:5557``; so does a loopback
    address learned from another host.
    """
    there, here = urlsplit(advertised), urlsplit(through)
    if there.scheme != "tcp" or here.scheme != "tcp" or not here.hostname:
        return advertised
    if there.hostname in ("0.0.0.0", "*", "::") or (is_loopback(advertised) and not is_loopback(through)):
        host = f"[{here.hostname}]" if ":" in here.hostname else here.hostname
        return f"tcp://{host}:{there.port}"
    return advertised

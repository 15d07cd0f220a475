"""Reading a ZeroMQ message of several parts, at half the cost of `recv_multipart`.

pyzmq 27 asks the socket after every part whether there is more, through an enum (measured: 11 us against 5 us for four
parts on one core); a part that is received without copying knows it itself.
"""

from __future__ import annotations

import zmq


def receive_now(socket: zmq.Socket[bytes]) -> list[bytes] | None:
    """The parts of the message that waits, or None when none does. Raises zmq.ZMQError on a closed socket."""
    try:
        part = socket.recv(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
    parts = [part.bytes]
    while part.more:
        part = socket.recv(copy=False)  # a message arrives whole
        parts.append(part.bytes)
    return parts

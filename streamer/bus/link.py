"""What both sides of the frames link (`vedette.streamer.bus`) agree on: limits, socket options, cut requests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from vedette.streamer import wire
from vedette.streamer.errors import WireError

#: Largest message a reader accepts, bytes: a 3840x2160 picture inline and some JSON. Larger ones end the connection.
MAX_MESSAGE = 32 * 1024 * 1024
#: How often a writer without credit (or without a reader) asks again, seconds.
HELLO_EVERY_S = 0.25
_POLLIN = int(zmq.POLLIN)  # arithmetic on the enumeration itself costs more than the question


@dataclass(frozen=True, slots=True)
class Cut:
    """A request: the picture nearest to ``mono_ns``, please; the answer carries ``key``. box: what matters in it.
    clip: not one picture but a film from so many seconds before to so many after."""

    key: str
    mono_ns: int
    box: tuple[float, float, float, float] | None = None
    clip: tuple[float, float] | None = None

    @classmethod
    def of(cls, message: dict[str, Any]) -> Cut:
        """What another process asks for. Raises WireError, KeyError, TypeError or ValueError when it is malformed."""
        box, clip = message.get("box"), message.get("clip")
        return cls(
            str(message["key"]),
            int(message["mono_ns"]),
            None if box is None else _numbers(box, 4),
            None if clip is None else _numbers(clip, 2),
        )


def _numbers(values: Any, count: int) -> Any:
    if not isinstance(values, list) or len(values) != count:
        raise WireError(f"bus: a cut needs {count} numbers, got {values!r:.60}")
    return tuple([float(v) for v in values])  # a list has a length: a tuple that shrinks leaves its room on a free list


def endpoint_of(place: Path | str) -> str:
    """An endpoint as it is, a run folder as the endpoint of its frames link."""
    return str(place) if "://" in str(place) else wire.ipc(place, wire.FRAMES)


def tune(socket: zmq.Socket[bytes]) -> None:
    """Options both sides share."""
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, 4096)  # credits bound the frames; this only bounds a peer that never reads
    socket.setsockopt(zmq.RCVHWM, 4096)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 1000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 5000)


def waiting(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message can be received now; ten times cheaper than to try and catch zmq.Again."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & _POLLIN)

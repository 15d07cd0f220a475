"""The way home of a local camera's credits: a FIFO beside its ring, one small record a slot.

A credit by ZeroMQ wakes three threads and costs more than the picture's descriptor; a write into a FIFO wakes at most
the one that waits for it, and the kernel's pipe is as good a memory fence. The reader of frames writes, the writer of
frames reads. Where either end cannot be opened (another host, a folder of another kind), credits travel by message.

A record is 16 bytes: 8 that name the incarnation and the boot which this credit is between, the slot, its complement,
and zeros. Records of another boot are left over and mean nothing; anything else is malformed, counted and dropped
(a writer that misses a credit asks for it: `vedette.streamer.wire`, ``hello``).
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from pathlib import Path

_RECORD = struct.Struct("<8sBB6x")
#: What one read takes in: far more than the slots of any ring.
_AT_ONCE = 256 * _RECORD.size


def lane_path(ring: Path | str) -> Path:
    """Where the FIFO of a ring file lies."""
    return Path(f"{ring}.credits")


def key_of(incarnation: str, boot: str) -> bytes:
    """8 bytes that name one writer's life and one reader's life together."""
    return hashlib.blake2b(f"{incarnation}\n{boot}".encode(), digest_size=8).digest()


class CreditSender:
    """The end that pays: who reads frames."""

    def __init__(self, fd: int, key: bytes) -> None:
        self._fd = fd
        self._key = key

    @classmethod
    def open(cls, ring: Path | str, incarnation: str, boot: str) -> CreditSender | None:
        """Open the lane of ``ring``; None where there is none or nobody reads it."""
        fd = _open_fifo(lane_path(ring), os.O_WRONLY)
        return None if fd is None else cls(fd, key_of(incarnation, boot))

    def pay(self, slot: int) -> None:
        """Hand a slot back. A full lane or a dead writer loses it: the one asks again, the other needs nothing."""
        try:
            os.write(self._fd, _RECORD.pack(self._key, slot, 255 - slot))
        except (BlockingIOError, BrokenPipeError):
            return

    def close(self) -> None:
        """Close this end; once only."""
        os.close(self._fd)


class CreditReceiver:
    """The end that is paid: who writes frames. fd: readable when credits wait."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.malformed = 0

    @classmethod
    def open(cls, ring: Path | str) -> CreditReceiver | None:
        """Open the lane of ``ring``; None where there is none."""
        # for reading and writing: with a writer of its own it never reads as hung up while no reader of frames lives
        fd = _open_fifo(lane_path(ring), os.O_RDWR)
        return None if fd is None else cls(fd)

    def take(self, key: bytes) -> list[int]:
        """The slots that came back for ``key``; others are forgotten, malformed records counted."""
        try:
            raw = os.read(self.fd, _AT_ONCE)
        except BlockingIOError:
            return []
        if len(raw) % _RECORD.size:
            self.malformed += 1  # no way to know where the next one begins
            return []
        slots = []
        for name, slot, complement in _RECORD.iter_unpack(raw):
            if slot + complement != 255:
                self.malformed += 1
            elif name == key:
                slots.append(slot)
        return slots

    def close(self) -> None:
        """Close this end; once only."""
        os.close(self.fd)


def _open_fifo(path: Path, mode: int) -> int | None:
    try:
        fd = os.open(path, mode | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return fd

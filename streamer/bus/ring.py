"""The pixels of one local camera: a memory-mapped file of equal slots, owned by credit.

The supervisor makes one file for each life of a capture process and unlinks it when that life ends; who has it
mapped keeps it. The file is a page that says how it is cut, then the slots. Nothing in it is ever a lock: the writer
may touch a slot only while it holds that slot's credit, the reader only while it does not, and the messages that hand
the credit over (`vedette.streamer.bus`, `vedette.streamer.bus.creditlane`) are the memory fence.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vedette.streamer.bus.creditlane import lane_path
from vedette.streamer.errors import WireError

#: Slots of a ring: one being written, one under way, one waiting in the mailbox, two in batches that overlap.
SLOTS = 5
MAX_SLOTS = 256

_MAGIC = b"VDRING1\0"
_HEADER = struct.Struct("<8sIIQ")  # magic, slots, reserved, bytes of a slot
_PAGE = 4096
_NAME = re.compile(r"^[a-z0-9_-][a-z0-9_.-]{0,95}$")

U8 = NDArray[np.uint8]


def slot_bytes_for(input_hw: tuple[int, int]) -> int:
    """Bytes that one BGR picture of the engine's input size needs."""
    return input_hw[0] * input_hw[1] * 3


def ring_name(camera: str, life: int | str) -> str:
    """The name of the ring file of one life of a camera's capture process."""
    return f"ring-{camera}-{life}"


def create_ring(path: Path | str, slots: int, slot_bytes: int) -> None:
    """Make a ring file and its lane of credits, mode 0600, with all memory reserved now: no later write can meet a
    full tmpfs.

    slots: 1..256; more slots let slow readers hold more pictures before frames are dropped. slot_bytes: the largest
    picture. Raises OSError (ENOSPC when the memory is not there; the file is then gone again).
    """
    if not 1 <= slots <= MAX_SLOTS or slot_bytes < 1:
        raise ValueError(f"create_ring: needs 1..{MAX_SLOTS} slots of at least 1 byte, got {slots} of {slot_bytes}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, _PAGE + slots * _stride(slot_bytes))
        os.pwrite(fd, _HEADER.pack(_MAGIC, slots, 0, slot_bytes), 0)
        os.mkfifo(lane_path(path), 0o600)
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(fd)


def remove_ring(path: Path | str) -> None:
    """Take the names of a ring and its lane away; who has them open keeps them."""
    Path(path).unlink(missing_ok=True)
    lane_path(path).unlink(missing_ok=True)


def _stride(slot_bytes: int) -> int:
    return -(-slot_bytes // _PAGE) * _PAGE


class Ring:
    """A mapped ring. Views stay valid for as long as somebody holds them, whatever happens to the file's name."""

    def __init__(self, memory: mmap.mmap, path: Path, slots: int, slot_bytes: int) -> None:
        self.path = path
        self.name = path.name
        self.slots = slots
        self.slot_bytes = slot_bytes
        self._bytes = np.frombuffer(memory, np.uint8)

    @classmethod
    def open(cls, path: Path | str, *, writable: bool = False) -> Ring:
        """Map an existing ring, read-only unless ``writable``. Raises OSError or WireError when it is not a ring."""
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            slots, slot_bytes, size = _check(fd, Path(path).name)
            access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
            memory = mmap.mmap(fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, access)
        finally:
            os.close(fd)
        return cls(memory, Path(path), slots, slot_bytes)

    @classmethod
    def open_in(cls, folder: Path, name: str) -> Ring:
        """Map the ring ``name`` of ``folder``, read-only; a name that could lead elsewhere is a WireError."""
        if _NAME.fullmatch(name) is None:
            raise WireError(f"ring: needs a plain file name, got {name!r:.120}")
        try:
            return cls.open(folder / name)
        except OSError as error:
            raise WireError(f"ring: cannot open {name!r:.120}: {error.strerror}") from error

    def view(self, slot: int, height: int, width: int) -> U8:
        """The picture u8 [height,width,3] in a slot, without a copy. Raises WireError when it does not fit."""
        nbytes = height * width * 3
        if not 0 <= slot < self.slots:
            raise WireError(f"ring: needs a slot in 0..{self.slots - 1}, got {slot}")
        if not 0 < nbytes <= self.slot_bytes:
            raise WireError(f"ring: a slot holds {self.slot_bytes} bytes, got a picture of {width}x{height}")
        start = _PAGE + slot * _stride(self.slot_bytes)
        return self._bytes[start : start + nbytes].reshape(height, width, 3)


def _check(fd: int, name: str) -> tuple[int, int, int]:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise WireError(f"ring: {name!r:.120} is not a regular file")
    head = os.pread(fd, _HEADER.size, 0)
    magic, slots, _, slot_bytes = _HEADER.unpack(head) if len(head) == _HEADER.size else (b"", 0, 0, 0)
    if magic != _MAGIC or not 1 <= slots <= MAX_SLOTS or slot_bytes < 1:
        raise WireError(f"ring: {name!r:.120} is not a ring file")
    size = _PAGE + slots * _stride(slot_bytes)
    if status.st_size < size:
        raise WireError(f"ring: {name!r:.120} is truncated: needs {size} bytes, has {status.st_size}")
    return slots, slot_bytes, size

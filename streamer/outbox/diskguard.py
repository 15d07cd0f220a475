"""What happens when the disk is full: old pictures go first, then a reserve is given up, then we hold.

Detection never waits for the disk. The reserve is laid down again when there is room.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from pathlib import Path

from vedette.streamer.outbox.snapshots import EVIDENCE

log = logging.getLogger("vedette.diskguard")

RESERVE = "reserve.bin"
RESERVE_BYTES = 16 * 1024 * 1024
#: How much to free at once by deleting pictures, bytes.
RELIEF_BYTES = 8 * 1024 * 1024
#: The reserve comes back when so much more than it is free, bytes.
HEADROOM_BYTES = 2 * RELIEF_BYTES

_FULL_ERRNO = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: SQLite result codes (primary) that mean the disk did not take it.
_FULL_SQLITE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def is_disk_trouble(error: BaseException) -> bool:
    """Whether an OSError or sqlite3.Error says that the disk is full or does not take writes now."""
    if isinstance(error, OSError):
        return error.errno in (*_FULL_ERRNO, errno.EIO, errno.EROFS)
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in (*_FULL_SQLITE, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


class DiskGuard:
    """Frees space in the order of design section 5. The hub's writer thread owns it."""

    def __init__(self, store: Path, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        """Lay down the reserve when it fits."""
        self._store = store
        self._reserve = store / RESERVE
        self._reserve_bytes = reserve_bytes
        self.pictures_deleted = 0
        self.maintain()

    @property
    def has_reserve(self) -> bool:
        """Whether the reserve lies ready."""
        try:
            return self._reserve.stat().st_blocks * 512 >= self._reserve_bytes
        except OSError:
            return False

    def free_bytes(self) -> int:
        """What this process may still write to the store's file system."""
        found = os.statvfs(self._store)
        return found.f_bavail * found.f_frsize

    def maintain(self) -> None:
        """Lay the reserve down again when there is room for it."""
        if self.has_reserve or self.free_bytes() < self._reserve_bytes + HEADROOM_BYTES:
            return
        try:
            with self._reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._reserve_bytes)
        except OSError as error:
            log.warning("no room for the reserve of %d MB: %s", self._reserve_bytes >> 20, error)
            self._reserve.unlink(missing_ok=True)

    def relieve(self) -> bool:
        """Free some space: the oldest pictures, else the reserve. False when there is nothing left to give, or the disk
        takes nothing at all, not even that (read-only): what was being written says so."""
        try:
            return self._relieve()
        except OSError:
            return False

    def _relieve(self) -> bool:
        freed = self._delete_oldest(RELIEF_BYTES)
        if freed:
            log.error("the disk of %s is full: deleted the oldest pictures, %d kB", self._store, freed >> 10)
            return True
        if self._reserve.exists():
            self._reserve.unlink(missing_ok=True)
            log.error("the disk of %s is full: gave up the reserve of %d MB", self._store, self._reserve_bytes >> 20)
            return True
        return False

    def _delete_oldest(self, wanted_bytes: int) -> int:
        """Delete pictures, oldest first, until so many bytes are free; returns how many were freed."""
        freed = 0
        for day in sorted(self._days(), key=lambda folder: folder.name):
            for path, size in _oldest_first(day):
                path.unlink(missing_ok=True)
                self.pictures_deleted += 1
                freed += size
                if freed >= wanted_bytes:
                    return freed
            day.rmdir()
        return freed

    def _days(self) -> list[Path]:
        return [day for day in (self._store / EVIDENCE).glob("*/????-??-??") if day.is_dir()]


def _oldest_first(folder: Path) -> list[tuple[Path, int]]:
    found = []
    for entry in os.scandir(folder):
        status = entry.stat(follow_symlinks=False)
        found.append((status.st_mtime_ns, Path(entry.path), status.st_size))
    return [(path, size) for _, path, size in sorted(found)]

"""One daemon per store: an flock on ``<store>/lock`` that the kernel releases whatever kills the holder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from vedette.streamer.errors import StoreError
from vedette.streamer.filelock import locked

LOCK = "lock"


class StoreLock:
    """Holds the store until `release` or the end of this process; children do not inherit it."""

    def __init__(self, store: Path, patience_s: float = 1.0) -> None:
        """Take the lock. Raises StoreError naming the holder when another daemon has it.

        patience_s: how long a lock that is just being looked at (`holder_of`) or left may take.
        """
        self._fd = os.open(store / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        if not locked(self._fd, patience_s):
            holder = _read_pid(self._fd)
            os.close(self._fd)
            raise StoreError(
                f"alerts.store: another vedette{holder and f' (pid {holder})'} already runs on this store, "
                f"got {str(store)!r}; stop it or give this one its own store"
            )
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._fd)


def holder_of(store: Path) -> str | None:
    """The pid of the daemon that holds the store ("?" when it did not say), or None when nobody does."""
    try:
        fd = os.open(store / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_pid(fd) or "?"
    finally:
        os.close(fd)
    return None


def _read_pid(fd: int) -> str:
    text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    return text if text.isdigit() else ""

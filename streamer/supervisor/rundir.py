"""The run folder: sockets and rings of one daemon, in memory, swept at its start and gone after its clean end.

It lies in a runtime tmpfs and is named after the user and the store, so that whoever holds the store's lock also
owns the folder: nothing in it can belong to a living daemon, and sweeping is safe.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from vedette.streamer.errors import StoreError

log = logging.getLogger("vedette.supervisor")

#: sun_path holds 108 bytes, and libzmq wants a terminating zero.
MAX_PATH_BYTES = 100
#: the longest name that is made inside: a ring's (ring-<32>-<life>) is a file, sockets are shorter
_LONGEST_SOCKET = len("/telemetry.sock")


def run_dir_for(store: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the run folder of ``store`` belongs: $RUNTIME_DIRECTORY (systemd), $XDG_RUNTIME_DIR, or /dev/shm.

    The first that is a writable folder and leaves room for a socket's path. Raises StoreError when none is.
    """
    digest = hashlib.sha256(os.fsencode(store.resolve())).hexdigest()[:10]
    name = f"vedette-{os.getuid()}-{digest}"
    tried = []
    for base in (environ.get("RUNTIME_DIRECTORY", "").split(":")[0], environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm"):
        if not base:
            continue
        tried.append(base)
        path = Path(base) / name
        fits = len(os.fsencode(path)) + _LONGEST_SOCKET < MAX_PATH_BYTES
        if Path(base).is_dir() and os.access(base, os.W_OK | os.X_OK) and fits:
            return path
    raise StoreError(
        f"run folder: needs a writable folder with a short name, got {tried}; set XDG_RUNTIME_DIR to one on tmpfs"
    )


class RunDir:
    """The folder of one living daemon, locked as long as it lives, so that others know the dead by their unlocked ones."""

    def __init__(self, path: Path, patience_s: float = 2.0) -> None:
        """An empty folder of ours, mode 0750; what a killed predecessor left is gone, here and beside it.

        Needs the store's lock. patience_s: how long another daemon may take that is just looking at the folder. Raises
        StoreError when the name is taken by somebody else: /dev/shm is everybody's.
        """
        self.path = path
        self._fd = self._lock(time.monotonic() + patience_s)
        _empty(path)
        os.fchmod(self._fd, 0o750)  # mkdir obeys the umask
        for beside in _abandoned(path):
            log.info("run folder: removed %s of a daemon that was killed", beside)

    def _lock(self, deadline_s: float) -> int:
        while True:
            fd = _open_own(self.path, may_vanish=time.monotonic() < deadline_s)
            if fd is None:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same(fd, self.path):
                    return fd  # else it was swept between open and lock: make it again
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    os.close(fd)
                    raise StoreError(
                        f"run folder: {self.path} is used by another vedette; stop it or set XDG_RUNTIME_DIR"
                    ) from None
                time.sleep(0.05)
            os.close(fd)

    def remove(self) -> None:
        """Remove the folder and what is in it."""
        if self.path.exists():
            shutil.rmtree(self.path)
        os.close(self._fd)


def _open_own(path: Path, *, may_vanish: bool) -> int | None:
    """The folder, made if need be, opened without following links; None when another daemon swept it in between."""
    try:
        path.mkdir(mode=0o750, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(f"run folder: {path} is somebody else's; remove it or set XDG_RUNTIME_DIR") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError) and may_vanish and path.parent.is_dir():
            return None
        raise StoreError(f"run folder: cannot make {path}: {error.strerror}") from error
    owner = os.fstat(fd).st_uid
    if owner != os.getuid():
        os.close(fd)
        raise StoreError(f"run folder: {path} is somebody else's (uid {owner}); remove it or set XDG_RUNTIME_DIR")
    return fd


def _same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _empty(path: Path) -> None:
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def _abandoned(own: Path) -> Iterator[Path]:
    """Remove folders beside ``own`` whose daemon was killed and never started again; they would hold memory for ever."""
    for path in own.parent.glob(f"vedette-{os.getuid()}-*"):
        if path == own or path.is_symlink() or not path.is_dir():
            continue
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # another daemon that starts now was quicker
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same(fd, path):
                shutil.rmtree(path)
                yield path
        except BlockingIOError:
            continue  # its daemon lives
        finally:
            os.close(fd)

"""The run folder: sockets and rings of one daemon, in memory, swept at its start and gone after its clean end.

It lies in a runtime tmpfs and is named after the user and the store, so that whoever holds the store's lock also
owns the folder: nothing in it can belong to a living daemon, and sweeping is safe.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from vedette.streamer.errors import StoreError

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


def make_run_dir(path: Path) -> Path:
    """An empty folder of ours, mode 0750; what a killed predecessor left in it is gone. Needs the store's lock.

    Raises StoreError when the name is taken by somebody else: /dev/shm is everybody's.
    """
    try:
        path.mkdir(mode=0o750)
    except FileExistsError:
        held = path.lstat()
        if not stat.S_ISDIR(held.st_mode) or held.st_uid != os.getuid():
            raise StoreError(
                f"run folder: {path} belongs to somebody else (uid {held.st_uid}); remove it or set XDG_RUNTIME_DIR"
            ) from None
        _sweep(path)
    except OSError as error:
        raise StoreError(f"run folder: cannot make {path}: {error.strerror}") from error
    path.chmod(0o750)  # mkdir obeys the umask
    return path


def _sweep(path: Path) -> None:
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def remove_run_dir(path: Path) -> None:
    """Remove the folder and what is in it; nothing when it is already gone."""
    shutil.rmtree(path, ignore_errors=not path.exists())

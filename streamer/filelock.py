"""An flock that is waited for: held until its file is closed or the process dies, whatever kills it."""

from __future__ import annotations

import fcntl
import time

#: Seconds between tries.
AGAIN_S = 0.05


def locked(descriptor: int, patience_s: float) -> bool:
    """Whether the file is ours alone now; ``patience_s``: how long another holder may take to let go.

    Raises OSError when the file system knows no locks.
    """
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(AGAIN_S)

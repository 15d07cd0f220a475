"""A child's first moment: tied to its parent's life before anything slow is imported.

``python -m vedette.streamer.birth PARENT_PID`` becomes `vedette.streamer.worker`. Importing that takes a second on a busy
machine; a supervisor that is killed meanwhile must not leave the child behind even that long.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies; exit now if that already happened."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def prctl(option: int, value: int | bytes) -> None:
    """prctl(2) with one argument. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    # prctl reads five longs; plain ints would be passed as 32 bits
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    zero = ctypes.c_ulong(0)
    if libc.prctl(option, argument, zero, zero, zero) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    # by name: the worker imports this module, and modules never import each other in a circle
    worker = importlib.import_module("vedette.streamer.worker")
    worker.leave(worker.main())

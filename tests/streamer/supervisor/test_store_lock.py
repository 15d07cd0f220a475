"""One daemon per store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vedette.streamer.errors import StoreError
from vedette.streamer.supervisor.store_lock import StoreLock, holder_of

HOLD = "import sys, signal; from pathlib import Path; from vedette.streamer.supervisor.store_lock import StoreLock as L; l = L(Path(sys.argv[1])); print('held', flush=True); signal.pause()"


def test_the_second_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    """Another process's lock names its pid; the kernel frees it when that process is killed."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert holder_of(tmp_path) == str(holder.pid)
        with pytest.raises(StoreError, match=rf"pid {holder.pid}\) already runs on this store") as caught:
            StoreLock(tmp_path, patience_s=0.1)
        assert caught.value.exit_code == 2
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert holder_of(tmp_path) is None
        StoreLock(tmp_path).release()
    finally:
        holder.kill()
        holder.communicate()


def test_releasing_lets_the_next_one_in(tmp_path: Path) -> None:
    """The same store can be held again, and looking at it does not hold it."""
    lock = StoreLock(tmp_path)
    assert holder_of(tmp_path) == str(os.getpid())
    lock.release()
    assert holder_of(tmp_path) is None
    StoreLock(tmp_path, patience_s=0).release()


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    """Nobody can have us truncate another file."""
    (tmp_path / "precious").write_text("x")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="lock"):
        StoreLock(tmp_path)
    assert (tmp_path / "precious").read_text() == "x"

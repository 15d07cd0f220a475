"""The run folder: short, private, swept, gone."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vedette.streamer.errors import StoreError
from vedette.streamer.supervisor.rundir import RunDir, run_dir_for


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name, as runtime folders have."""
    with tempfile.TemporaryDirectory(prefix="vd-") as name:
        yield Path(name)


def test_systemds_folder_comes_first(short: Path) -> None:
    """$RUNTIME_DIRECTORY, then $XDG_RUNTIME_DIR, then /dev/shm."""
    store = Path("/var/lib/vedette")
    own, xdg = short / "own", short / "xdg"
    own.mkdir()
    xdg.mkdir()
    both = {"RUNTIME_DIRECTORY": f"{own}:/run/other", "XDG_RUNTIME_DIR": str(xdg)}
    assert run_dir_for(store, both).parent == own
    assert run_dir_for(store, {"XDG_RUNTIME_DIR": str(xdg)}).parent == xdg
    assert run_dir_for(store, {"XDG_RUNTIME_DIR": str(short / "missing")}).parent == Path("/dev/shm")


def test_a_folder_whose_sockets_would_not_fit_is_passed_over(short: Path) -> None:
    """A unix socket's path holds 108 bytes; a long runtime folder falls back to the next."""
    long = short / ("x" * 80)
    long.mkdir()
    chosen = run_dir_for(Path("/s"), {"RUNTIME_DIRECTORY": str(long), "XDG_RUNTIME_DIR": str(short)})
    assert chosen.parent == short
    assert len(os.fsencode(chosen / "telemetry.sock")) < 100


def test_stores_and_users_do_not_share_a_folder(short: Path) -> None:
    """The name holds the uid and a hash of the store; one store reached by two names is one folder."""
    environ = {"XDG_RUNTIME_DIR": str(short)}
    (short / "store").mkdir()
    (short / "link").symlink_to(short / "store")
    one, same, other = (run_dir_for(short / name, environ) for name in ("store", "link", "other"))
    assert one == same != other
    assert f"-{os.getuid()}-" in one.name


def test_what_a_killed_predecessor_left_is_swept(short: Path) -> None:
    """Rings, sockets, folders and dangling links are gone; what links point at stays."""
    path = short / "run"
    path.mkdir(mode=0o777)
    keep = short / "keep"
    keep.mkdir()
    (keep / "file").touch()
    (path / "ring-a-1").write_bytes(b"x")
    (path / "sub").mkdir()
    (path / "sub" / "x").touch()
    (path / "link").symlink_to(keep)
    os.mkfifo(path / "events.sock")
    own = RunDir(path)
    assert list(path.iterdir()) == []
    assert path.stat().st_mode & 0o777 == 0o750
    assert (keep / "file").exists()
    own.remove()


def test_a_name_that_somebody_else_took_is_refused(short: Path) -> None:
    """A link or a file in our place, as anyone could put into /dev/shm, is an error and is not followed."""
    target = short / "target"
    target.mkdir()
    (target / "precious").touch()
    (short / "link").symlink_to(target)
    (short / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(StoreError, match="is somebody else's"):
            RunDir(short / name)
    assert (target / "precious").exists()


def test_removing_leaves_nothing(short: Path) -> None:
    """Files and folder are gone, also when somebody removed them before."""
    for gone_already in (False, True):
        own = RunDir(short / "run")
        (own.path / "ring").touch()
        if gone_already:
            shutil.rmtree(own.path)
        own.remove()
        assert not own.path.exists()


def test_folders_of_dead_daemons_are_removed_and_of_living_ones_are_not(short: Path) -> None:
    """A killed daemon whose store never starts again must not hold memory for ever; the living keep theirs."""
    environ = {"XDG_RUNTIME_DIR": str(short)}
    living, dead, own = (run_dir_for(Path(f"/{name}"), environ) for name in ("living", "dead", "own"))
    other = short / f"vedette-{os.getuid() + 1}-0123456789"  # another user's: not ours to judge
    hold = "import sys, signal; from pathlib import Path; from vedette.streamer.supervisor.rundir import RunDir; r = RunDir(Path(sys.argv[1])); print('held', flush=True); signal.pause()"
    holders = [subprocess.Popen([sys.executable, "-c", hold, str(p)], stdout=subprocess.PIPE) for p in (living, dead)]
    try:
        for holder, path in zip(holders, (living, dead), strict=True):
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            (path / "ring-a-1").touch()
        other.mkdir()
        holders[1].kill()
        holders[1].wait()
        mine = RunDir(own)
        assert sorted(short.iterdir()) == sorted([living, own, other])
        assert (living / "ring-a-1").exists()
        with pytest.raises(StoreError, match="used by another vedette"):
            RunDir(living, patience_s=0.1)
        mine.remove()
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()


def test_a_folder_that_is_swept_while_it_is_made_is_made_again(short: Path) -> None:
    """Two daemons that start together: the one whose folder the other just looked at still gets its own."""
    path = short / "run"
    path.mkdir()
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)  # the other daemon has found it unlocked
    made: list[RunDir] = []
    starter = threading.Thread(target=lambda: made.append(RunDir(path, patience_s=30)))
    starter.start()
    shutil.rmtree(path)
    os.close(fd)
    starter.join(30)
    assert path.is_dir()
    made[0].remove()


def test_daemons_that_start_together_do_not_lose_their_folders(short: Path) -> None:
    """Many at once, each sweeping beside itself: every one ends with its own folder, whatever the others removed."""
    paths = [short / f"vedette-{os.getuid()}-{i:010x}" for i in range(16)]
    for _ in range(20):
        made: list[RunDir] = []
        threads = [threading.Thread(target=lambda p, m: m.append(RunDir(p, 30)), args=(path, made)) for path in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(made) == len(paths)
        assert all(path.is_dir() for path in paths)
        for own in made:
            own.remove()

"""The run folder: short, private, swept, gone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vedette.streamer.errors import StoreError
from vedette.streamer.rundir import make_run_dir, remove_run_dir, run_dir_for


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
    assert list(make_run_dir(path).iterdir()) == []
    assert path.stat().st_mode & 0o777 == 0o750
    assert (keep / "file").exists()


def test_a_name_that_somebody_else_took_is_refused(short: Path) -> None:
    """A link or a file in our place, as anyone could put into /dev/shm, is an error and is not followed."""
    target = short / "target"
    target.mkdir()
    (target / "precious").touch()
    (short / "link").symlink_to(target)
    (short / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(StoreError, match="belongs to somebody else"):
            make_run_dir(short / name)
    assert (target / "precious").exists()


def test_removing_is_complete_and_can_be_repeated(short: Path) -> None:
    """Nothing is left, and a second removal is no error."""
    path = make_run_dir(short / "run")
    (path / "ring").touch()
    remove_run_dir(path)
    remove_run_dir(path)
    assert not path.exists()

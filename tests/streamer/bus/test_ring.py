"""The ring file: memory is reserved, views fit, and nothing that is not a ring is ever mapped."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from vedette.streamer.bus.ring import MAX_SLOTS, Ring, create_ring, ring_name, slot_bytes_for
from vedette.streamer.errors import WireError


def test_a_picture_written_by_one_side_is_read_by_the_other(tmp_path: Path) -> None:
    """What the writer puts into a slot is what a reader maps, and the neighbours do not change."""
    create_ring(tmp_path / "r", 3, 64 * 48 * 3)
    writer, reader = Ring.open(tmp_path / "r", writable=True), Ring.open_in(tmp_path, "r")
    writer.view(1, 48, 64)[:] = 7
    assert (reader.view(1, 48, 64) == 7).all()
    assert not reader.view(0, 48, 64).any()
    assert not reader.view(2, 48, 64).any()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    """The infer side maps read-only: writing into a view raises."""
    create_ring(tmp_path / "r", 1, 300)
    with pytest.raises(ValueError, match="read-only"):
        Ring.open(tmp_path / "r").view(0, 10, 10)[:] = 1


def test_views_outlive_the_file(tmp_path: Path) -> None:
    """Unlinking the file takes nothing away from those who have it mapped, even after the Ring object is gone."""
    create_ring(tmp_path / "r", 1, 300)
    ring = Ring.open(tmp_path / "r", writable=True)
    view = ring.view(0, 10, 10)
    view[:] = 9
    os.unlink(tmp_path / "r")
    del ring
    assert (view == 9).all()


def test_memory_is_reserved_and_private(tmp_path: Path) -> None:
    """Every block is allocated at creation and only the owner may open the file."""
    create_ring(tmp_path / "r", 4, 100_000)
    status = (tmp_path / "r").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_blocks * 512 >= 4 * 100_000


def test_a_second_ring_of_the_same_name_is_refused(tmp_path: Path) -> None:
    """A live ring is never truncated or replaced under its reader."""
    create_ring(tmp_path / "r", 1, 300)
    with pytest.raises(FileExistsError):
        create_ring(tmp_path / "r", 1, 300)


@pytest.mark.parametrize("name", ["../r", "a/b", "", ".", "..", "R", "x" * 97, "r\n", ".hidden"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    """Only a plain file name is opened."""
    with pytest.raises(WireError, match="ring:"):
        Ring.open_in(tmp_path, name)


def test_what_is_not_a_ring_is_refused(tmp_path: Path) -> None:
    """Missing files, folders, links, pipes, other files and truncated rings are WireErrors, never a SIGBUS."""
    create_ring(tmp_path / "good", 2, 5000)
    (tmp_path / "link").symlink_to(tmp_path / "good")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "short").write_bytes((tmp_path / "good").read_bytes()[:6000])
    (tmp_path / "empty").touch()
    for name in ("missing", "link", "text", "folder", "pipe", "short", "empty"):
        with pytest.raises(WireError, match="ring:"):
            Ring.open_in(tmp_path, name)


@pytest.mark.parametrize(("slot", "height", "width"), [(2, 10, 10), (-1, 10, 10), (0, 11, 10), (0, 0, 10), (0, 1, 101)])
def test_a_view_outside_its_slot_is_refused(tmp_path: Path, slot: int, height: int, width: int) -> None:
    """Slot number and picture size are checked against the real file."""
    create_ring(tmp_path / "r", 2, 300)
    with pytest.raises(WireError, match="ring:"):
        Ring.open(tmp_path / "r").view(slot, height, width)


def test_sizes_are_checked_at_creation(tmp_path: Path) -> None:
    """Zero slots, too many, or empty slots are programmer errors."""
    for slots, size in ((0, 10), (MAX_SLOTS + 1, 10), (1, 0)):
        with pytest.raises(ValueError, match="create_ring"):
            create_ring(tmp_path / "r", slots, size)


def test_a_full_tmpfs_leaves_no_file(tmp_path: Path) -> None:
    """When the memory is not there, creation fails at once and the file is gone again."""
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with pytest.raises(OSError, match=r"space|large"):
        create_ring(tmp_path / "r", 200, free)
    assert not (tmp_path / "r").exists()


def test_names_and_sizes_follow_from_the_camera() -> None:
    """The longest camera name still makes a name the wire accepts; a slot holds one engine picture."""
    name = ring_name("a" * 32, "0123456789abcdef-17")
    assert len(name) <= 96
    assert slot_bytes_for((256, 416)) == np.zeros((256, 416, 3), np.uint8).nbytes

"""Small disks of our own: a tmpfs, and a file system on a loop device that can be made slow or fail. Needs root."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.faults.report import refuse

_THROTTLE = Path("/sys/fs/cgroup/blkio/blkio.throttle.write_iops_device")


def _run(*words: str | Path) -> str:
    done = subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@contextlib.contextmanager
def tmpfs(place: Path, size_kb: int) -> Iterator[Path]:
    """A tmpfs of ``size_kb`` at ``place``; skipped with the reason where mounting is not permitted."""
    place.mkdir(parents=True, exist_ok=True)
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", place)
    except (OSError, subprocess.CalledProcessError) as error:
        refuse(f"needs the right to mount a tmpfs: {getattr(error, 'stderr', error)}")
    try:
        yield place
    finally:
        _run("umount", "-l", place)


def fill(disk: Path) -> None:
    """Take every byte that is free, with a file called filler."""
    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


class LoopDisk:
    """An ext4 file system in a file, on a loop device of its own."""

    def __init__(self, folder: Path, size_mb: int = 192) -> None:
        self.place = folder / "disk"
        self.place.mkdir()
        self._image = folder / "disk.img"
        with self._image.open("wb") as file:
            file.truncate(size_mb << 20)
        _run("mkfs.ext4", "-q", "-F", self._image)
        self.device = _run("losetup", "--find", "--show", self._image)
        self._mount()

    def _mount(self) -> None:
        _run("mount", "-o", "errors=remount-ro", self.device, self.place)

    def _number(self) -> str:
        status = os.stat(self.device)
        return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"

    def slow(self, writes_per_s: int) -> None:
        """Take so many writes a second from now on; 0 takes all. By the block layer's throttle of the root cgroup."""
        try:
            _THROTTLE.write_text(f"{self._number()} {writes_per_s}\n")
        except OSError as error:
            refuse(f"needs the blkio controller of cgroup v1 to make a disk slow: {error}")

    def break_(self) -> None:
        """An error of the file system, as a dying disk causes one: ext4 makes itself read-only."""
        Path(f"/sys/fs/ext4/{Path(self.device).name}/trigger_fs_error").write_text("a test\n")

    def repair(self) -> None:
        """What an administrator does once nobody uses it: check it and mount it again."""
        _run("umount", self.place)
        checked = subprocess.run(["e2fsck", "-f", "-y", self.device], capture_output=True, check=False)
        assert checked.returncode in (0, 1), checked.stdout
        self._mount()

    def close(self) -> None:
        """Take it away."""
        if _THROTTLE.exists():
            with contextlib.suppress(OSError):
                _THROTTLE.write_text(f"{self._number()} 0\n")
        while subprocess.run(["umount", "-l", str(self.place)], capture_output=True, check=False).returncode == 0:
            pass
        _run("losetup", "--detach", self.device)


@contextlib.contextmanager
def loop_disk(folder: Path) -> Iterator[LoopDisk]:
    """A disk on a loop device; skipped with the reason where there is none for us."""
    if os.geteuid() != 0:
        refuse("needs root to set up a loop device")
    try:
        disk = LoopDisk(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        refuse(f"needs a loop device and mkfs.ext4: {getattr(error, 'stderr', error)}")
    try:
        yield disk
    finally:
        disk.close()

"""Evidence pictures on disk: whole or absent, never half written.

``evidence/<camera>/<yyyy-mm-dd>/<id>-<rev>.jpg`` below the store. A picture is written beside the tree, renamed into its
place, and it and its folder are fsynced before the alert that names it is committed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from vedette.streamer.outbox.records import Picture
from vedette.streamer.types import Event
from vedette.streamer.wire import MAX_JPEG

EVIDENCE = "evidence"
_STAGING = ".incoming"
#: fsyncs on their way at once. A file system with a journal takes those that wait together with one write: 150 pictures
#: of 20 kB on ext4 took 13 ms instead of 490 ms.
SYNCS_AT_ONCE = 16


def looks_like_jpeg(data: bytes) -> bool:
    """Whether the bytes begin and end like a JPEG file and are of a size that is accepted."""
    return len(data) <= MAX_JPEG and data.startswith(b"\xff\xd8\xff") and data.endswith(b"\xff\xd9")


def looks_like_clip(data: bytes) -> bool:
    """Whether the bytes begin like an mp4 file and are of a size that is accepted."""
    return len(data) <= MAX_JPEG and data[4:8] == b"ftyp"


def snapshot_path(event: Event) -> str:
    """Where the picture of an event lies, relative to the store. The event must have passed `check_event`."""
    return f"{_path(event)}.jpg"


def clip_path(event: Event) -> str:
    """Where the clip that comes with an event lies, relative to the store."""
    return f"{_path(event)}.mp4"


def _path(event: Event) -> str:
    day = datetime.fromtimestamp(event.wall_s, UTC).strftime("%Y-%m-%d")
    return f"{EVIDENCE}/{event.camera}/{day}/{event.id}-{event.rev}"


class Snapshots:
    """Writes pictures; one hub owns the folder."""

    def __init__(self, store: Path) -> None:
        """Make the folders and sweep what a killed hub left half written."""
        self._store = store
        self._staging = store / EVIDENCE / _STAGING
        shutil.rmtree(self._staging, ignore_errors=True)
        self._staging.mkdir(parents=True, mode=0o750)

    def write(self, event: Event, jpeg: bytes) -> Picture:
        """Store one picture durably. Raises OSError (a full disk among others); then nothing is left behind."""
        return self.write_all([(event, jpeg)])[0]

    def write_all(self, wanted: Sequence[tuple[Event, bytes]]) -> list[Picture]:
        """Store pictures durably, all or none: written first, then all synced together, each folder once.

        Raises OSError; then none is left behind.
        """
        clips = [looks_like_clip(data) for _, data in wanted]
        relative = [
            (clip_path if clip else snapshot_path)(event) for clip, (event, _) in zip(clips, wanted, strict=True)
        ]
        staged = [self._staging / Path(path).name for path in relative]
        placed = [self._store / path for path in relative]
        try:
            for folder in {path.parent for path in placed}:
                self._make_folder(folder)
            for temporary, (_, data) in zip(staged, wanted, strict=True):
                _write(temporary, data)
            for temporary, path in zip(staged, placed, strict=True):
                temporary.replace(path)
            _sync_all([*placed, *{path.parent for path in placed}])
        except OSError:
            for path in (*staged, *placed):
                path.unlink(missing_ok=True)
            raise
        return [
            Picture(path, len(data), hashlib.sha256(data).hexdigest(), clip=clip)
            for path, clip, (_, data) in zip(relative, clips, wanted, strict=True)
        ]

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            _sync(folder.parent)


def _write(path: Path, data: bytes) -> None:
    """Write a file and have the kernel begin to store it, so that the fsync to come finds most of it done."""
    with path.open("wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _sync_all(paths: Sequence[Path]) -> None:
    """fsync files and folders, many at a time; raises the first OSError when all are through."""
    with ThreadPoolExecutor(min(len(paths), SYNCS_AT_ONCE), "fsync") as threads:
        for _ in threads.map(_sync, paths):
            pass


def _sync(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

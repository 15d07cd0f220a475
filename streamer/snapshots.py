"""Evidence pictures on disk: whole or absent, never half written.

``evidence/<camera>/<yyyy-mm-dd>/<id>-<rev>.jpg`` below the store. A picture is written beside the tree,
fsynced and renamed before the alert that names it is committed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from vedette.streamer.outbox import Picture
from vedette.streamer.types import Event
from vedette.streamer.wire import MAX_JPEG

EVIDENCE = "evidence"
_STAGING = ".incoming"


def looks_like_jpeg(data: bytes) -> bool:
    """Whether the bytes begin and end like a JPEG file and are of a size that is accepted."""
    return len(data) <= MAX_JPEG and data.startswith(b"\xff\xd8\xff") and data.endswith(b"\xff\xd9")


def snapshot_path(event: Event) -> str:
    """Where the picture of an event lies, relative to the store. The event must have passed `check_event`."""
    day = datetime.fromtimestamp(event.wall_s, UTC).strftime("%Y-%m-%d")
    return f"{EVIDENCE}/{event.camera}/{day}/{event.id}-{event.rev}.jpg"


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
        """Store pictures durably, all or none: the files are synced one after the other, each folder once.

        Raises OSError; then no staged file is left behind.
        """
        relative = [snapshot_path(event) for event, _ in wanted]
        staged = [self._staging / Path(path).name for path in relative]
        try:
            for path in relative:
                self._make_folder((self._store / path).parent)
            for temporary, (_, jpeg) in zip(staged, wanted, strict=True):
                temporary.write_bytes(jpeg)
            for temporary in staged:  # after all were written: the first sync takes most of the others along
                _sync(temporary)
            for temporary, path in zip(staged, relative, strict=True):
                temporary.replace(self._store / path)
        except OSError:
            for temporary in staged:
                temporary.unlink(missing_ok=True)
            raise
        for folder in {(self._store / path).parent for path in relative}:
            _sync(folder)
        return [
            Picture(path, len(jpeg), hashlib.sha256(jpeg).hexdigest())
            for path, (_, jpeg) in zip(relative, wanted, strict=True)
        ]

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            _sync(folder.parent)


def _sync(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

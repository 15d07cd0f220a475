"""Evidence pictures on disk: whole or absent, never half written.

``evidence/<camera>/<yyyy-mm-dd>/<id>-<rev>.jpg`` below the store. A picture is written beside the tree,
fsynced and renamed before the alert that names it is committed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
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
        self._known_folders: set[Path] = set()

    def write(self, event: Event, jpeg: bytes) -> Picture:
        """Store the picture durably. Raises OSError (a full disk among others); then nothing is left behind."""
        relative = snapshot_path(event)
        target = self._store / relative
        if target.parent not in self._known_folders or not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            _sync_folder(target.parent.parent)
            self._known_folders = {target.parent, *list(self._known_folders)[:1024]}
        staged = self._staging / target.name
        try:
            with staged.open("wb") as file:
                file.write(jpeg)
                file.flush()
                os.fsync(file.fileno())
            staged.replace(target)
        except OSError:
            staged.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
        return Picture(relative, len(jpeg), hashlib.sha256(jpeg).hexdigest())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Video files: ``file://`` URLs and plain paths."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vedette.streamer.errors import SourceError, SourceRefused
from vedette.streamer.sources.base import Kind, Reader, Want


def path_of(source: str) -> Path:
    """The path a ``file://`` URL or plain path names."""
    if source.lower().startswith("file://"):
        return Path(unquote(urlsplit(source).path))
    return Path(source)


def _open(source: str, want: Want) -> Reader:
    path = path_of(source)
    try:
        status = path.stat()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise SourceRefused(f"{path}: is not a file; give the path of a video file")
    if status.st_size == 0:
        raise SourceRefused(f"{path}: is empty; was it copied completely?")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path}: cannot be read: permission denied")
    from vedette.streamer.sources.opencv import CONTAINERS
    from vedette.streamer.sources.packets import open_reader

    try:
        # Only this file: a playlist must not lead to other files or hosts.
        return open_reader(
            f"file:{path.absolute()}",
            want,
            live=False,
            options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS},
            bottom_up=_stored_bottom_up(path),
        )
    except SourceRefused:
        raise
    except SourceError as error:
        raise SourceRefused(f"{path}: is not a video that can be decoded") from error


def _stored_bottom_up(path: Path) -> bool:
    """Whether an AVI file says that its uncompressed rows come last one first (BITMAPINFOHEADER: a positive height)."""
    with path.open("rb") as file:
        head = file.read(65536)
    form = head.find(b"strf", max(0, head.find(b"vids")))
    if head[:4] != b"RIFF" or head[8:12] != b"AVI " or form < 0:
        return False
    return int.from_bytes(head[form + 16 : form + 20], "little", signed=True) > 0


KIND = Kind(live=False, takes=lambda _source: True, open=_open)

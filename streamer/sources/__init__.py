"""Where pictures come from: one file a kind, one row here, one test, one commented stanza in configs/.

A source opens or raises, reads or raises; it never retries. The loop around it (`vedette.streamer.capture.camera`) owns retry.
"""

from __future__ import annotations

from collections.abc import Mapping

from vedette.streamer.sources import device, file, gst, http, rtsp
from vedette.streamer.sources.base import EndOfStream, Kind, Reader, Want

#: name -> what it takes, in the order in which they are asked; the last one takes every path
KINDS: Mapping[str, Kind] = {
    "rtsp": rtsp.KIND,
    "http": http.KIND,
    "gst": gst.KIND,
    "device": device.KIND,
    "file": file.KIND,
}


def kind_of(source: str) -> Kind:
    """The kind that takes this ``source``."""
    return next(kind for kind in KINDS.values() if kind.takes(source))


def open_source(source: str, want: Want) -> Reader:
    """An opened source. Raises SourceError, SourceRefused (wrong credentials, bad data) or ConfigError."""
    return kind_of(source).open(source, want)


def problem_of(source: str) -> str | None:
    """Why this installation can never open ``source`` (a missing part, with the fix), or None."""
    return kind_of(source).problem(source)


__all__ = ["KINDS", "EndOfStream", "Kind", "Reader", "Want", "kind_of", "open_source", "problem_of"]

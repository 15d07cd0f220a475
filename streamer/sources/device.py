"""Cameras of this machine: ``/dev/video0`` (Video4Linux)."""

from __future__ import annotations

import os
import re

from vedette.streamer.errors import SourceError
from vedette.streamer.sources.base import Kind, Reader, Want

_DEVICE = re.compile(r"^/dev/video(\d{1,3})$")


def _open(source: str, want: Want) -> Reader:
    if not os.path.exists(source):
        raise SourceError(f"{source}: there is no such device; is the camera plugged in?")
    if not os.access(source, os.R_OK | os.W_OK):
        raise SourceError(f"{source}: permission denied; add this user to the group `video`")
    import cv2

    from vedette.streamer.sources.opencv import OpenCvReader

    match = _DEVICE.match(source)
    assert match is not None
    return OpenCvReader(int(match[1]), want, api=cv2.CAP_V4L2, live=True)


KIND = Kind(live=True, takes=lambda source: _DEVICE.match(source) is not None, open=_open)

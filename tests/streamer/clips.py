"""Video files made by the test that needs them, and the bytes of files that are broken on purpose."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]


def moving(n: int, height: int = 120, width: int = 160) -> U8:
    """Picture n: a white square that moves over a grey gradient."""
    picture = np.broadcast_to(np.linspace(40, 120, width).astype(np.uint8)[None, :, None], (height, width, 3)).copy()
    x = 4 * n % (width - 20)
    picture[20:40, x : x + 20] = 255
    return picture


def write_clip(path: Path, count: int = 30, fps: float = 15.0, height: int = 120, width: int = 160) -> Path:
    """A motion-JPEG AVI (or MPEG-4 when the name ends in .mp4) of `moving` pictures."""
    code = "mp4v" if path.suffix == ".mp4" else "MJPG"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), fps, (width, height))
    assert writer.isOpened()
    for n in range(count):
        writer.write(moving(n, height, width))
    writer.release()
    return path


def write_mjpeg(path: Path, sizes: list[tuple[int, int]], each: int = 5) -> Path:
    """A bare motion-JPEG stream whose pictures change their size (height, width) on the way."""
    with path.open("wb") as file:
        for height, width in sizes:
            for n in range(each):
                file.write(cv2.imencode(".jpg", moving(n, height, width))[1].tobytes())
    return path


def write_raw_avi(path: Path, picture: U8, count: int = 5, *, bottom_up: bool = True) -> Path:
    """An AVI of uncompressed BGR rows (BITMAPINFOHEADER), last row first or first row first."""
    height, width = picture.shape[:2]
    stride = (width * 3 + 3) // 4 * 4
    rows = np.zeros((height, stride), np.uint8)
    rows[:, : width * 3] = picture.reshape(height, -1)
    data = (rows[::-1] if bottom_up else rows).tobytes()
    signed = height if bottom_up else -height
    form = struct.pack("<IiiHHIIiiII", 40, width, signed, 1, 24, 0, len(data), 0, 0, 0, 0)
    stream = struct.pack(
        "<4s4sIHHIIIIIIIIhhhh", b"vids", b"DIB ", 0, 0, 0, 0, 1, 10, 0, count, len(data), 0, 0, 0, 0, width, height
    )
    main = struct.pack("<14I", 100_000, 0, 0, 0x10, count, 0, 1, len(data), width, height, 0, 0, 0, 0)
    strl = _list(b"strl", _chunk(b"strh", stream) + _chunk(b"strf", form))
    header = _list(b"hdrl", _chunk(b"avih", main) + strl)
    movie = _list(b"movi", b"".join(_chunk(b"00db", data) for _ in range(count)))
    path.write_bytes(_chunk(b"RIFF", b"AVI " + header + movie))
    return path


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _list(name: bytes, data: bytes) -> bytes:
    return _chunk(b"LIST", name + data)

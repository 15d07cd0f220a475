"""``vedette probe URL``: can this source be opened, what is in it, and a picture to draw zones on."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from vedette.streamer.errors import SourceError, VedetteError
from vedette.streamer.log import redact
from vedette.streamer.sources import EndOfStream, Reader, Want, open_source

if TYPE_CHECKING:
    from vedette.streamer.sources.base import U8

#: Pictures that are timed for the measured rate.
TIMED = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette probe`` takes."""
    parser.add_argument("url", help="rtsp(s)://, http(s)://, a path, /dev/video0 or gst: pipeline")
    parser.add_argument("--snapshot", type=Path, metavar="FILE", help="save a picture with a grid (.jpg or .png)")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="give up after S seconds (default 10)")
    parser.add_argument("--transport", choices=("tcp", "udp"), default="tcp", help="for RTSP (default tcp)")
    parser.add_argument("--format", choices=("text", "json"), default="text")


def run(args: argparse.Namespace) -> int:
    """Print what the source is. Exit 4 with one clear line when it cannot be opened or gives no picture."""
    try:
        found, picture = probe(args.url, args.timeout, args.transport)
        if args.snapshot is not None:
            save_snapshot(args.snapshot, picture)
    except VedetteError as error:
        print(f"vedette probe: {redact(str(error))}", file=sys.stderr)
        return error.exit_code
    if args.format == "json":
        print(json.dumps(found.as_json() | ({"snapshot": str(args.snapshot)} if args.snapshot else {})))
    else:
        print(found.as_text())
        if args.snapshot is not None:
            print(f"snapshot    {args.snapshot}  (the grid's numbers are the coordinates of zones and lines)")
    return 0


@dataclass(frozen=True, slots=True)
class Found:
    """What a source is. fps is measured for live sources, what the file says otherwise; None when unknown."""

    source: str
    codec: str
    width: int
    height: int
    fps: float | None
    claimed_fps: float | None
    open_s: float
    first_frame_s: float

    def as_json(self) -> dict[str, object]:
        """Everything, under the names of the fields."""
        return {name: getattr(self, name) for name in self.__slots__}

    def as_text(self) -> str:
        """One fact a line."""
        rate = "unknown" if self.fps is None else f"{self.fps:.2f} pictures a second"
        if self.claimed_fps and self.fps and abs(self.claimed_fps - self.fps) > 0.1 * self.fps:
            rate += f" (it claims {self.claimed_fps:.2f})"
        return "\n".join(
            (
                f"source      {self.source}",
                f"codec       {self.codec}",
                f"size        {self.width}x{self.height}",
                f"rate        {rate}",
                f"first frame {self.first_frame_s:.2f} s after the start ({self.open_s:.2f} s to open)",
            )
        )


def probe(url: str, timeout_s: float, transport: str) -> tuple[Found, U8]:
    """Open ``url``, look at it for a moment; what was found, and a picture u8 [H,W,3]. Raises SourceError, ConfigError."""
    if not (math.isfinite(timeout_s) and timeout_s > 0):
        raise SourceError(f"--timeout: needs a positive number of seconds, got {timeout_s}")
    want = Want(
        transport="udp" if transport == "udp" else "tcp",
        open_timeout_s=timeout_s,
        read_timeout_s=timeout_s,
        analyze_s=min(2.0, timeout_s),
    )
    began = time.monotonic()
    reader = open_source(url, want)
    try:
        opened = time.monotonic()
        try:
            stamps = [reader.grab()]
        except EndOfStream:
            raise SourceError(f"{url}: holds no picture that can be decoded") from None
        picture = reader.retrieve().copy()
        first = time.monotonic()
        _time_more(reader, stamps, began + timeout_s)
    finally:
        reader.close()
    info = reader.info
    claimed = info.fps or None
    found = Found(
        source=redact(url),
        codec=info.codec,
        width=picture.shape[1],
        height=picture.shape[0],
        fps=_rate(stamps) or claimed,
        claimed_fps=claimed,
        open_s=round(opened - began, 3),
        first_frame_s=round(first - began, 3),
    )
    return found, picture


def _time_more(reader: Reader, stamps: list[float], deadline: float) -> None:
    """Collect timestamps for a moment; a source that stops now has still been opened."""
    try:
        while len(stamps) < TIMED and time.monotonic() < deadline:
            stamps.append(reader.grab())
    except (EndOfStream, SourceError):
        return


def _rate(stamps: list[float]) -> float | None:
    """Pictures a second by the source's own timestamps; None without them."""
    steps = sorted(b - a for a, b in pairwise(stamps) if b > a)
    return round(1.0 / steps[len(steps) // 2], 3) if len(steps) >= 3 else None


def save_snapshot(path: Path, picture: U8) -> None:
    """Write the picture with a grid that is labelled in normalised coordinates. Raises SourceError."""
    import cv2

    from vedette.streamer.offline.grid import draw_grid

    if path.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise SourceError(f"--snapshot: needs a name that ends in .jpg or .png, got {path}")
    good, data = cv2.imencode(path.suffix.lower(), draw_grid(picture))
    if not good:
        raise SourceError(f"--snapshot: the picture cannot be encoded as {path.suffix}")
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise SourceError(f"--snapshot: {path}: {error.strerror}") from error

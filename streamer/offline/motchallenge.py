"""MOTChallenge text files: detections and seqinfo in, tracks out, a frame at a time.

A line is ``frame,id,x,y,w,h,conf[,...]`` with 1-based frames and pixels. Reading is a stream: a frame is
handed over when the first line of a later one arrives, so nothing that uses it can look ahead. Lines
that cannot be used are reported as ``file:line: rule, got text`` and skipped.
"""

from __future__ import annotations

import configparser
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from vedette.engines.api import Detections
from vedette.streamer.errors import ConfigError
from vedette.streamer.types import Tracks

Report = Callable[[str], None]
#: No picture is so large, pixels; beyond it float32 overflows.
LARGEST = 1e9


@dataclass(frozen=True, slots=True)
class SeqInfo:
    """What a ``seqinfo.ini`` says of a sequence. length: frames, 0 when the file does not say."""

    name: str
    frame_rate_hz: float
    length: int
    width_px: int
    height_px: int

    @property
    def aspect(self) -> float:
        """Width / height of the pictures."""
        return self.width_px / self.height_px


def read_seqinfo(path: Path) -> SeqInfo:
    """The SeqInfo in ``path``; raises ConfigError naming the key that is missing or wrong."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            parser.read_file(file)
    except (OSError, configparser.Error) as error:
        raise ConfigError(f"{path}: needs to be a readable seqinfo.ini, got {error}") from error
    if not parser.has_section("Sequence"):
        raise ConfigError(f"{path}: needs a section [Sequence], got {parser.sections()}")
    part = parser["Sequence"]

    def number(key: str, least: float, default: float | None = None) -> float:
        text = part.get(key)
        if text is None and default is not None:
            return default
        try:
            value = float(text) if text is not None else math.nan
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= least):
            raise ConfigError(f"{path}: {key}: needs a number from {least:g} on, got {text!r}")
        return value

    return SeqInfo(
        name=part.get("name", path.parent.name),
        frame_rate_hz=number("frameRate", 1e-3),
        length=int(number("seqLength", 0, 0)),
        width_px=int(number("imWidth", 1)),
        height_px=int(number("imHeight", 1)),
    )


def parse_line(text: str) -> tuple[int, float, float, float, float, float]:
    """``frame, x, y, w, h, conf`` of a line; a missing confidence is 1. Raises ValueError with the rule."""
    parts = text.replace(" ", ",").split(",") if "," not in text else text.split(",")
    if len(parts) < 6:
        raise ValueError("needs frame,id,x,y,w,h[,conf]")
    try:
        frame, values = float(parts[0]), [float(p) for p in parts[2:7]]
    except ValueError as error:
        raise ValueError("needs numbers") from error
    if not frame.is_integer() or frame < 1 or frame > 2**53:
        raise ValueError("needs a frame number from 1 on")
    x, y, w, h, conf = values if len(values) == 5 else [*values, 1.0]
    if not all(abs(v) <= LARGEST for v in (x, y, w, h, conf)):  # NaN fails, too
        raise ValueError(f"needs finite numbers up to {LARGEST:.0e}")
    if w <= 0 or h <= 0:
        raise ValueError("needs a width and a height above 0")
    return int(frame), x, y, w, h, conf


def read_frames(
    lines: Iterable[str], info: SeqInfo, report: Report, *, where: str, label: int = 0
) -> Iterator[tuple[int, Detections]]:
    """(frame, Detections) for every frame of the sequence that can hold tracks, in order, empty ones included.

    Frames count from 1 to ``info.length`` (to the last line when that is 0). A line that is malformed,
    goes back to an earlier frame, or lies beyond the length is reported and skipped. where: the name that
    reports begin with. label: what all detections are.
    """
    current, held = 1, list[tuple[float, ...]]()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            frame, *box = parse_line(text)
            if frame < current:
                raise ValueError(f"needs frames in order (now at {current})")
            if info.length and frame > info.length:
                raise ValueError(f"needs a frame up to seqLength {info.length}")
        except ValueError as error:
            report(f"{where}:{number}: {error}, got {text[:80]!r}")
            continue
        while current < frame:
            yield current, _detections(held, info, label)
            # A gap of more than a minute holds no track: do not count through it.
            idle = not held and frame - current > 60 * info.frame_rate_hz
            current, held = frame if idle else current + 1, []
        held.append(tuple(box))
    yield current, _detections(held, info, label)
    if info.length:
        for frame in range(current + 1, info.length + 1):
            yield frame, Detections.empty()


def _detections(held: Sequence[tuple[float, ...]], info: SeqInfo, label: int) -> Detections:
    if not held:
        return Detections.empty()
    table = np.array(held, np.float64)
    size = np.array([info.width_px, info.height_px] * 2)
    xyxy = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1) / size
    return Detections(xyxy.astype(np.float32), table[:, 4].astype(np.float32), np.full(len(table), label, np.int32))


def write_tracks(file: TextIO, frame: int, tracks: Tracks, width_px: int, height_px: int) -> int:
    """Write a line for each track given, ``frame,id,x,y,w,h,conf,-1,-1,-1`` in pixels; how many were written."""
    size = np.array([width_px, height_px] * 2)
    for number, box, score in zip(
        tracks.id.tolist(), (tracks.xyxy * size).tolist(), tracks.score.tolist(), strict=True
    ):
        x1, y1, x2, y2 = box
        file.write(f"{frame},{number},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.4f},-1,-1,-1\n")
    return len(tracks)


def reportable(tracks: Tracks) -> Tracks:
    """The tracks a result file holds: confirmed, and seen in this very frame."""
    return tracks[tracks.confirmed & (tracks.detection >= 0)]

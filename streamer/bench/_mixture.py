"""Clips for ``vedette bench``: the same scene busy and still, at the rate of the load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vedette.streamer.errors import SourceError, VedetteError
from vedette.streamer.sources import file
from vedette.streamer.sources.base import EndOfStream, Want

#: Seconds of clip that are played in a loop, at most.
CLIP_S = 20.0
#: How often a clip of H.264 repeats itself before it ends: the end of a file is not what is measured.
TURNS = 6
#: Noise of a sensor by day, grey levels.
NOISE_LEVELS = 3.0
#: Width and height of what cameras send.
SIZE_WH = (1280, 720)
#: Seconds from one keyframe to the next, as cameras are usually set.
KEYFRAME_S = 2.0


def ask_peer(python: str, job: dict[str, Any], timeout_s: float = 600.0) -> dict[str, Any]:
    """What ``pipeline_peers.py`` answers under another interpreter. Raises VedetteError with its last words."""
    script = Path(__file__).with_name("pipeline_peers.py")
    done = subprocess.run(
        [python, str(script)], input=json.dumps(job), capture_output=True, text=True, check=False, timeout=timeout_s
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise VedetteError(f"{python}: {' '.join(done.stderr.strip().splitlines()[-1:]) or done.returncode}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def prepare(source: Path, target: Path, fps: float, *, still: bool, python: str | None) -> str:
    """Make the clip ``target``; its codec: h264 where ``python`` has PyAV, else what OpenCV can write."""
    if python is not None:
        job = {
            "loop": "encode", "source": str(source), "target": str(target), "fps": fps, "size": SIZE_WH, "still": still,
            "noise": NOISE_LEVELS, "count": round(CLIP_S * fps), "gop": round(KEYFRAME_S * fps),
            "turns": TURNS,
        }  # fmt: skip
        try:
            return str(ask_peer(python, job)["codec"])
        except VedetteError as error:
            print(f"no H.264 ({error}): MPEG-4", file=sys.stderr, flush=True)
    recode(source, target, fps, still=still, size_wh=SIZE_WH)
    return "mpeg4"


def mixture(busy: Path, still: Path, share: float) -> list[Path]:
    """The order in which cameras take clips: ``share`` of any run of cameras is busy, the first one always."""
    order, owed = [], 1.0
    for _ in range(256):
        order.append(busy if owed >= 1.0 - 1e-9 else still)
        owed += share - (1.0 if order[-1] is busy else 0.0)
    return order


def recode(
    source: Path, target: Path, fps: float, *, still: bool = False, size_wh: tuple[int, int] | None = None
) -> Path:
    """At most `CLIP_S` of ``source`` as MPEG-4 whose header says ``fps``, so that each picture is one of the load.

    still: its first picture all the time, each time with `NOISE_LEVELS` of a sensor's noise.
    """
    import cv2

    reader = file.KIND.open(str(source), Want())
    writer: cv2.VideoWriter | None = None
    first: NDArray[np.uint8] | None = None
    rng = np.random.default_rng(1)
    count = 0
    try:
        while count < CLIP_S * fps:
            if still and first is not None:
                picture = np.clip(first + rng.normal(0, NOISE_LEVELS, first.shape), 0, 255).astype(np.uint8)
            else:
                try:
                    reader.grab()
                except EndOfStream:
                    break
                picture = reader.retrieve()
                if size_wh is not None:
                    picture = np.asarray(cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
                first = picture.copy() if first is None else first
            if writer is None:
                size = (picture.shape[1], picture.shape[0])
                writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
            writer.write(picture)
            count += 1
    finally:
        reader.close()
        if writer is not None:
            writer.release()
    if count == 0:
        raise SourceError(f"{source}: holds no picture that can be decoded")
    return target

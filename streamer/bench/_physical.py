"""What no program of this kind can do without on this machine: the floor that ``vedette bench`` measures shares of."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from vedette.engines.detector import Detector
from vedette.streamer.config.schema import EngineSection
from vedette.streamer.infer.engine import open_engine
from vedette.streamer.sources import file
from vedette.streamer.sources.base import EndOfStream, Want

#: Multiply-adds of the convolutions of a shipped network for one picture of 416x256, by the SHA-256 of its file.
MULTIPLY_ADDS = {"224e6cb01fe6825ea376278c0ea2715db299558cfd9567ac99e5b03cf80de73f": 1_272_560_640}


def limits_of(busy: Path, still: Path) -> dict[str, Any]:
    """CPU microseconds a picture: decoding each clip and nothing else, and the detector's arithmetic at the speed of a
    matrix product on one core."""
    engine = open_engine(EngineSection())
    with closing(engine):
        adds = MULTIPLY_ADDS.get(engine.spec.sha256) if isinstance(engine, Detector) else None
    flop_per_s = gemm_flop_per_cpu_s()
    return {
        "decode_busy_us": round(decode_us(busy), 1),
        "decode_still_us": round(decode_us(still), 1),
        "gemm_flop_per_cpu_s": round(flop_per_s),
        "detector_us": None if adds is None else round(2e6 * adds / flop_per_s, 1),
    }


def share_of_limits(cpu_s_per_camera_hour: float, limits: dict[str, Any], fps: float, busy: float) -> dict[str, float]:
    """The floor's part of what was spent: decoding alone, and with the detector on every busy picture."""
    decode_us = busy * limits["decode_busy_us"] + (1 - busy) * limits["decode_still_us"]
    hour = 3600 * fps / 1e6
    shares = {"decode_only": decode_us * hour / cpu_s_per_camera_hour}
    if limits["detector_us"] is not None:
        shares["decode_and_detector"] = (decode_us + busy * limits["detector_us"]) * hour / cpu_s_per_camera_hour
    return {name: round(share, 3) for name, share in shares.items()}


def decode_us(clip: Path) -> float:
    """CPU microseconds a picture of decoding it, every picture, and nothing else."""
    reader, count, began_s = file.KIND.open(str(clip), Want()), 0, time.process_time()
    with closing(reader):
        while count < 300:
            try:
                reader.grab()
            except EndOfStream:
                break
            count += 1
    return (time.process_time() - began_s) * 1e6 / max(1, count)


def gemm_flop_per_cpu_s() -> float:
    """FLOP that a matrix product of single precision gets out of one second of a core."""
    a = np.random.default_rng(1).random((1024, 1024), np.float32)
    return 2 * 1024**3 / min(_cpu_s(lambda: a @ a) for _ in range(10))


def _cpu_s(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began

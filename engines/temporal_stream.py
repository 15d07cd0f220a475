"""One stream of very many frames: does a frame's time, the memory or the error drift? The law says none of them does.

Time is the median of every slice's steps, so that a busy second of the machine is not a trend; memory is what the process holds more
after a slice than before it, summed, because the offline twin that checks in between has torch take some, too. A trend is the
median of the slopes between all pairs of slices (Theil 1950) with its 95 % interval (Sen 1968).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vedette.engines.models.rift import RIFT, Clip
from vedette.engines.models.rift_export import export_rift
from vedette.engines.runtimes.ringstate import RingSession
from vedette.engines.temporal import TemporalEngine, TemporalFrame
from vedette.engines.temporal_spec import RiftConfig

#: Small, because a million frames have to pass in minutes; the code that runs is the same.
STREAM = RiftConfig(
    d_model=64,
    heads=4,
    kv_heads=2,
    layers=2,
    window=32,
    ffn=128,
    half_lives_s=(1.0, 4.0),
    latents=0,
    tracks=1,
    context=0,
    token_dim=0,
)
FRAME_S = 0.1
#: Slices of a run, each a point of the trend.
SLICES = 40
#: Frames that the offline twin sees: the receptive field and 20 half-lives of the slower fold.
TWIN_FRAMES = STREAM.receptive_field + 800
#: The offline twin checks every so many slices.
CHECKED = 4
#: What a flat run may gain from its first slice to its last: time in percent, memory in MiB.
LIMITS = {"time_percent": 5.0, "memory_mib": 2.0}
#: What the law allows between a step and the offline pass.
ERROR = 1e-5


@dataclass(frozen=True, slots=True)
class Trend:
    """What a series gains from its first point to its last: the robust estimate and its 95 % interval, in its own unit."""

    gain: float
    low: float
    high: float

    def verdict(self, limit: float) -> str:
        """``flat`` when the series gains no more than ``limit`` with 95 % confidence, ``grows`` when it gains more, else ``undecided``."""
        return "flat" if self.high <= limit else "grows" if self.low > limit else "undecided"


def trend(values: Sequence[float]) -> Trend:
    """Theil-Sen slope over equally spaced points, times the length of the series."""
    y = np.asarray(values, np.float64)
    n = len(y)
    i, j = np.triu_indices(n, 1)
    slopes = np.sort((y[j] - y[i]) / (j - i)) * (n - 1)
    half = 1.96 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18.0)
    low = max(0, math.floor((len(slopes) - half) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + half) / 2))
    return Trend(float(np.median(slopes)), float(slopes[low]), float(slopes[high]))


def stream(steps: int, slices: int = SLICES) -> dict[str, Any]:
    """Run one stream of ``steps`` frames through the engine; rows a slice, trends, and a verdict a quantity."""
    run = _Run()
    run.slice(min(steps // slices, 2000))
    run.error()
    rows: list[dict[str, Any]] = []
    held = 0.0
    for i in range(1, slices + 1):
        before = _resident_mib()
        row = {"us_per_step": round(run.slice(steps // slices), 2), "steps": run.done, "rss_mib": _resident_mib()}
        held = row["held_mib"] = round(held + row["rss_mib"] - before, 2)
        rows.append(row | ({"error": run.error()} if i % CHECKED == 0 else {}))
    times, errors = [r["us_per_step"] for r in rows], [r["error"] for r in rows if "error" in r]
    usual = float(np.median(times))
    return {
        "model": {"d_model": STREAM.d_model, "layers": STREAM.layers, "window": STREAM.window, "folds": STREAM.folds},
        "steps": run.done,
        "us_per_step": round(usual, 2),
        "time_percent": _judged("time_percent", [100.0 * t / usual for t in times]),
        "memory_mib": _judged("memory_mib", [r["held_mib"] for r in rows]),
        "error": {"largest": max(errors), "limit": ERROR, "verdict": "equal" if max(errors) <= ERROR else "differs"},
        "slices": rows,
    }


def _judged(name: str, values: Sequence[float]) -> dict[str, Any]:
    found = trend(values)
    interval = [round(found.low, 3), round(found.high, 3)]
    return {
        "gain": round(found.gain, 3),
        "interval_95": interval,
        "limit": LIMITS[name],
        "verdict": found.verdict(LIMITS[name]),
    }


class _Run:
    """The engine, its offline twin, and the tokens that both see, over and over."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = RIFT(STREAM).eval()
        for layer in self.model.layers:
            torch.nn.init.constant_(layer.fold_gate, 0.5)
        self.engine = TemporalEngine(RingSession(*export_rift(STREAM, self.model.weights()), 1))
        rng = np.random.default_rng(0)
        self.tokens = rng.normal(size=(TWIN_FRAMES, 1, STREAM.d_model)).astype(np.float32)
        self.done = 0
        self.latents = np.zeros(0, np.float32)

    def slice(self, steps: int) -> float:
        """That many frames; the median step in microseconds."""
        here, took = np.ones(1, np.bool_), np.empty(steps)
        for i in range(steps):
            frame = TemporalFrame(0, self.done * FRAME_S, self.tokens[self.done % TWIN_FRAMES], here)
            start = time.perf_counter()
            answer = self.engine.step([frame])[0]
            took[i] = time.perf_counter() - start
            self.done += 1
        self.latents = answer.latents
        return float(np.median(took)) * 1e6

    def error(self) -> float:
        """Largest difference of the newest answer from the offline pass over the frames before it."""
        index = np.arange(self.done - min(self.done, TWIN_FRAMES), self.done)
        clip = Clip(
            torch.from_numpy(self.tokens[index % TWIN_FRAMES])[None],
            torch.ones(1, len(index), 1, dtype=torch.bool),
            torch.from_numpy(index * FRAME_S)[None],
        )
        with torch.inference_mode():
            return float(np.abs(self.model(clip).y[0, -1].numpy() - self.latents).max())


def _resident_mib() -> float:
    """Memory this process holds now; the peak of the whole run where the system does not say."""
    status = Path("/proc/self/statm")
    if status.exists():
        return round(int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20, 2)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

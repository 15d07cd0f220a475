"""What the infer process tells of itself: counters for the heartbeat and one line a camera every ten seconds."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Samples that a percentile is taken over.
SAMPLES = 512


@dataclass(slots=True)
class _Camera:
    frames: int = 0
    latency_ms: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))


class InferStats:
    """Counts since the start, and a window since the last `lines`. Time is an argument."""

    def __init__(self, now_s: float) -> None:
        self.totals: Counter[str] = Counter(frames=0, skipped=0, batches=0, events=0)
        self._engine_ms: deque[float] = deque(maxlen=SAMPLES)
        self._cameras: dict[str, _Camera] = {}
        self._since_s = now_s
        self._drops: dict[tuple[str, str], int] = {}

    def batch(self, size: int, looked: int, engine_ms: float) -> None:
        """Pictures that were judged together, and how many of them the engine looked at; 0: it was not called."""
        self.totals["frames"] += size
        self.totals["skipped"] += size - looked
        if looked:
            self.totals["batches"] += 1
            self._engine_ms.append(engine_ms)

    def frame(self, camera: str, latency_ms: float) -> None:
        """One picture judged, ``latency_ms`` after it was decoded."""
        entry = self._cameras.setdefault(camera, _Camera())
        entry.frames += 1
        entry.latency_ms.append(latency_ms)

    def forget(self, camera: str) -> None:
        """The camera was removed."""
        self._cameras.pop(camera, None)

    def report(self, drops: Mapping[tuple[str, str], int]) -> dict[str, Any]:
        """Plain numbers since the start, for the heartbeat."""
        batches = self.totals["batches"]
        per_camera: dict[str, dict[str, int]] = {}
        for (camera, reason), count in sorted(drops.items()):
            per_camera.setdefault(camera, {})[reason] = count
        return {
            "frames": self.totals["frames"],
            "skipped": self.totals["skipped"],
            "batches": batches,
            "batch_mean": round((self.totals["frames"] - self.totals["skipped"]) / batches, 2) if batches else 0.0,
            "engine_ms_p50": _percentile(self._engine_ms, 50),
            "events": self.totals["events"],
            "dropped": sum(drops.values()),
            "drops": per_camera,
        }

    def lines(self, now_s: float, drops: Mapping[tuple[str, str], int]) -> list[str]:
        """The canonical line of every camera over the window that ends now; a new window begins."""
        window_s = max(now_s - self._since_s, 1e-3)
        lines = []
        for camera, entry in sorted(self._cameras.items()):
            fresh = {
                reason: count - self._drops.get((name, reason), 0)
                for (name, reason), count in drops.items()
                if name == camera and count > self._drops.get((name, reason), 0)
            }
            arrived = entry.frames + sum(fresh.values())
            dropped = " ".join(f"{reason}={count}" for reason, count in sorted(fresh.items())) or "none"
            lines.append(
                f"{camera}: in {arrived / window_s:.1f} fps, out {entry.frames / window_s:.1f} fps, dropped {dropped}, "
                f"latency p50 {_percentile(entry.latency_ms, 50):.0f} ms p99 {_percentile(entry.latency_ms, 99):.0f} ms"
            )
            entry.frames = 0
            entry.latency_ms.clear()
        self._since_s, self._drops = now_s, dict(drops)
        return lines


def _percentile(samples: deque[float], percent: float) -> float:
    return round(float(np.percentile(samples, percent)), 2) if samples else 0.0

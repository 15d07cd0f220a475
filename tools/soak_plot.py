"""The picture of a soak: memory, descriptors and threads of each process, and the latency, over the minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

Line = Sequence[tuple[float, float]]
_WIDTH, _HEIGHT, _LEFT, _TOP, _BELOW = 1100, 260, 70, 34, 26
_COLOURS = [
    *((180, 119, 31), (14, 127, 255), (44, 160, 44), (40, 39, 214), (189, 103, 148), (75, 86, 140)),
    *((194, 119, 227), (127, 127, 127), (34, 189, 188), (207, 190, 23), (0, 0, 0)),
]
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw(samples: Sequence[Mapping[str, Any]], medians: Line, path: Path) -> None:
    """Write a PNG of four panels."""
    names = sorted({name for sample in samples for name in sample["processes"]})
    began_s = samples[0]["at_s"]

    def lines(key: str) -> dict[str, Line]:
        return {
            name: [((s["at_s"] - began_s) / 60, s["processes"][name][key]) for s in samples if name in s["processes"]]
            for name in names
        }

    panels = [
        _panel("memory of each process (RSS), MB", lines("rss_mb")),
        _panel("descriptors", lines("fds")),
        _panel("threads", lines("threads")),
        _panel(
            "decoded picture to subscriber, median ms", {"latency": [((t - began_s) / 60, ms) for t, ms in medians]}
        ),
    ]
    cv2.imwrite(str(path), np.vstack(panels))


def _panel(title: str, lines: Mapping[str, Line]) -> np.ndarray:
    picture = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    most_x = max((x for line in lines.values() for x, _ in line), default=1.0) or 1.0
    most_y = max((y for line in lines.values() for _, y in line), default=1.0) * 1.1 or 1.0
    right, floor = _WIDTH - 150, _HEIGHT - _BELOW

    def at(x: float, y: float) -> tuple[int, int]:
        return round(_LEFT + x / most_x * (right - _LEFT)), round(floor - y / most_y * (floor - _TOP))

    cv2.putText(picture, title, (_LEFT, 20), _FONT, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        level = at(0, share * most_y)[1]
        cv2.line(picture, (_LEFT, level), (right, level), (225, 225, 225), 1)
        cv2.putText(picture, f"{share * most_y:.4g}", (8, level + 4), _FONT, 0.38, (90, 90, 90), 1, cv2.LINE_AA)
        below = at(share * most_x, 0)[0]
        cv2.putText(
            picture, f"{share * most_x:.3g} min", (below - 20, _HEIGHT - 8), _FONT, 0.38, (90, 90, 90), 1, cv2.LINE_AA
        )
    for i, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        points = np.array([at(x, y) for x, y in line], np.int32)
        cv2.polylines(picture, [points], False, colour, 1, cv2.LINE_AA)
        cv2.putText(picture, name, (right + 12, _TOP + 8 + 18 * i), _FONT, 0.42, colour, 1, cv2.LINE_AA)
    return picture

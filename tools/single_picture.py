"""What the evaluations share: one picture through an engine as the daemon would show it, and a report to a file or to stdout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import Batch, Detections, Engine, Letterbox
from vedette.streamer.capture.letterbox import draw_letterbox


def batch_of(canvas: NDArray[np.uint8], letterbox: Letterbox, time_s: float = 0.0, *, first: bool = False) -> Batch:
    """A batch of one canvas [H,W,3]. first: nothing of this camera was seen before it."""
    return Batch(canvas[None], (letterbox,), np.zeros(1, np.int32), np.array([first]), np.array([time_s]))


def detect_in(engine: Engine, picture: NDArray[np.uint8]) -> Detections:
    """What the engine finds in a picture u8 [H,W,3] of any size, drawn onto its canvas as a capture process does."""
    canvas = np.empty((*engine.spec.input_hw, 3), np.uint8)
    return engine.infer(batch_of(canvas, draw_letterbox(picture, canvas), first=True)).detections[0]


def write_report(report: dict[str, Any], out: Path | None) -> None:
    """JSON to ``out``, or to stdout without it."""
    text = json.dumps(report, indent=1)
    if out:
        out.write_text(text + "\n")
    else:
        print(text)

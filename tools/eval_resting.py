"""Does a camera that rests miss anything? The events of clips, read in full and read by a camera that may rest.

    python tools/eval_resting.py --video clip.mp4 [clip.mp4 ...]

Clips must be H.264 or HEVC, or the camera has nothing to rest on (said in ``share_rested``). Each is read twice, once
without and once with resting, through the same detector, tracker and rules in this process; nothing depends on timing.
An event is missed when no event of the same rule begins within ``--within`` seconds of it. JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vedette.engines.api import Batch
from vedette.streamer.capture.letterbox import draw_letterbox
from vedette.streamer.capture.pacing import Sampler
from vedette.streamer.capture.picturemeter import PictureMeter
from vedette.streamer.capture.resting import Rest
from vedette.streamer.config.schema import CameraDefaults, EngineSection
from vedette.streamer.infer.engine import open_engine
from vedette.streamer.infer.incidents import Moment
from vedette.streamer.infer.pipeline import Pipeline
from vedette.streamer.infer.stillness import SKIP_STILL_S, SkipStill
from vedette.streamer.sources import file
from vedette.streamer.sources.base import EndOfStream, Want

SECTION = {
    "zones": {"all": [[0, 0], [1, 0], [1, 1], [0, 1]], "low": [[0, 0.5], [1, 0.5], [1, 1], [0, 1]]},
    "lines": {"upright": [[0.5, 0.0], [0.5, 1.0]], "level": [[0.0, 0.5], [1.0, 0.5]]},
    "rules": [
        {"kind": "zone", "zone": "all"},
        {"kind": "zone", "zone": "low", "name": "low"},
        {"kind": "loiter", "zone": "all", "seconds": 5},
        {"kind": "line", "line": "upright"},
        {"kind": "line", "line": "level", "name": "level"},
    ],
}


def watch(clip: Path, fps: float, *, rest: bool) -> tuple[list[tuple[str, float]], int, int]:
    """(rule, time) of every event that began, pictures that were read, and those that were decoded."""
    eyes = SkipStill(open_engine(EngineSection()), SKIP_STILL_S)
    pipeline, meter, sampler = Pipeline("eval", "eval", eyes.spec.labels), PictureMeter(), Sampler(fps)
    pipeline.configure("cam", CameraDefaults.model_validate(SECTION))
    starts: list[tuple[str, float]] = []
    read = decoded = 0
    calm, last = False, None
    with closing(eyes), closing(file.KIND.open(str(clip), Want(rest=rest))) as reader:
        resting = Rest(reader, wanted=rest)
        while True:
            try:
                time_s = reader.grab()
            except EndOfStream:
                break
            read, decoded = read + 1, decoded + resting.fresh
            if not (sampler.takes(time_s) or (resting.fresh and resting.canvas is not None)):
                continue
            if resting.fresh:
                canvas = np.zeros((*eyes.spec.input_hw, 3), np.uint8)
                box = draw_letterbox(reader.retrieve(), canvas)
                stats = meter.measure(canvas, box, time_s)
                resting.saw(canvas, time_s, calm=calm)
                last = box, stats
            else:
                again = resting.again(time_s, calm=calm)
                if again is None or last is None:
                    continue
                canvas, (box, stats) = again, last
            batch = Batch(canvas[None], (box,), np.zeros(1, np.int32), np.array([read == 1]), np.array([time_s]))
            found = eyes.infer(batch).detections[0]
            aspect = box.source_w / box.source_h
            moment = Moment("cam", 1, read, round(time_s * 1e9), time_s, time_s, aspect, stats)
            outcome = pipeline.step([moment], [found])[0]
            eyes.settle(0, settled=outcome.settled)
            calm = outcome.settled
            starts += [(event.rule, round(time_s, 2)) for event in outcome.events if event.phase == "start"]
    return starts, read, decoded


def missed(wanted: list[tuple[str, float]], found: list[tuple[str, float]], within_s: float) -> list[tuple[str, float]]:
    """Events of ``wanted`` without a partner of their own in ``found``, nearest first."""
    left = list(found)
    lost = []
    for rule, time_s in wanted:
        near = [event for event in left if event[0] == rule and abs(event[1] - time_s) <= within_s]
        if near:
            left.remove(min(near, key=lambda event: abs(event[1] - time_s)))
        else:
            lost.append((rule, time_s))
    return lost


def main() -> int:
    """Compare; exit 1 when an event is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", type=Path, nargs="+", required=True)
    parser.add_argument("--fps", type=float, default=10.0)
    parser.add_argument("--within", type=float, default=2.5, help="seconds by which an event may move (default 2.5)")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    rows: list[dict[str, Any]] = []
    for clip in args.video:
        full, read, _ = watch(clip, args.fps, rest=False)
        rested, _, decoded = watch(clip, args.fps, rest=True)
        row = {
            "clip": clip.name, "pictures": read, "share_rested": round(1 - decoded / max(1, read), 3),
            "events": len(full), "events_rested": len(rested), "missed": missed(full, rested, args.within),
            "extra": missed(rested, full, args.within),
        }  # fmt: skip
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
    lost = sum(len(row["missed"]) for row in rows)
    print(json.dumps({"clips": rows, "missed": lost}, indent=2))
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())

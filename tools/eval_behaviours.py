"""All behaviour rules together at their shipped limits: false alarms an hour of camera, and one picture sheet a behaviour.

    python tools/eval_behaviours.py --data ../shared/data --out behaviours.json [--pictures DIR] [--real CLIP --alone S]

*Calm*: every clip of ``clips/`` (pedestrians, shop, road traffic; nobody fights, falls, runs, leaves something or touches the camera) through
detector, tracker, learned evidence and the rules `fight`, `fall`, `run`, `abandoned` and `tamper`, ten pictures a second. No alarm in so
few hours proves little: the rate that 95 of 100 such tests would have noticed (Poisson) is told beside it.

*Examples*: one clip a behaviour in which it happens, and when the rule told it, seconds after it had begun: a fight and a fall (both have
been trained on: `eval_events.py delay` and ``falls`` judge with held-out models), somebody who walks through a clip whose clock runs
faster, a lens that is covered, and with ``--real`` a clip in which something is really left, its owner gone at ``--alone``. With
``--pictures`` each leaves ``<behaviour>.jpg``, the snapshot with its reasons as the daemon would draw it, and
``<behaviour>-sheet.jpg``, the seconds around it. The clips show people: the pictures are for the eyes of who runs this only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from eval_tamper import FAULTS
from event_features import Variant, pictures

from vedette.engines.api import Batch, Engine
from vedette.streamer.alert import alert_from_event, rfc3339
from vedette.streamer.capture.letterbox import draw_letterbox
from vedette.streamer.capture.picturemeter import PictureMeter
from vedette.streamer.config.schema import CameraDefaults, EngineSection
from vedette.streamer.drawing import U8, draw_alert
from vedette.streamer.infer.engine import open_engine, open_stage
from vedette.streamer.infer.incidents import Moment
from vedette.streamer.infer.learned import EvidenceStage
from vedette.streamer.infer.motion import MotionEye
from vedette.streamer.infer.pipeline import Pipeline
from vedette.streamer.infer.trackstream import track_message
from vedette.streamer.offline.annotate import Annotator
from vedette.streamer.tracking.tracker import TrackerConfig

FPS = 10.0
BEHAVIOURS = ("fight", "fall", "run", "abandoned", "tamper")
SECTION = CameraDefaults.model_validate({"rules": [{"kind": kind} for kind in BEHAVIOURS]})
#: Walkers move as runners do when the clock runs so much faster; the lens is covered from this second on.
FASTER, COVERED_S, COVERED_FOR_S = 2.5, 8.0, 6.0
#: Pictures of a sheet, seconds from the alarm; and their width, pixels.
AROUND_S, TILE_PX = (-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0), 420

Shown = Iterator[tuple[float, U8]]


@dataclass(slots=True)
class Pass:
    """What a clip gave. alarms: (second, rule), drawn: the snapshot of the first alarm of what is looked for. film: annotated pictures."""

    seconds: float = 0.0
    alarms: list[tuple[float, str]] = field(default_factory=list)
    drawn: U8 | None = None
    film: list[tuple[float, U8]] = field(default_factory=list)


class Camera:
    """The whole path of one camera after another, with all rules."""

    def __init__(self, engine: Engine, stage: EvidenceStage | None) -> None:
        self._engine, self._stage = engine, stage

    def watch(self, shown: Shown, *, behaviour: str | None = None, film: bool = False) -> Pass:
        """Play pictures and their seconds. behaviour: whose first alarm is drawn; film: whether annotated pictures are kept."""
        spec, result = self._engine.spec, Pass()
        pipeline = Pipeline(
            "eval", "e", spec.labels, tracker=TrackerConfig.for_detector(spec.name), evidence=self._stage
        )
        pipeline.configure("c", SECTION)
        meter, eye, annotator = PictureMeter(), MotionEye(), Annotator({}, {})
        for number, (time_s, picture) in enumerate(shown):
            canvas = np.zeros((*spec.input_hw, 3), np.uint8)
            box = draw_letterbox(picture, canvas)
            batch = Batch(canvas[None], (box,), np.zeros(1, np.int32), np.array([number == 0]), np.array([time_s]))
            seen = self._engine.infer(batch)
            size = picture.shape[1], picture.shape[0]
            moment = Moment(
                "c", 0, number, round(time_s * 1e9), time_s, time_s, size[0] / size[1], meter.measure(canvas, box, time_s)
            )  # fmt: skip
            scene = eye.scene(batch, seen)
            (outcome,) = pipeline.step([moment], seen.detections, scene, eye.fields([0]))
            alerts = [alert_from_event(e, site="eval", stream=None, seq=1, prev=None) for e in outcome.events]
            for alert in alerts:
                annotator.take(alert, time_s)
                if alert["phase"] == "start":
                    result.alarms.append((round(time_s, 2), alert["rule"]))
                    if alert["rule"] == behaviour and result.drawn is None:
                        result.drawn = picture.copy()
                        draw_alert(result.drawn, alert)
            if film:
                message = track_message("eval", "e", moment, size, outcome.tracks, spec.labels)
                frame = np.asarray(
                    cv2.resize(picture, (TILE_PX * 2, round(TILE_PX * 2 * size[1] / size[0])), interpolation=cv2.INTER_AREA), np.uint8
                )  # fmt: skip
                annotator.draw(frame, message["tracks"], rfc3339(time_s)[17:23], time_s)
                result.film.append((time_s, np.asarray(cv2.resize(frame, None, fx=0.5, fy=0.5), np.uint8)))
            result.seconds = time_s
        if self._stage is not None:
            self._stage.forget("c")
        return result


def clip(path: Path, *, faster: float = 1.0, until_s: float = float("inf")) -> Shown:
    """A clip at FPS, on a clock that runs ``faster``."""
    for time_s, _, picture in pictures(path, FPS, Variant(speed=faster)):
        if time_s > until_s:
            return
        yield time_s, np.asarray(picture, np.uint8)


def covered(path: Path) -> Shown:
    """A clip whose lens is covered for a while."""
    for time_s, picture in clip(path):
        inside = COVERED_S <= time_s < COVERED_S + COVERED_FOR_S
        yield time_s, FAULTS["cover: 85 % from the left"](picture, round(time_s * FPS)) if inside else picture


def examples(data: Path, real: Path | None, alone_s: float) -> dict[str, tuple[Shown, float]]:
    """By behaviour: pictures, and when it begins, seconds; a sprint begins when the first walker is there."""
    found = {
        "fight": (clip(data / "fights" / "fight" / "fi144.mp4"), 0.0),
        "fall": (clip(data / "falls" / "subject1" / "Fall" / "13.mp4"), 0.4),
        "run": (clip(data / "clips" / "vtest.avi", faster=FASTER, until_s=12), 0.0),
        "tamper": (covered(data / "clips" / "Retail02_short.mp4"), COVERED_S),
    }
    return found | ({"abandoned": (clip(real), alone_s)} if real else {})


def sheet(film: list[tuple[float, U8]], at_s: float) -> U8:
    """The seconds around an alarm, two rows."""
    times = np.array([time_s for time_s, _ in film])
    tiles = [film[int(np.argmin(np.abs(times - at_s - ago_s)))][1] for ago_s in AROUND_S]
    half = len(tiles) // 2
    return np.vstack([np.hstack(tiles[:half]), np.hstack(tiles[half:])])


def evaluate(data: Path, folder: Path | None, real: Path | None, alone_s: float) -> dict[str, Any]:
    """Everything; pictures into ``folder`` when there is one."""
    from scipy.stats import chi2

    engine = open_engine(EngineSection())
    camera = Camera(engine, open_stage(EngineSection(), engine.spec, [SECTION], 1))
    happened: dict[str, Any] = {}
    for behaviour, (shown, begins_s) in examples(data, real, alone_s).items():
        result = camera.watch(shown, behaviour=behaviour, film=folder is not None)
        times = [time_s for time_s, rule in result.alarms if rule == behaviour]
        happened[behaviour] = {
            "begins_s": begins_s, "told_s": times, "after_s": round(times[0] - begins_s, 2) if times else None,
            "others": [a for a in result.alarms if a[1] != behaviour],
        }  # fmt: skip
        print(behaviour, happened[behaviour], file=sys.stderr, flush=True)
        if folder is not None and result.drawn is not None:
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{behaviour}.jpg"), result.drawn)
            cv2.imwrite(str(folder / f"{behaviour}-sheet.jpg"), sheet(result.film, times[0]))
    calm: dict[str, Any] = {}
    for path in sorted((data / "clips").iterdir()):
        result = camera.watch(clip(path))
        if result.seconds:
            calm[path.name] = {"seconds": round(result.seconds, 1), "alarms": result.alarms}
            print(path.name, calm[path.name], file=sys.stderr, flush=True)
    engine.close()
    hours = sum(entry["seconds"] for entry in calm.values()) / 3600
    counts = {rule: sum(a[1] == rule for entry in calm.values() for a in entry["alarms"]) for rule in BEHAVIOURS}
    return {
        "schema": "vedette.eval.behaviours/1",
        "calm": {
            "hours": round(hours, 4), "clips": calm,
            "false_alarms": {
                rule: {"count": n, "per_hour": round(n / hours, 2), "at_most_per_hour": round(float(chi2.ppf(0.95, 2 * n + 2)) / 2 / hours, 1)}
                for rule, n in counts.items()
            },
        },
        "examples": happened,
    }  # fmt: skip


def main() -> None:
    """Parse, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with clips/, fights/ and falls/")
    parser.add_argument("--out", type=Path, help="JSON here too")
    parser.add_argument("--pictures", type=Path, help="folder for the pictures of the examples")
    parser.add_argument("--real", type=Path, help="a clip in which something is really left")
    parser.add_argument("--alone", type=float, default=0.0, help="when its owner has gone, seconds")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    text = json.dumps(evaluate(args.data, args.pictures, args.real, args.alone), indent=1)
    if args.out:
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

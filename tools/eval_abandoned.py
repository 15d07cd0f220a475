"""How well the rules `abandoned` and `run` do on real backgrounds, one command.

    python tools/eval_abandoned.py --data ../shared/data --out abandoned.json [--real CLIP --put-down S --alone S]

*Scenes* (`abandoned_scenes`): cut-outs of bags (COCO pictures, GrabCut) are carried by somebody who really walks through an open
clip, until a moment when that person is about to walk on; there the bag stays. Then the whole path runs: detector, tracker,
`PictureMeter`, rule. Told are recall with its 95 % interval (Wilson) and the delay after the moment at which the rule should
speak (owner farther than ``distance``, or out of the picture, for ``seconds``). *Taken*: the same with the bag there from the
start and taken along; every alarm is false.

*False alarms*: the untouched pass of every clip (parked cars, tripods, cones, dropped clothes, people who stand), of
`abandoned` and of `run` with their default limits. *Runners*: the same clips with their clock running RUN_FASTER times as fast:
those who walk then move as fast as runners do, so `run` must speak about most who cross the picture.

*Real*: a clip in which somebody really leaves something, put down and left alone at those seconds; it is not in the data folder.
``--look DIR`` saves the picture of every alarm. The limits of the rule were set on these scenes and clips.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from abandoned_scenes import FPS, U8, Box, Plan, Sights, bag_cutouts, painter, plans
from single_picture import batch_of

from vedette.engines.api import Detections, Engine
from vedette.streamer.capture.letterbox import draw_letterbox
from vedette.streamer.capture.picturemeter import PictureMeter
from vedette.streamer.config.schema import CameraDefaults, EngineSection
from vedette.streamer.infer.engine import open_engine
from vedette.streamer.infer.incidents import Moment
from vedette.streamer.infer.pipeline import Pipeline
from vedette.streamer.tracking.tracker import TrackerConfig

SECONDS, DISTANCE, RUN_FASTER = 6.0, 1.5, 2.5
RULES = [
    {"kind": "abandoned", "seconds": SECONDS, "distance": DISTANCE},
    {"kind": "run"},
]


@dataclass
class Pass:
    """What a run over a clip gave. people: track -> picture -> box. alarms: (second, rule, explain, box).
    detections: by picture."""

    people: dict[int, Sights] = field(default_factory=dict)
    alarms: list[tuple[float, str, dict[str, Any], Box | None]] = field(default_factory=list)
    detections: list[Detections] = field(default_factory=list)
    seconds: float = 0.0


def clip_pictures(path: Path) -> list[U8]:
    """Every picture of a clip at FPS."""
    reader, number = cv2.VideoCapture(str(path)), 0
    kept: list[U8] = []
    fps = reader.get(cv2.CAP_PROP_FPS) or FPS
    while reader.grab():
        if number * FPS / fps >= len(kept):
            good, picture = reader.retrieve()
            if not good:
                break
            scale = min(1.0, 960 / picture.shape[1])
            kept.append(
                np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
            )
        number += 1
    return kept


def play(
    pictures: list[U8], engine: Engine, *, look: Path | None = None, faster: float = 1.0, known: list[Detections] | None = None,
) -> Pass:  # fmt: skip
    """Run the whole path over a clip. known: detections of the very same pictures."""
    height, width = engine.spec.input_hw
    tracker = TrackerConfig.for_detector(engine.spec.name)
    pipeline, meter, result = Pipeline("eval", "b", engine.spec.labels, tracker=tracker), PictureMeter(), Pass()
    pipeline.configure("cam", CameraDefaults.model_validate({"rules": RULES}))
    for number, picture in enumerate(pictures):
        time_s = number / FPS / faster
        canvas = np.zeros((height, width, 3), np.uint8)
        box = draw_letterbox(picture, canvas)
        batch = batch_of(canvas, box, time_s, first=number == 0)
        detections = engine.infer(batch).detections[0] if known is None else known[number]
        result.detections.append(detections)
        stats = meter.measure(canvas, box, time_s)
        aspect = picture.shape[1] / picture.shape[0]
        moment = Moment("cam", 0, number, round(time_s * 1e9), time_s, time_s, aspect, stats)
        (outcome,) = pipeline.step([moment], [detections])
        for i in np.flatnonzero(outcome.tracks.detection >= 0).tolist():
            if engine.spec.labels[int(outcome.tracks.label[i])] == "person":
                sides = tuple(float(v) for v in outcome.tracks.xyxy[i])
                result.people.setdefault(int(outcome.tracks.id[i]), {})[number] = sides
        for event in outcome.events:
            if event.phase == "start":
                result.alarms.append((time_s, event.rule, event.explain, event.box))
                if look is not None:
                    save(
                        look.with_name(f"{look.name}-{event.rule}-{time_s:05.1f}s.png"),
                        picture,
                        event.explain,
                        event.box,
                    )
    result.seconds = len(pictures) / FPS / faster
    return result


def save(path: Path, picture: U8, explain: dict[str, Any], box: Box | None) -> None:
    """The picture of an alarm, its box and its reasons."""
    shown = picture.copy()
    if box is not None:
        corners = [round(v * s) for v, s in zip(box, (shown.shape[1], shown.shape[0]) * 2, strict=True)]
        cv2.rectangle(shown, (corners[0], corners[1]), (corners[2], corners[3]), (48, 48, 230), 2)
    lines = [explain["condition"]]
    lines += [f"{c['what']}: {c['value']} {c['is']} {c['threshold']} {c['unit']}" for c in explain["checks"]]
    for row, line in enumerate(lines):
        for colour, thick in (((0, 0, 0), 3), ((60, 220, 250), 1)):
            cv2.putText(shown, line, (8, 20 + 18 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, thick, cv2.LINE_AA)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), shown)


def scene(
    plan: Plan, pictures: list[U8], engine: Engine, bag: tuple[U8, U8], look: Path | None, *, taken: bool
) -> dict[str, Any]:
    """Play a scene; seconds are the clip's."""
    paint = painter(plan, bag, taken=taken)
    shown = [paint(pictures[n].copy(), n) for n in range(plan.first, plan.last)]
    result, start_s = play(shown, engine, look=look), plan.first / FPS
    told = [(start_s + a[0], a[2], a[3]) for a in result.alarms if a[1] == "abandoned"]
    hits = [] if taken else [a for a in told if at_bag(plan, a[2]) and a[0] > plan.drop / FPS]
    first = hits[0] if hits else None
    return {
        "kind": "taken" if taken else "left", "put_down_s": plan.drop / FPS, "height": round(plan.height, 3),
        "due_s": round(plan.due_s, 1), "found": first is not None, "delay_s": first and round(first[0] - plan.due_s, 1),
        "seen_as": first and first[1]["seen_as"], "false_alarms": len(told) - len(hits),
    }  # fmt: skip


def at_bag(plan: Plan, box: Box | None) -> bool:
    """Whether an alarm's box lies where the bag stands."""
    if box is None:
        return False
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    (foot_x, foot_y), tall = plan.foot, plan.height
    return abs(x - foot_x) < 0.7 * tall + 0.02 and foot_y - 1.4 * tall < y < foot_y + 0.4 * tall


def wilson(hits: int, count: int) -> list[float]:
    """The 95 % interval of a share."""
    if not count:
        return [0.0, 1.0]
    z, p = 1.96, hits / count
    middle, half = p + z * z / (2 * count), z * float(np.sqrt(p * (1 - p) / count + z * z / (4 * count * count)))
    return [round((middle - half) / (1 + z * z / count), 3), round((middle + half) / (1 + z * z / count), 3)]


def real(path: Path, engine: Engine, put_down_s: float, alone_s: float, look: Path | None) -> dict[str, Any]:
    """A clip in which something is left: put down and alone at those seconds."""
    result = play(clip_pictures(path), engine, look=look)
    starts = [round(a[0], 1) for a in result.alarms if a[1] == "abandoned"]
    hits = [s for s in starts if s >= alone_s]
    return {
        "clip": path.name, "put_down_s": put_down_s, "due_s": alone_s + SECONDS, "alarms_s": starts, "found": bool(hits),
        "delay_s": round(hits[0] - alone_s - SECONDS, 1) if hits else None, "false_alarms": len(starts) - len(hits[:1]),
    }  # fmt: skip


def evaluate(data: Path, look: Path | None, most: int) -> dict[str, Any]:
    """Everything, over all clips."""
    engine, bags = open_engine(EngineSection()), bag_cutouts(data / "images")
    calm: dict[str, Any] = {}
    scenes: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((data / "clips").iterdir()):
        pictures = clip_pictures(path)
        if len(pictures) < FPS * 4:
            continue
        first = play(pictures, engine, look=look and look / f"calm-{path.stem}")
        fast = play(
            pictures, engine, look=look and look / f"fast-{path.stem}", faster=RUN_FASTER, known=first.detections
        )
        calm[path.name] = {
            "seconds": first.seconds, "people": len(first.people),
            "false_alarms": {rule: sum(a[1] == rule for a in first.alarms) for rule in ("abandoned", "run")},
            "runners_at_faster_clock": sum(a[1] == "run" for a in fast.alarms),
        }  # fmt: skip
        print(path.name, calm[path.name], file=sys.stderr, flush=True)
        aspect = pictures[0].shape[1] / pictures[0].shape[0]
        made = plans(first.people, len(pictures), aspect, away=DISTANCE, seconds=SECONDS, most=most)
        for number, plan in enumerate(made):
            for taken in (False, True):
                where = look and look / f"{'taken' if taken else 'left'}-{path.stem}-{number}"
                row = scene(plan, pictures, engine, bags[(5 * len(scenes) + number) % len(bags)], where, taken=taken)
                scenes.setdefault(path.name, []).append(row)
                print("  ", row, file=sys.stderr, flush=True)
    engine.close()
    rows = [row for some in scenes.values() for row in some]
    left = [row for row in rows if row["kind"] == "left"]
    found = [row for row in left if row["found"]]
    delays = [row["delay_s"] for row in found]
    return {
        "schema": "vedette.eval.abandoned/2",
        "limits": {"seconds": SECONDS, "distance": DISTANCE, "fps": FPS, "size": EngineSection().size},
        "abandoned": {
            "scenes": len(left), "found": len(found), "recall": round(len(found) / max(1, len(left)), 3),
            "recall_interval": wilson(len(found), len(left)),
            "delay_s": {"median": float(np.median(delays)), "worst": max(delays)} if delays else None,
            "false_alarms_in_scenes": sum(row["false_alarms"] for row in left),
            "taken": len(rows) - len(left), "false_alarms_when_taken": sum(r["false_alarms"] for r in rows if r["kind"] == "taken"),
        },
        "untouched": {
            "hours": round(sum(entry["seconds"] for entry in calm.values()) / 3600, 4),
            **{rule: sum(entry["false_alarms"][rule] for entry in calm.values()) for rule in ("abandoned", "run")},
            "clips": calm,
        },
        "runs": scenes,
    }  # fmt: skip


def main() -> None:
    """Parse, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with clips/ and images/")
    parser.add_argument("--out", type=Path, help="JSON here too")
    parser.add_argument("--look", type=Path, help="folder for a picture of every alarm")
    parser.add_argument("--scenes", type=int, default=7, help="scenes a clip, at most")
    parser.add_argument("--real", type=Path, help="a clip in which something is really left")
    parser.add_argument("--put-down", type=float, default=0.0, help="when, seconds of that clip")
    parser.add_argument("--alone", type=float, default=0.0, help="when its owner has gone")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    found = evaluate(args.data, args.look, args.scenes)
    if args.real:
        engine = open_engine(EngineSection())
        found["real"] = real(args.real, engine, args.put_down, args.alone, args.look and args.look / "real")
        engine.close()
    text = json.dumps(found, indent=1)
    if args.out:
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

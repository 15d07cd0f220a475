"""How well the rules `abandoned` and `run` do on real backgrounds, one command.

    python tools/eval_abandoned.py --data ../shared/data --out abandoned.json

*Scenes*: cut-outs of bags (COCO pictures, GrabCut) are carried by somebody who really walks through an open clip: pasted
beside the person's own box of a first, untouched pass, until a moment when that person is about to walk on; there it stays.
Then the whole path runs: detector, tracker, `PictureMeter`, rule. Told are recall and the delay after the moment at which
the rule should speak (owner farther than ``distance``, or out of the picture, for ``seconds``).

*False alarms*: the untouched pass of every clip (parked cars, tripods, cones, dropped clothes, people who stand), of
`abandoned` and of `run` with their default limits. *Runners*: the same clips with their clock running RUN_FASTER times as fast:
those who walk then move as fast as runners do, so `run` must speak about most who cross the picture.

Nothing was fitted to a split; clips of HELD_OUT were not looked at before the limits were set. ``--look DIR`` saves the
picture of every alarm.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import Batch, Detections, Engine
from vedette.streamer.capture.letterbox import draw_letterbox
from vedette.streamer.capture.picturemeter import PictureMeter
from vedette.streamer.config.schema import CameraDefaults, EngineSection
from vedette.streamer.infer.engine import open_engine
from vedette.streamer.infer.incidents import Moment
from vedette.streamer.infer.pipeline import Pipeline

U8 = NDArray[np.uint8]
Box = tuple[float, float, float, float]
HELD_OUT = ("video02.avi", "worker-zone-detection.preview.mp4")
FPS, MOST_S, SECONDS, DISTANCE, RUN_FASTER = 5.0, 40.0, 8.0, 1.5, 2.5
RULES = [
    {"kind": "abandoned", "seconds": SECONDS, "distance": DISTANCE},
    {"kind": "run"},
]
#: Share of the carrier's height that a bag has.
BAG_HEIGHT = 0.32
BAGS = {24: "backpack", 26: "handbag", 28: "suitcase"}


@dataclass
class Pass:
    """What a run over a clip gave. people: track -> [(picture, box)]. alarms: (second, rule, explain, box).
    detections: by picture."""

    people: dict[int, list[tuple[int, Box]]] = field(default_factory=dict)
    alarms: list[tuple[float, str, dict[str, Any], Box | None]] = field(default_factory=list)
    detections: list[Detections] = field(default_factory=list)
    seconds: float = 0.0


def clip_pictures(path: Path) -> list[U8]:
    """Every picture of a clip at FPS."""
    reader, kept, number = cv2.VideoCapture(str(path)), [], 0
    fps = reader.get(cv2.CAP_PROP_FPS) or FPS
    while len(kept) < MOST_S * FPS and reader.grab():
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
    pictures: list[U8], engine: Engine, paint: Callable[[U8, int], U8] | None = None,
    look: Path | None = None, *, faster: float = 1.0, known: list[Detections] | None = None,
) -> Pass:  # fmt: skip
    """Run the whole path over a clip. known: detections of the very same pictures."""
    height, width = engine.spec.input_hw
    pipeline, meter, result = Pipeline("eval", "b", engine.spec.labels), PictureMeter(), Pass()
    pipeline.configure("cam", CameraDefaults.model_validate({"rules": RULES}))
    for number, clean in enumerate(pictures):
        picture = clean if paint is None else paint(clean.copy(), number)
        time_s = number / FPS / faster
        canvas = np.zeros((height, width, 3), np.uint8)
        box = draw_letterbox(picture, canvas)
        batch = Batch(canvas[None], (box,), np.zeros(1, np.int32), np.array([number == 0]), np.array([time_s]))
        detections = engine.infer(batch).detections[0] if known is None else known[number]
        result.detections.append(detections)
        stats = meter.measure(canvas, box, time_s)
        aspect = picture.shape[1] / picture.shape[0]
        moment = Moment("cam", 0, number, round(time_s * 1e9), time_s, time_s, aspect, stats)
        (outcome,) = pipeline.step([moment], [detections])
        for i in np.flatnonzero(outcome.tracks.detection >= 0).tolist():
            if engine.spec.labels[int(outcome.tracks.label[i])] == "person":
                sides = tuple(float(v) for v in outcome.tracks.xyxy[i])
                result.people.setdefault(int(outcome.tracks.id[i]), []).append((number, sides))  # type: ignore[arg-type]
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


def bag_cutouts(data: Path, most: int = 6) -> list[tuple[U8, U8]]:
    """(pixels, mask 0..255) of bags in COCO pictures, the largest first."""
    found: list[tuple[int, U8, U8]] = []
    for label in sorted((data / "images").rglob("*.txt")):
        pictures = list((data / "images").rglob(f"{label.stem}.jpg"))
        rows = [line.split() for line in label.read_text().splitlines() if line.strip()]
        rows = [row for row in rows if row[0].isdigit() and int(row[0]) in BAGS and len(row) == 5]
        if not pictures or not rows:
            continue
        picture = cv2.imread(str(pictures[0]))
        height, width = picture.shape[:2]
        for _, cx, cy, w, h in rows:
            x, y = (float(cx) - float(w) / 2) * width, (float(cy) - float(h) / 2) * height
            rect = round(max(1, x)), round(max(1, y)), round(float(w) * width), round(float(h) * height)
            if min(rect[2:]) < 45 or rect[0] + rect[2] >= width - 1 or rect[1] + rect[3] >= height - 1:
                continue
            mask = np.zeros((height, width), np.uint8)
            cv2.grabCut(picture, mask, rect, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_RECT)
            alpha = np.where((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD), 255, 0).astype(np.uint8)
            inside = slice(rect[1], rect[1] + rect[3]), slice(rect[0], rect[0] + rect[2])
            if alpha[inside].mean() > 80:
                found.append((rect[2] * rect[3], picture[inside].copy(), alpha[inside].copy()))
    found.sort(key=lambda item: -item[0])
    return [(pixels, alpha) for _, pixels, alpha in found[:most]]


@dataclass(frozen=True)
class Plan:
    """Somebody carries a bag until ``drop`` (picture number); it then stands at ``foot`` (normalised), ``height`` high."""

    track: int
    boxes: dict[int, Box]
    drop: int
    foot: tuple[float, float]
    height: float


def plans(people: dict[int, list[tuple[int, Box]]], pictures: int, most: int) -> list[Plan]:
    """People who are seen well, walk on after the drop, and leave time for the alarm."""
    made = []
    for track, sights in people.items():
        boxes = dict(sights)
        numbers = [n for n in boxes if n / FPS >= 7.0 and n / FPS + SECONDS + 4 < pictures / FPS]
        for drop in numbers[::3]:
            x1, y1, x2, y2 = boxes[drop]
            tall = y2 - y1
            walks = sum(n <= drop for n in boxes) >= 8
            inside = x1 > 0.05 and x2 < 0.93 and y2 < 0.985 and tall > 0.1
            later = [b for n, b in boxes.items() if n > drop]
            gone = not later or _away(later[-1], (x2, y2), tall) > 2.5
            if walks and inside and gone:
                foot = min(0.98, x2 + 0.02), y2
                plan = Plan(track, boxes, drop, foot, tall * BAG_HEIGHT)
                if due_s(plan) + 4.0 < pictures / FPS:
                    made.append(plan)
                    break
    made.sort(key=lambda plan: -plan.height)
    return made[:most]


def _away(box: Box, foot: tuple[float, float], tall: float) -> float:
    """Own heights from somebody's foot line to a place (16:9 assumed: only used to plan scenes)."""
    gap = max(0.0, max(box[0], foot[0]) - min(box[2], foot[0])) * 16 / 9
    return float(np.hypot(gap, box[3] - foot[1])) / tall


def painter(plan: Plan, bag: tuple[U8, U8]) -> Callable[[U8, int], U8]:
    """Paints the bag where it is carried, then where it stands."""

    def paint(picture: U8, number: int) -> U8:
        height, width = picture.shape[:2]
        if number <= plan.drop:
            if number not in plan.boxes:
                return picture
            _x1, y1, x2, y2 = plan.boxes[number]
            foot = x2 + 0.01, y2 - 0.12 * (y2 - y1)
        else:
            foot = plan.foot
        tall = max(6, round(plan.height * height))
        wide = max(4, round(tall * bag[0].shape[1] / bag[0].shape[0]))
        pixels = cv2.resize(bag[0], (wide, tall), interpolation=cv2.INTER_AREA)
        alpha = cv2.resize(bag[1], (wide, tall), interpolation=cv2.INTER_AREA)[..., None] / 255.0
        x, y = round(foot[0] * width - wide / 2), round(foot[1] * height - tall)
        left, top, right, bottom = max(0, x), max(0, y), min(width, x + wide), min(height, y + tall)
        if left >= right or top >= bottom:
            return picture
        part = slice(top - y, bottom - y), slice(left - x, right - x)
        under = picture[top:bottom, left:right]
        picture[top:bottom, left:right] = (pixels[part] * alpha[part] + under * (1 - alpha[part])).astype(np.uint8)
        return picture

    return paint


def due_s(plan: Plan) -> float:
    """When the rule should speak."""
    tall = plan.height / BAG_HEIGHT
    near = [n for n, box in plan.boxes.items() if n >= plan.drop and _away(box, plan.foot, tall) <= DISTANCE]
    return max(near, default=plan.drop) / FPS + SECONDS


def scene(plan: Plan, result: Pass) -> dict[str, Any]:
    """What a scene gave."""
    box = (
        plan.foot[0] - plan.height / 2,
        plan.foot[1] - plan.height,
        plan.foot[0] + plan.height / 2,
        plan.foot[1] + 0.02,
    )
    hits, others = [], []
    for time_s, rule, explain, where in result.alarms:
        if rule != "abandoned" or where is None:
            continue
        centre = (where[0] + where[2]) / 2, (where[1] + where[3]) / 2
        near = abs(centre[0] - plan.foot[0]) < 0.06 and box[1] - 0.05 < centre[1] < box[3] + 0.03
        (hits if near and time_s > plan.drop / FPS else others).append((time_s, explain))
    due = due_s(plan)
    first = hits[0] if hits else None
    return {
        "dropped_s": plan.drop / FPS,
        "height": round(plan.height, 3),
        "due_s": round(due, 1),
        "found": first is not None,
        "delay_s": None if first is None else round(first[0] - due, 1),
        "seen_as": None if first is None else first[1]["seen_as"],
        "false_alarms": len(others),
    }


def evaluate(data: Path, look: Path | None, most: int) -> dict[str, Any]:
    """Everything, over all clips."""
    engine, bags = open_engine(EngineSection()), bag_cutouts(data)
    calm: dict[str, Any] = {}
    scenes: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((data / "clips").iterdir()):
        pictures = clip_pictures(path)
        if len(pictures) < FPS * 4:
            continue
        print(path.name, len(pictures), file=sys.stderr, flush=True)
        first = play(pictures, engine, look=look and look / f"calm-{path.stem}")
        fast = play(
            pictures, engine, look=look and look / f"fast-{path.stem}", faster=RUN_FASTER, known=first.detections
        )
        by_rule = {rule: sum(a[1] == rule for a in first.alarms) for rule in ("abandoned", "run")}
        calm[path.name] = {
            "seconds": first.seconds,
            "people": len(first.people),
            "false_alarms": by_rule,
            "runners_at_faster_clock": sum(a[1] == "run" for a in fast.alarms),
        }
        for number, plan in enumerate(plans(first.people, len(pictures), most)):
            bag = bags[number % len(bags)]
            where = look and look / f"scene-{path.stem}-{number}"
            scenes.setdefault(path.name, []).append(scene(plan, play(pictures, engine, painter(plan, bag), where)))
            print("  scene", scenes[path.name][-1], file=sys.stderr, flush=True)
    engine.close()
    rows = [row for some in scenes.values() for row in some]
    hours = sum(entry["seconds"] for entry in calm.values()) / 3600
    delays = [row["delay_s"] for row in rows if row["found"]]
    return {
        "schema": "vedette.eval.abandoned/1",
        "limits": {"seconds": SECONDS, "distance": DISTANCE, "fps": FPS, "size": EngineSection().size},
        "abandoned": {
            "scenes": len(rows),
            "recall": round(sum(row["found"] for row in rows) / max(1, len(rows)), 3),
            "delay_s": {"median": float(np.median(delays)), "worst": max(delays)} if delays else None,
            "false_alarms_in_scenes": sum(row["false_alarms"] for row in rows),
        },
        "untouched": {
            "hours": round(hours, 4),
            "abandoned": sum(entry["false_alarms"]["abandoned"] for entry in calm.values()),
            "run": sum(entry["false_alarms"]["run"] for entry in calm.values()),
            "held_out": [name for name in calm if name in HELD_OUT],
            "clips": calm,
        },
        "runs": scenes,
    }


def main() -> None:
    """Parse, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with clips/ and images/")
    parser.add_argument("--out", type=Path, help="JSON here too")
    parser.add_argument("--look", type=Path, help="folder for a picture of every alarm")
    parser.add_argument("--scenes", type=int, default=4, help="scenes a clip, at most")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    text = json.dumps(evaluate(args.data, args.look, args.scenes), indent=1)
    if args.out:
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

"""How well the tamper rule and the frozen-picture detector do: synthetic faults on every open clip, one command.

    python tools/eval_tamper.py --data ../shared/data --out tamper.json

Each clip is played to and fro for a minute (it must not end before the fault does). Faults are painted into the full
picture from second 30 to second 48, then everything runs as in the capture process: letterbox, `PictureMeter`,
`FrozenDetector`, and the rule with its default limits. Told are recall and delay by fault and strength, false alarms before
the fault, whether the incident ended afterwards, and false alarms an hour on the untouched clips. Mild changes of light are
played too: they must raise nothing. ``--look DIR`` saves a picture of every fault at the moment of its alarm.

No parameter was fitted to a split: the limits were set once on the five clips that are not named in HELD_OUT and the
others only confirm them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vedette.streamer.capture.frozen import FrozenDetector
from vedette.streamer.capture.letterbox import draw_letterbox
from vedette.streamer.capture.picturemeter import PictureMeter
from vedette.streamer.picturestats import PictureStats
from vedette.streamer.rules.tamper import TamperConfig
from vedette.streamer.rules.view import Places, View
from vedette.streamer.types import Tracks

U8 = NDArray[np.uint8]
Fault = Callable[[U8, int], U8]

HELD_OUT = ("video02.avi", "worker-zone-detection.preview.mp4")
FPS, LENGTH_S, FROM_S, UNTIL_S, FROZEN_AFTER_S = 10.0, 60.0, 30.0, 48.0, 10.0
INPUT_HW = (256, 416)
WIDEST = 832


def clip_pictures(path: Path) -> list[U8]:
    """Every picture of a clip at FPS, at most WIDEST wide."""
    reader = cv2.VideoCapture(str(path))
    fps, kept, number = reader.get(cv2.CAP_PROP_FPS) or FPS, [], 0
    while True:
        good, picture = reader.read()
        if not good:
            return kept
        if number * FPS / fps >= len(kept) and len(kept) < LENGTH_S * FPS:
            height, width = picture.shape[:2]
            if width > WIDEST:
                size = WIDEST, round(height * WIDEST / width)
                picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            kept.append(np.asarray(picture, np.uint8))
        number += 1


def to_and_fro(pictures: list[U8]) -> Iterator[U8]:
    """The clip forwards, backwards, and again, LENGTH_S seconds."""
    there_and_back = [*range(len(pictures)), *range(len(pictures) - 2, 0, -1)]
    for i in range(int(LENGTH_S * FPS)):
        yield pictures[there_and_back[i % len(there_and_back)]]


def cover(level: int, share: float) -> Fault:
    """A flat object close to the lens, unsharp at its edge, with sensor noise."""

    def apply(picture: U8, number: int) -> U8:
        height, width = picture.shape[:2]
        alpha = np.zeros((height, width, 1), np.float32)
        alpha[:, : round(width * share)] = 1.0
        alpha = cv2.GaussianBlur(alpha, (0, 0), width * 0.03)[..., None]
        if share >= 1.0:
            alpha[:] = 1.0
        noise = np.random.default_rng(number).normal(level, 3, picture.shape)
        return np.clip(picture * (1 - alpha) + noise * alpha, 0, 255).astype(np.uint8)

    return apply


def cloth(picture: U8, number: int) -> U8:
    """A patterned cloth that moves a little, out of focus."""
    height, width = picture.shape[:2]
    x = np.arange(width)[None] + number % 5
    pattern = 90 + 50 * np.sin(x / width * 40) * np.sin(np.arange(height)[:, None] / height * 25)
    return np.repeat(np.asarray(pattern, np.uint8)[..., None], 3, axis=2)


def blur(share: float) -> Fault:
    """Defocus: a Gaussian of ``share`` of the width."""
    return lambda picture, _: np.asarray(cv2.GaussianBlur(picture, (0, 0), picture.shape[1] * share), np.uint8)


def turn(share: float, degrees: float) -> Fault:
    """Turned to another view: moved by ``share`` of the width and tilted; what comes in is a mirror of the rest."""

    def apply(picture: U8, _: int) -> U8:
        height, width = picture.shape[:2]
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
        matrix[0, 2] += share * width
        return np.asarray(cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REFLECT), np.uint8)

    return apply


def light(gain: float, offset: float) -> Fault:
    """More or less light."""
    return lambda picture, _: np.clip(picture.astype(np.float32) * gain + offset, 0, 255).astype(np.uint8)


FAULTS: dict[str, Fault] = {
    "cover: black": cover(12, 1.0),
    "cover: grey": cover(110, 1.0),
    "cover: 85 % from the left": cover(60, 0.85),
    "cover: cloth": cloth,
    "blur: 0.8 % of the width": blur(0.008),
    "blur: 2 % of the width": blur(0.02),
    "shift: 6 %": turn(0.06, 0),
    "shift: 25 %": turn(0.25, 0),
    "shift: tilted by 8 degrees": turn(0.0, 8),
    "gain: 0.05": light(0.05, 0),
    "gain: 6": light(6.0, 90),
}
HARMLESS: dict[str, Fault] = {"light: 0.5": light(0.5, 0), "light: 1.5": light(1.5, 10), "cover: 30 %": cover(60, 0.3)}
FREEZE = "freeze"


def play(pictures: list[U8], fault: Fault | None, look: Path | None = None, *, freeze: bool = False) -> dict[str, Any]:
    """Run a minute; the alarms (second, phase, what) of the rule and of the frozen-picture detector."""
    meter, frozen = PictureMeter(), FrozenDetector(FROZEN_AFTER_S)
    rule = TamperConfig().rule(Places())
    canvas = np.zeros((*INPUT_HW, 3), np.uint8)
    alarms: list[tuple[float, str, str]] = []
    stands, held = False, None
    worst: PictureStats | None = None
    for number, picture in enumerate(to_and_fro(pictures)):
        time_s = number / FPS
        inside = FROM_S <= time_s < UNTIL_S
        if inside and freeze:
            held = picture if held is None else held
            picture = held
        elif inside and fault is not None:
            picture = fault(picture, number)
        box = draw_letterbox(picture, canvas)
        stats = meter.measure(canvas, box, time_s)
        if stats.edges is not None and (worst is None or worst.edges is None or stats.edges < worst.edges):
            worst = stats
        for signal in rule.step(View(Tracks.empty(), (), time_s, picture=stats)):
            alarms.append((time_s, signal.phase, str(signal.explain["fault"])))
            if look is not None and signal.phase == "start":
                save(look, picture, stats, signal.explain)
        if frozen.update(picture, time_s, 0.0) != stands:
            stands = not stands
            alarms.append((time_s, "start" if stands else "end", FREEZE))
    return {"alarms": alarms, "least_edges": worst.edges if worst else None}


def save(path: Path, picture: U8, stats: PictureStats, explain: Any) -> None:
    """The picture of an alarm with its numbers, to be looked at."""
    shown = picture.copy()
    lines = [f"{c['what']}: {c['value']} {c['is']} {c['threshold']} {c['unit']}" for c in explain["checks"]]
    lines = [str(explain["condition"]), *lines, f"edges {stats.edges} sharp {stats.sharpness}/{stats.usual_sharpness}"]
    for row, line in enumerate(lines):
        at = (8, 22 + 20 * row)
        cv2.putText(shown, line, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(shown, line, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (60, 220, 250), 1, cv2.LINE_AA)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), shown)


def verdict(alarms: list[tuple[float, str, str]], wanted: Callable[[str], bool]) -> dict[str, Any]:
    """What one run with a fault says."""
    starts = [(s, what) for s, phase, what in alarms if phase == "start" and wanted(what)]
    inside = [(s, what) for s, what in starts if FROM_S <= s < UNTIL_S]
    return {
        "found": bool(inside),
        "delay_s": round(inside[0][0] - FROM_S, 2) if inside else None,
        "named": inside[0][1] if inside else None,
        "false_before": sum(s < FROM_S for s, _ in starts),
        "ended": any(s >= UNTIL_S for s, phase, what in alarms if phase == "end" and wanted(what)),
    }


def summary(rows: dict[str, dict[str, dict[str, Any]]], clips: list[str]) -> dict[str, Any]:
    """Recall and delay by fault over some clips."""
    result = {}
    for fault, by_clip in rows.items():
        some = [row for clip, row in by_clip.items() if clip in clips]
        delays = [row["delay_s"] for row in some if row["found"]]
        result[fault] = {
            "clips": len(some),
            "recall": round(sum(row["found"] for row in some) / max(1, len(some)), 3),
            "delay_s": round(float(np.mean(delays)), 2) if delays else None,
            "ended": sum(row["ended"] for row in some if row["found"]),
            "missed": [clip for clip, row in by_clip.items() if clip in clips and not row["found"]],
        }
    return result


def evaluate(data: Path, look: Path | None) -> dict[str, Any]:
    """Everything, over all clips."""
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    calm: dict[str, Any] = {}
    for path in sorted((data / "clips").iterdir()):
        pictures = clip_pictures(path)
        if len(pictures) < 2:
            continue
        print(path.name, len(pictures), "pictures", file=sys.stderr)
        played = play(pictures, None)
        starts = [alarm for alarm in played["alarms"] if alarm[1] == "start"]
        calm[path.name] = {"alarms": starts, "least_edges": played["least_edges"]}
        calm[path.name]["light"] = {
            name: [a for a in play(pictures, fault)["alarms"] if a[1] == "start"] for name, fault in HARMLESS.items()
        }
        for name, fault in FAULTS.items():
            picture = look / f"{path.stem}-{name.replace(' ', '-').replace(':', '')}.png" if look else None
            alarms = play(pictures, fault, picture)["alarms"]
            rows.setdefault(name, {})[path.name] = verdict(alarms, lambda what: what != FREEZE)
        alarms = play(pictures, None, freeze=True)["alarms"]
        rows.setdefault(FREEZE, {})[path.name] = verdict(alarms, lambda what: what == FREEZE)
    clips = list(calm)
    hours = len(clips) * LENGTH_S / 3600
    false = sum(len(entry["alarms"]) for entry in calm.values())
    return {
        "schema": "vedette.eval.tamper/1",
        "limits": TamperConfig().model_dump(mode="json", include={"seconds", "edges", "sharpness", "dark", "bright"}),
        "untouched": {
            "hours": round(hours, 3),
            "false_alarms": false,
            "per_hour": round(false / hours, 2),
            "clips": calm,
        },
        "all": summary(rows, clips),
        "held_out": summary(rows, [clip for clip in clips if clip in HELD_OUT]),
        "runs": rows,
    }


def main() -> None:
    """Parse, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with clips/")
    parser.add_argument("--out", type=Path, help="JSON here too")
    parser.add_argument("--look", type=Path, help="folder for a picture of every alarm")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    text = json.dumps(evaluate(args.data, args.look), indent=1)
    if args.out:
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

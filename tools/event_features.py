"""What the daemon would know of every clip, kept on disk once: one pass of the shipped detector a picture.

    event_features.py fights  --data ../shared/data --out FOLDER [--variants 6]
    event_features.py falls   ...
    event_features.py quiet   ...     clips that hold no fight and no fall, for false alarms; never trained on

A file a clip and variant: detections after NMS, scene tokens, a grey thumbnail of the canvas a picture, and the time of
each. Variant 0 is the clip as it is; the others are mirrored, cropped, brightened and run faster or slower. Clips that are
there already are skipped, so the command can be interrupted.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx

from vedette.engines.api import LABELS, Batch, EngineSpec, Letterbox
from vedette.engines.detector import Detector
from vedette.engines.load import resolve
from vedette.engines.runtimes.onnxruntime import OrtRuntime
from vedette.streamer.capture.letterbox import draw_letterbox

CANVAS_HW = (256, 416)
GREY_HW = (128, 208)
FPS = 10.0
#: feature maps of the trunk that `--deep` pools as well (for the comparison, the daemon does not see them)
TAPS = {"s2": "cat_4", "s3": "cat_7", "s4": "cat_11"}


@dataclass(frozen=True, slots=True)
class Variant:
    """How a clip is worn. speed: above 1 makes it faster. crop: share of the width and height that stays, at (x, y) of what is left over."""

    mirror: bool = False
    speed: float = 1.0
    crop: float = 1.0
    x: float = 0.5
    y: float = 0.5
    gain: float = 1.0
    offset: float = 0.0
    phase: float = 0.0

    @classmethod
    def draw(cls, number: int, clip: str) -> Variant:
        """Variant 0 leaves the clip alone; others are the same in every run."""
        if number == 0:
            return cls()
        r = np.random.default_rng([number, *clip.encode()])
        return cls(
            mirror=number % 2 == 1,
            speed=float(np.exp(r.uniform(np.log(0.8), np.log(1.25)))),
            crop=float(r.uniform(0.75, 1.0)),
            x=float(r.uniform()),
            y=float(r.uniform()),
            gain=float(r.uniform(0.75, 1.3)),
            offset=float(r.uniform(-20, 20)),
            phase=float(r.uniform()),
        )

    def wear(self, picture: np.ndarray) -> np.ndarray:
        """The picture as this variant shows it."""
        h, w = picture.shape[:2]
        ch, cw = round(h * self.crop), round(w * self.crop)
        y, x = round((h - ch) * self.y), round((w - cw) * self.x)
        picture = picture[y : y + ch, x : x + cw]
        if self.mirror:
            picture = picture[:, ::-1]
        if self.gain != 1.0 or self.offset:
            picture = (
                cv2.convertScaleAbs(picture, alpha=self.gain, beta=0)
                if not self.offset
                else np.clip(picture.astype(np.float32) * self.gain + self.offset, 0, 255).astype(np.uint8)
            )
        return np.ascontiguousarray(picture)


def pictures(path: Path, fps: float, variant: Variant) -> Iterator[tuple[float, float, np.ndarray]]:
    """(seconds in the variant, seconds in the file, picture) at ``fps`` of the variant's own time."""
    video = cv2.VideoCapture(str(path))
    rate = video.get(cv2.CAP_PROP_FPS) or 25.0
    step = variant.speed / fps
    due, index, sent = variant.phase * step, 0, 0
    while True:
        ok, picture = video.read()
        if not ok:
            break
        at = index / rate
        index += 1
        if at + 0.5 / rate < due:
            continue
        due += step
        if due < at:  # the file has fewer pictures than we want
            due = at + 0.25 * step
        yield at / variant.speed, at, variant.wear(picture)
        sent += 1
    video.release()


class Reader:
    """The shipped detector with, if wanted, some of its inner maps as further outputs."""

    def __init__(self, deep: bool) -> None:
        model = onnx.load(str(resolve("vedette-nano")))
        if deep:
            for tensor in TAPS.values():
                model.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
        self._deep = deep
        self._runtime = OrtRuntime(model.SerializeToString(), name="vedette-nano", threads=1)
        spec = EngineSpec("vedette-nano", CANVAS_HW, LABELS, 64, "onnxruntime", "fp32")
        self._last: dict[str, Any] = {}
        self._detector = Detector(self, spec)
        self._before: dict[str, np.ndarray] | None = None

    @property
    def inputs(self) -> Any:
        return self._runtime.inputs

    @property
    def outputs(self) -> Any:
        return self._runtime.outputs

    def run(self, feeds: Any) -> dict[str, Any]:
        self._last = self._runtime.run(feeds)
        return self._last

    def close(self) -> None:
        self._runtime.close()

    def forget(self) -> None:
        """The next picture is a clip's first."""
        self._before = None

    def read(self, picture: np.ndarray, time_s: float) -> dict[str, np.ndarray]:
        """Everything that is kept of one picture."""
        canvas = np.empty((*CANVAS_HW, 3), np.uint8)
        box = draw_letterbox(picture, canvas)
        batch = Batch(canvas[None], (box,), np.zeros(1, np.int32), np.zeros(1, np.bool_), np.array([time_s]))
        seen = self._detector.infer(batch)
        found = seen.detections[0]
        grey = cv2.cvtColor(cv2.resize(canvas, GREY_HW[::-1], interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
        row = {
            "xyxy": found.xyxy,
            "score": found.score,
            "label": found.label,
            "embedding": found.embedding.astype(np.float16),
            "scene": seen.scene[0].astype(np.float16),
            "grey": grey,
        }
        return row | (self._pooled(box) if self._deep else {})

    def _pooled(self, box: Letterbox) -> dict[str, np.ndarray]:
        now, out = {}, {}
        for name, tensor in TAPS.items():
            full = self._last[tensor][0]
            stride = CANVAS_HW[0] // full.shape[1]
            h, w = max(1, box.inner_hw[0] // stride), max(1, box.inner_hw[1] // stride)
            y, x = box.pad_y // stride, box.pad_x // stride
            now[name] = full[:, y : y + h, x : x + w].copy()
            out[name] = pool(now[name])
            moved = np.abs(now[name] - self._before[name]) if self._before else np.zeros_like(now[name])
            out[f"d{name}"] = pool(moved)
            out[f"m{name}"] = moved.max((1, 2)).astype(np.float16)
        self._before = now
        return out


def pool(maps: np.ndarray, n: int = 4) -> np.ndarray:
    """[C,h,w] -> area means [C,n,n]."""
    _, h, w = maps.shape
    hwc = np.ascontiguousarray(maps.transpose(1, 2, 0))
    parts = [
        [
            hwc[
                i * h // n : max(i * h // n + 1, (i + 1) * h // n), j * w // n : max(j * w // n + 1, (j + 1) * w // n)
            ].mean((0, 1))
            for j in range(n)
        ]
        for i in range(n)
    ]
    return np.asarray(parts).transpose(2, 0, 1).astype(np.float16)


def save(path: Path, rows: list[dict[str, np.ndarray]], meta: dict[str, Any]) -> None:
    """One clip: ragged detections are laid end to end, ``count`` says how many a picture."""
    ragged = ("xyxy", "score", "label", "embedding")
    arrays: dict[str, Any] = {k: np.concatenate([r[k] for r in rows]) for k in ragged}
    arrays |= {k: np.stack([r[k] for r in rows]) for k in rows[0] if k not in ragged}
    arrays["count"] = np.array([len(r["score"]) for r in rows])
    arrays["meta"] = np.array(json.dumps(meta))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, **arrays)
    temporary.replace(path)


def extract(path: Path, out: Path, reader: Reader, fps: float, variant: Variant, meta: dict[str, Any]) -> int:
    """One clip in one variant; how many pictures it had."""
    reader.forget()
    rows = []
    aspect = 0.0
    for time_s, file_s, picture in pictures(path, fps, variant):
        aspect = picture.shape[1] / picture.shape[0]
        rows.append({**reader.read(picture, time_s), "time_s": np.float64(time_s), "file_s": np.float64(file_s)})
    if rows:
        save(out, rows, {**meta, "aspect": aspect, "variant": asdict(variant)})
    return len(rows)


def list_clips(what: str, data: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The clips of a set with their labels and groups."""
    if what == "fights":
        with open(data / "fights" / "clips.csv", newline="") as file:
            for row in csv.DictReader(file):
                meta = {"clip": row["clip"], "label": int(row["label"]), "group": row["source_group"]}
                yield data / "fights" / row["clip"], meta
    elif what == "falls":
        for path in sorted((data / "falls").glob("*/*/*.mp4")):
            subject, kind = path.parts[-3], path.parts[-2]
            with open(path.parents[1] / f"{kind}.csv", newline="") as file:
                table = [line for line in csv.reader(file) if line and line[0].strip() == path.name]
            yield (
                path,
                {
                    "clip": str(path.relative_to(data)),
                    "group": subject,
                    "kind": kind,
                    "classes": ",".join(table[0][5:]).strip(),
                },
            )
    else:
        for path in sorted((data / "clips").iterdir()):
            yield path, {"clip": str(path.relative_to(data)), "group": path.stem, "label": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fights", "falls", "quiet"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", type=int, nargs=2, default=(0, 1), metavar=("FROM", "TO"))
    parser.add_argument("--fps", type=float, default=FPS)
    parser.add_argument("--deep", action="store_true")
    a = parser.parse_args()
    cv2.setNumThreads(1)
    reader = Reader(a.deep)
    for number in range(*a.variants):
        for path, meta in list_clips(a.what, a.data):
            out = a.out / a.what / str(number) / (meta["clip"].replace("/", "_") + ".npz")
            if not out.exists():
                n = extract(path, out, reader, a.fps, Variant.draw(number, meta["clip"]), meta)
                print(number, meta["clip"], n, flush=True)
    reader.close()


if __name__ == "__main__":
    main()

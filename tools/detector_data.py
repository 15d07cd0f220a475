"""Training pictures for the detector: frames cut from clips, labels where teachers agree, augmented samples.

A frames folder holds JPEGs and ``labels.jsonl``: {"name", "kind": "video"|"image", "rows": [[label, x1, y1, x2, y2,
weight], ...]} in pixels; weight 1 is an object, 0 a region in which nothing is right or wrong (the teachers
disagree there).
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
from detector_peers import COCO_TO_LABEL, GROUP, Found, NanoDet, YoloX, mirrored, suppress

from vedette.kernels.nms import iou_matrix

Rows = np.ndarray  # f32 [N,6]
#: a surveillance view is never filled by one object; teachers call an empty road a bus
MOST_OF_FRAME = 0.6


def fuse(
    opinions: list[Found],
    hw: tuple[int, int],
    floors: tuple[float, ...],
    sole: tuple[float, ...],
    *,
    agree: float = 0.3,
    alone: float = 0.55,
) -> Rows:
    """Opinions of the teachers (after NMS) -> rows.

    An object where two agree (IoU 0.5, same group) and the better is at least ``agree``, or where one is at least
    ``alone``; an ignore region where two agree more weakly or one exceeds its own ``sole``. ``floors``: under its
    own noise floor a teacher says nothing. hw: of the frame; what fills it is the scene, not an object.
    """
    boxes = np.concatenate([o[0] for o in opinions])
    scores = np.concatenate([o[1] for o in opinions])
    labels = np.concatenate([o[2] for o in opinions]).astype(int)
    who = np.concatenate([np.full(len(o[0]), i) for i, o in enumerate(opinions)])
    ok = scores >= np.array(floors)[who]
    ok &= (boxes[:, 2:] - boxes[:, :2]).prod(1) < MOST_OF_FRAME * hw[0] * hw[1]
    boxes, scores, labels, who = boxes[ok], scores[ok], labels[ok], who[ok]
    rows, used = [], np.zeros(len(boxes), bool)
    for i in np.argsort(-scores):
        if used[i]:
            continue
        near = (iou_matrix(boxes[i : i + 1], boxes)[0] >= 0.5) & (GROUP[labels] == GROUP[labels[i]]) & ~used
        near[i] = True
        used |= near
        both = len(np.unique(who[near])) > 1
        w = scores[near] / scores[near].sum()
        box = (boxes[near] * w[:, None]).sum(0)
        certain = (both and scores[i] >= agree) or scores[i] >= alone
        if certain or both or scores[i] >= sole[who[i]]:
            votes = np.bincount(labels[near], scores[near], minlength=8)
            rows.append([votes.argmax(), *box, float(certain)])
    return np.array(rows, np.float32).reshape(-1, 6)


class Teachers:
    """YOLOX-nano at 416, NanoDet-g at up to 640 (never upscaled) and mirrored, NanoDet-m at 416."""

    FLOORS = (0.15, 0.22, 0.22, 0.22)
    SOLE = (0.2, 0.38, 0.38, 0.4)

    def __init__(self, models: Path) -> None:
        self.yolox = YoloX(models / "yolox_nano_416.onnx")
        self.nano = NanoDet(models / "nanodet_g_coco.onnx")
        self.nano_m = NanoDet(models / "nanodet_m_416.onnx")

    def __call__(self, image: np.ndarray) -> Rows:
        h, w = image.shape[:2]
        r = min(1.0, 640 / max(h, w))
        self.nano.hw = (math.ceil(h * r / 32) * 32, math.ceil(w * r / 32) * 32)
        detectors = (self.yolox, self.nano, mirrored(self.nano), self.nano_m)
        found = [suppress(d(image, 0.1)) for d in detectors]
        # the mirrored NanoDet-g is the same teacher: it steadies boxes, it is no second witness
        merged = [found[0], suppress(tuple(np.concatenate(p) for p in zip(found[1], found[2], strict=True)), 0.6)]
        merged.append(found[3])
        return fuse(
            merged, (h, w), (self.FLOORS[0], self.FLOORS[1], self.FLOORS[3]), (self.SOLE[0], self.SOLE[1], self.SOLE[3])
        )


def cut_frames(clips: list[Path], out: Path, teachers: Teachers, per_second: float, most: int) -> int:
    """Write labelled frames of the clips to ``out``; returns how many. Frames wider than 960 px are shrunk."""
    out.mkdir(parents=True, exist_ok=True)
    n = 0
    with open(out / "labels.jsonl", "a") as log:
        for clip in clips:
            capture = cv2.VideoCapture(str(clip))
            fps, total = capture.get(cv2.CAP_PROP_FPS) or 25, max(1, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
            step = max(1, round(fps / per_second), total // most)
            for k in range(total):
                if not capture.grab():
                    break
                if k % step != step // 2:
                    continue
                ok, image = capture.retrieve()
                if not ok:
                    continue
                r = 960 / max(image.shape[:2])
                if r < 1:
                    image = cv2.resize(image, None, fx=r, fy=r, interpolation=cv2.INTER_AREA)
                name = f"{clip.stem}_{k:05d}.jpg"
                cv2.imwrite(str(out / name), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
                log.write(json.dumps({"name": name, "kind": "video", "rows": teachers(image).round(2).tolist()}) + "\n")
                n += 1
            capture.release()
    return n


def add_images(images: Path, labels: Path, out: Path) -> int:
    """Copy labelled pictures (YOLO text labels, COCO classes) into a frames folder; returns how many."""
    out.mkdir(parents=True, exist_ok=True)
    n = 0
    with open(out / "labels.jsonl", "a") as log:
        for path in sorted(images.glob("*.jpg")):
            image = cv2.imread(str(path))
            rows = read_yolo(labels / f"{path.stem}.txt", image.shape[:2])
            rows = np.concatenate([rows, np.ones((len(rows), 1), np.float32)], 1)
            cv2.imwrite(str(out / path.name), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
            log.write(json.dumps({"name": path.name, "kind": "image", "rows": rows.round(2).tolist()}) + "\n")
            n += 1
    return n


def read_yolo(path: Path, hw: tuple[int, int]) -> np.ndarray:
    """YOLO boxes or polygons of COCO classes -> [N,5] label (ours), x1, y1, x2, y2 in pixels."""
    rows = []
    size = np.array([hw[1], hw[0]])
    for line in path.read_text().splitlines() if path.exists() else []:
        numbers = [float(x) for x in line.split()]
        label = COCO_TO_LABEL.get(int(numbers[0]))
        if label is None:
            continue
        if len(numbers) == 5:
            c, wh = np.array(numbers[1:3]), np.array(numbers[3:5])
            corners = np.stack([c - wh / 2, c + wh / 2]) * size
        else:
            polygon = np.array(numbers[1:]).reshape(-1, 2) * size
            corners = np.stack([polygon.min(0), polygon.max(0)])
        rows.append([label, *corners.ravel()])
    return np.array(rows, np.float32).reshape(-1, 5)


class Sampler:
    """Random canvases: half 2x2 mosaics, half crops; mirrored, recoloured, and worn as cameras wear pictures.

    image_share: draws from labelled pictures instead of frames; raising it protects what COCO taught.
    """

    def __init__(self, folder: Path, canvas_hw: tuple[int, int], image_share: float = 0.35, seed: int = 0) -> None:
        lines = [json.loads(x) for x in (folder / "labels.jsonl").read_text().splitlines()]
        self.items = {
            kind: [
                (folder / x["name"], np.array(x["rows"], np.float32).reshape(-1, 6)) for x in lines if x["kind"] == kind
            ]
            for kind in ("video", "image")
        }
        # frames of one clip look alike: draw a clip first (by the root of what it shows), then a frame
        clips: dict[str, list[int]] = {}
        for i, (path, _) in enumerate(self.items["video"]):
            clips.setdefault(path.stem.rsplit("_", 1)[0], []).append(i)
        self.clips = list(clips.values())
        shown = [1 + sum(int(self.items["video"][i][1][:, 5].sum()) for i in c) for c in self.clips]
        self.odds = np.sqrt(shown) / max(1.0, np.sqrt(shown).sum())
        self.canvas, self.share, self.r = canvas_hw, image_share, np.random.default_rng(seed)
        self.cache: dict[Path, np.ndarray] = {}

    def pick(self) -> tuple[np.ndarray, Rows]:
        if self.r.random() < self.share or not self.clips:
            path, rows = self.items["image"][self.r.integers(len(self.items["image"]))]
        else:
            clip = self.clips[self.r.choice(len(self.clips), p=self.odds)]
            path, rows = self.items["video"][clip[self.r.integers(len(clip))]]
        if path not in self.cache:
            self.cache[path] = np.fromfile(path, np.uint8)
        return cv2.imdecode(self.cache[path], 1), rows.copy()

    def place(self, H: int, W: int, low: float, high: float) -> tuple[np.ndarray, Rows]:
        """One picture at a random scale on a black canvas; objects mostly cut away become ignore regions."""
        image, g = self.pick()
        h, w = image.shape[:2]
        if self.r.random() < 0.5:
            image = image[:, ::-1]
            g[:, [1, 3]] = w - g[:, [3, 1]]
        fit = math.sqrt(max(H / h, W / w) * min(H / h, W / w))
        s = fit * math.exp(self.r.uniform(math.log(low), math.log(high)))
        nw, nh = max(8, int(w * s * math.exp(self.r.uniform(-0.1, 0.1)))), max(8, int(h * s))
        image = cv2.resize(image, (nw, nh), interpolation=cv2.INTER_AREA if s < 0.7 else cv2.INTER_LINEAR)
        g[:, 1:5] *= [nw / w, nh / h] * 2
        ox = int(self.r.integers(min(0, W - nw), max(0, W - nw) + 1))
        oy = int(self.r.integers(min(0, H - nh), max(0, H - nh) + 1))
        out = np.zeros((H, W, 3), np.uint8)
        x0, y0, x1, y1 = max(0, ox), max(0, oy), min(W, ox + nw), min(H, oy + nh)
        out[y0:y1, x0:x1] = image[y0 - oy : y1 - oy, x0 - ox : x1 - ox]
        g[:, [1, 3]] += ox
        g[:, [2, 4]] += oy
        before = (g[:, 3] - g[:, 1]) * (g[:, 4] - g[:, 2])
        g[:, [1, 3]] = g[:, [1, 3]].clip(0, W)
        g[:, [2, 4]] = g[:, [2, 4]].clip(0, H)
        side = g[:, 3:5] - g[:, 1:3]
        after = side.prod(1)
        g[after < 0.35 * before, 5] = 0
        return out, g[(side.min(1) > 3) & (after > 0.1 * before)]

    def __call__(self) -> tuple[np.ndarray, Rows]:
        H, W = self.canvas
        if self.r.random() < 0.5:
            image, g = self.place(H, W, 0.45, 2.0)
        else:
            cy, cx = int(H * self.r.uniform(0.35, 0.65)), int(W * self.r.uniform(0.35, 0.65))
            image, parts = np.zeros((H, W, 3), np.uint8), []
            for y0, y1, x0, x1 in ((0, cy, 0, cx), (0, cy, cx, W), (cy, H, 0, cx), (cy, H, cx, W)):
                tile, t = self.place(y1 - y0, x1 - x0, 0.7, 2.0)
                image[y0:y1, x0:x1] = tile
                t[:, [1, 3]] += x0
                t[:, [2, 4]] += y0
                parts.append(t)
            g = np.concatenate(parts)
        return wear(recolour(image, self.r), self.r), g.astype(np.float32)


def recolour(image: np.ndarray, r: np.random.Generator) -> np.ndarray:
    """Hue, saturation and brightness as they differ between cameras."""
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + r.uniform(-8, 8)) % 180
    hsv[..., 1] *= r.uniform(0.4, 1.4)
    hsv[..., 2] *= r.uniform(0.6, 1.3)
    return cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2BGR)


def wear(image: np.ndarray, r: np.random.Generator) -> np.ndarray:
    """Night (dark, grey, noisy), blur, rain and compression, each now and then."""
    if r.random() < 0.15:
        dark = (image.astype(np.float32) / 255) ** r.uniform(1.2, 2.2) * r.uniform(0.35, 0.9) * 255
        if r.random() < 0.5:
            dark = np.repeat(dark.mean(2, keepdims=True), 3, 2)
        image = (dark + r.normal(0, r.uniform(2, 10), dark.shape)).clip(0, 255).astype(np.uint8)
    if r.random() < 0.15:
        k = int(r.integers(3, 8))
        kernel = np.zeros((k, k), np.float32)
        cv2.line(kernel, (0, int(r.integers(k))), (k - 1, int(r.integers(k))), 1.0)
        image = (
            cv2.filter2D(image, -1, kernel / kernel.sum())
            if r.random() < 0.5
            else cv2.GaussianBlur(image, (0, 0), r.uniform(0.5, 1.5))
        )
    if r.random() < 0.07:
        image = rain(image, r)
    if r.random() < 0.3:
        image = cv2.imdecode(cv2.imencode(".jpg", image, [1, int(r.integers(12, 70))])[1], 1)
    return image


def rain(image: np.ndarray, r: np.random.Generator) -> np.ndarray:
    """Slanted bright streaks and lost contrast."""
    streaks = np.zeros(image.shape[:2], np.uint8)
    slant, length = r.uniform(-0.4, 0.4), int(r.integers(6, 18))
    for x, y in r.integers(0, [image.shape[1], image.shape[0]], (int(r.integers(60, 250)), 2)):
        cv2.line(streaks, (int(x), int(y)), (int(x + slant * length), int(y + length)), int(r.integers(120, 255)), 1)
    soft = cv2.GaussianBlur(streaks, (0, 0), 0.7)[..., None].astype(np.float32)
    return (image * 0.85 + 20 + soft * 0.5).clip(0, 255).astype(np.uint8)

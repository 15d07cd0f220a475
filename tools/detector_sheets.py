"""Sheets of people for training the appearance embedding: one canvas, tens of people, the same ones in other clothes.

A few dozen pseudo-tracks are not many people. Shirts and trousers of a crop are recoloured apart, each with its own hue,
tint and brightness: the same code makes the same "person" of any view of a track. Two sheets of an episode show the
same people, each in another view, size, light and weather.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from detector_data import wear

from vedette.engines.api import Engine
from vedette.kernels.nms import iou_matrix

H, W = 256, 416
#: what a crop shows around its box, shares of the box's width and height
MARGIN = (0.3, 0.15)
#: people lower than this in their source teach nothing, and crops are kept at this height
LEAST_PX, KEPT_PX = 40, 170


@dataclass(slots=True)
class Crop:
    """A view of somebody: picture [h,w,3] BGR, his box in it [4] px, and who he is."""

    image: np.ndarray
    box: np.ndarray
    scene: str
    track: int


@dataclass(slots=True)
class Clothes:
    """How one half of a person is recoloured."""

    hue: float
    saturation: float
    tint: np.ndarray
    mix: float
    gamma: float


Code = tuple[float, Clothes | None, Clothes | None]  # waist (share of the height), above, below


def cut(image: np.ndarray, box: np.ndarray, scene: str, track: int) -> Crop:
    """The box with its margin, not larger than KEPT_PX high."""
    x1, y1, x2, y2 = box
    mx, my = MARGIN[0] * (x2 - x1) + 2, MARGIN[1] * (y2 - y1) + 2
    left, top = max(0, round(x1 - mx)), max(0, round(y1 - my))
    part = image[top : round(y2 + my), left : round(x2 + mx)]
    s = min(1.0, KEPT_PX / part.shape[0])
    if s < 1:
        part = cv2.resize(part, None, fx=s, fy=s, interpolation=cv2.INTER_AREA)
    return Crop(part, (box - [left, top, left, top]) * s, scene, track)


def save_crops(crops: list[Crop], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "crops.jsonl").open("w") as f:
        for i, c in enumerate(crops):
            cv2.imwrite(str(folder / f"{i:05d}.png"), c.image)
            f.write(json.dumps({"box": c.box.tolist(), "scene": c.scene, "track": c.track}) + "\n")


def load_crops(folder: Path) -> list[Crop]:
    rows = [json.loads(line) for line in (folder / "crops.jsonl").read_text().splitlines()]
    images = [cv2.imread(str(folder / f"{i:05d}.png")) for i in range(len(rows))]
    return [Crop(m, np.array(r["box"]), r["scene"], r["track"]) for m, r in zip(images, rows, strict=True)]


def clip_crops(engine: Engine, clip: Path, hz: float, most: int = 14) -> list[Crop]:
    """Up to ``most`` views of every pseudo-tracked person of a clip, spread over his time in view."""
    from detector_tracks import link_clip

    scene = link_clip(engine, clip, hz)
    views: dict[int, list[tuple[int, np.ndarray]]] = {}
    for n, rows in enumerate(scene.rows):
        for row in rows[(rows[:, 1] == 0) & (rows[:, 5] - rows[:, 3] > LEAST_PX)]:
            views.setdefault(int(row[0]), []).append((n, row[2:]))
    out = []
    for track, seen in views.items():
        for i in np.unique(np.linspace(0, len(seen) - 1, most).round().astype(int)):
            n, box = seen[i]
            out.append(cut(cv2.imdecode(scene.frames[n], 1), box, clip.stem, track))
    return out


def picture_crops(image: np.ndarray, people: np.ndarray, scene: str, first: int) -> list[Crop]:
    """People [N,4] of a labelled picture who stand free and upright, each of them a track of one view."""
    crowd = iou_matrix(people, people) - np.eye(len(people), dtype=np.float32)
    width, height = people[:, 2] - people[:, 0], people[:, 3] - people[:, 1]
    good = (height > 70) & (width > 20) & (height > 1.1 * width) & (crowd.max(1, initial=0) < 0.15)
    return [cut(image, box, scene, first + i) for i, box in enumerate(people) if good[i]]


def new_clothes(r: np.random.Generator) -> Clothes | None:
    if r.random() < 0.25:
        return None
    tint = r.uniform(0.3, 1.7, 3)
    return Clothes(
        r.uniform(0, 180) if r.random() < 0.7 else 0.0,
        r.uniform(0.3, 1.8),
        tint / tint.mean(),
        r.uniform(0.3, 1) if r.random() < 0.5 else 0.0,
        float(np.exp(r.uniform(-0.9, 0.9))),
    )


def new_code(r: np.random.Generator) -> Code | None:
    return None if r.random() < 0.25 else (r.uniform(0.45, 0.58), new_clothes(r), new_clothes(r))


def dress(crop: Crop, code: Code | None) -> np.ndarray:
    """The crop with its person recoloured, softly towards the sides of the box; head and feet stay."""
    if code is None:
        return crop.image
    h, w = crop.image.shape[:2]
    x1, y1, x2, y2 = crop.box
    y = (np.arange(h) - y1) / (y2 - y1)
    x = (np.arange(w) - (x1 + x2) / 2) / ((x2 - x1) / 2)
    inside = np.exp(-((np.abs(x) / 0.85) ** 4))
    waist = code[0]
    above = np.clip((y - 0.14) / 0.05, 0, 1) * np.clip((waist - y) / 0.06 + 0.5, 0, 1)
    below = np.clip((y - waist) / 0.06 + 0.5, 0, 1) * np.clip((0.95 - y) / 0.04, 0, 1)
    out = crop.image.astype(np.float32)
    for share, clothes in ((above, code[1]), (below, code[2])):
        if clothes is not None:
            a = (share[:, None] * inside[None])[..., None]
            out = out * (1 - a) + recoloured(out, clothes) * a
    return out.clip(0, 255).astype(np.uint8)


def recoloured(image: np.ndarray, c: Clothes) -> np.ndarray:
    hsv = cv2.cvtColor(image.clip(0, 255).astype(np.uint8), cv2.COLOR_BGR2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + c.hue) % 180
    hsv[..., 1] = (hsv[..., 1] * c.saturation).clip(0, 255)
    bgr = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR).astype(np.float32)
    bgr = bgr * (1 - c.mix) + c.mix * bgr.mean(2, keepdims=True) * c.tint
    return 255 * (bgr / 255).clip(0, 1) ** c.gamma


class Sheets:
    """Draws episodes: who is in it, and canvases of these people."""

    def __init__(self, crops: list[Crop], r: np.random.Generator) -> None:
        self.crops, self.r = crops, r
        self.views: dict[tuple[str, int], list[Crop]] = {}
        for c in crops:
            self.views.setdefault((c.scene, c.track), []).append(c)
        self.scenes: dict[str, list[tuple[str, int]]] = {}
        for key in self.views:
            self.scenes.setdefault(key[0], []).append(key)
        odds = np.array([len(v) ** 0.6 for v in self.scenes.values()])
        self.odds = odds / odds.sum()

    def people(self) -> tuple[float, list[tuple[tuple[str, int], Code | None]]]:
        """Height in px, and the people of an episode: most of one scene, so that the background tells nobody apart."""
        r = self.r
        scene = self.scenes[list(self.scenes)[r.choice(len(self.odds), p=self.odds)]]
        height = float(np.exp(r.uniform(np.log(22), np.log(130))))
        n = int(np.clip(H * W / (height * 1.3 * height * 0.8) * 0.9, 3, 56))
        pool = [scene[i] for i in r.permutation(len(scene))]
        if r.random() < 0.15 or len(pool) < 2:
            everybody = list(self.views)
            pool += [everybody[i] for i in r.choice(len(everybody), n)]
        return height, [(pool[i % len(pool)], new_code(r)) for i in range(n)]

    def canvas(self, height: float, people: list[tuple[tuple[str, int], Code | None]]) -> tuple[np.ndarray, np.ndarray]:
        """One canvas [H,W,3] and rows [N,5]: index into people, box px as a detector would give it."""
        r = self.r
        light = r.uniform(0.75, 1.25) * r.uniform(0.94, 1.06, 3)
        out = np.full((H, W, 3), r.integers(0, 160), np.uint8)
        rows, x, y, tallest = [], 0, 0, 0
        for i in r.permutation(len(people)):
            who, code = people[i]
            crop = self.views[who][r.integers(len(self.views[who]))]
            tile, box = dress(crop, code), crop.box.copy()
            if r.random() < 0.5:
                tile = tile[:, ::-1]
                box[[0, 2]] = tile.shape[1] - box[[2, 0]]
            s = height * np.exp(r.uniform(-0.25, 0.25)) / (box[3] - box[1])
            w = max(4, round(tile.shape[1] * s * np.exp(r.uniform(-0.08, 0.08))))
            h = max(4, round(tile.shape[0] * s))
            box *= np.array([w / tile.shape[1], h / tile.shape[0]] * 2)
            if x + w > W:
                x, y, tallest = 0, y + tallest + 1, 0
            if y + h > H or w > W:
                continue
            tile = cv2.resize(tile, (w, h), interpolation=cv2.INTER_AREA if s < 1 else cv2.INTER_LINEAR)
            out[y : y + h, x : x + w] = (tile * light * r.uniform(0.85, 1.15)).clip(0, 255)
            box += np.array([x, y, x, y])
            rows.append([i, *box])
            x, tallest = x + w + 1, max(tallest, h)
        if r.random() < 0.5:
            out = wear(out, r)
        found = np.array(rows, np.float32).reshape(-1, 5)
        size = np.concatenate([found[:, 3:] - found[:, 1:3]] * 2, 1)
        found[:, 1:] += size * r.normal(0, 0.04, size.shape) + r.normal(0, 0.4, size.shape)
        return out, found

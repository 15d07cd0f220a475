"""Test scenes for the rule `abandoned`: cut-outs of bags painted into real clips, beside people who really walk there.

Two kinds. *Left*: somebody carries a bag, puts it down and walks on. *Taken*: a bag stands there from the start and the
same person takes it along; the hole that it leaves must not be told. A scene begins some seconds before and ends
some seconds after the rule should have spoken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
Box = tuple[float, float, float, float]
Sights = dict[int, Box]

#: Pictures a second of all scenes.
FPS = 5.0
#: A scene begins so long before the bag stands, and ends so long after the alarm is due, seconds.
BEFORE_S, AFTER_S = 12.0, 6.0
#: Somebody who has not gone so far away (own heights) within this time is no owner who leaves, seconds.
GONE_HEIGHTS, GONE_WITHIN_S = 2.5, 14.0
#: Heights of bags, shares of the carrier's height: from a handbag to a suitcase.
BAG_HEIGHTS = (0.34, 0.28, 0.4)
#: Classes of COCO pictures that are cut out; those narrower than this are too coarse, pixels, wider than this no single bag.
BAGS, LEAST_PX, WIDEST = {24: "backpack", 26: "handbag", 28: "suitcase"}, 45, 1.6


@dataclass(frozen=True)
class Plan:
    """boxes: the carrier by picture of the clip. drop: when the bag is put down there, at ``foot``, ``height`` high (normalised).

    first, last: pictures of the scene. due_s: when the rule should speak, seconds of the clip.
    """

    boxes: Sights
    drop: int
    foot: tuple[float, float]
    height: float
    tall: float
    first: int
    last: int
    due_s: float


def plans(
    people: dict[int, Sights], pictures: int, aspect: float, *, away: float, seconds: float, most: int
) -> list[Plan]:
    """The scenes that a clip allows: one a person, the largest people first."""
    made: list[Plan] = []
    for boxes in people.values():
        for drop in sorted(boxes)[::2]:
            plan = _plan(boxes, drop, pictures, aspect, away, seconds, BAG_HEIGHTS[len(made) % len(BAG_HEIGHTS)])
            if plan is not None:
                made.append(plan)
                break
    made.sort(key=lambda plan: -plan.height)
    return made[:most]


def _plan(
    boxes: Sights, drop: int, pictures: int, aspect: float, away: float, seconds: float, share: float
) -> Plan | None:
    # the scene begins without its carrier: who stands there while the background is learned is background
    first = max(0, min(drop - round(BEFORE_S * FPS), min(boxes) - round(5 * FPS)))
    x1, y1, x2, y2 = boxes[drop]
    tall = y2 - y1
    seen_before = sum(max(first, drop - 20) <= n <= drop for n in boxes)
    if drop - first < 9.0 * FPS or seen_before < 8 or tall < 0.1 or not (x1 > 0.05 and x2 < 0.95 and y2 < 0.985):
        return None
    later = {n: box for n, box in boxes.items() if n > drop}
    ahead = 1 if not later or later[max(later)][0] >= x1 else -1
    foot = ((x1 if ahead > 0 else x2) - 0.01 * ahead, y2)
    far = {n: heights_away(box, foot, tall, aspect) for n, box in later.items()}
    near = max((n for n, gap in far.items() if gap <= away), default=drop)
    left = all(gap > GONE_HEIGHTS for n, gap in far.items() if n > drop + GONE_WITHIN_S * FPS)
    due_s = near / FPS + seconds
    last = round((due_s + AFTER_S) * FPS)
    if not left or near - drop > GONE_WITHIN_S * FPS or last >= pictures:
        return None
    return Plan(boxes, drop, foot, tall * share, tall, first, last, due_s)


def heights_away(box: Box, foot: tuple[float, float], tall: float, aspect: float) -> float:
    """Own heights from somebody's foot line to a place."""
    gap = max(0.0, max(box[0], foot[0]) - min(box[2], foot[0])) * aspect
    return float(np.hypot(gap, box[3] - foot[1])) / tall


def painter(plan: Plan, bag: tuple[U8, U8], *, taken: bool) -> Callable[[U8, int], U8]:
    """Paints the bag of picture ``number`` of the clip: carried beside the person, standing, or (taken) the other way round."""

    def paint(picture: U8, number: int) -> U8:
        if (number <= plan.drop) != taken:
            if number not in plan.boxes:
                return picture
            _, y1, x2, y2 = plan.boxes[number]
            return paste(picture, bag, (x2 + 0.005, y2 - 0.15 * (y2 - y1)), plan.height)
        return paste(picture, bag, plan.foot, plan.height)

    return paint


def paste(picture: U8, bag: tuple[U8, U8], foot: tuple[float, float], height: float) -> U8:
    """The bag in the picture, standing on ``foot``."""
    rows, columns = picture.shape[:2]
    tall = max(6, round(height * rows))
    wide = max(4, round(tall * bag[0].shape[1] / bag[0].shape[0]))
    pixels = cv2.resize(bag[0], (wide, tall), interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(bag[1], (wide, tall), interpolation=cv2.INTER_AREA)[..., None] / 255.0
    x, y = round(foot[0] * columns - wide / 2), round(foot[1] * rows - tall)
    left, top, right, bottom = max(0, x), max(0, y), min(columns, x + wide), min(rows, y + tall)
    if left < right and top < bottom:
        part = slice(top - y, bottom - y), slice(left - x, right - x)
        under = picture[top:bottom, left:right]
        picture[top:bottom, left:right] = (pixels[part] * alpha[part] + under * (1 - alpha[part])).astype(np.uint8)
    return picture


def bag_cutouts(images: Path, most: int = 8) -> list[tuple[U8, U8]]:
    """(pixels, mask 0..255) of bags in COCO pictures with YOLO labels (GrabCut), the largest first."""
    found: list[tuple[int, U8, U8]] = []
    for label in sorted(images.rglob("*.txt")):
        pictures = list(images.rglob(f"{label.stem}.jpg"))
        rows = [line.split() for line in label.read_text().splitlines() if line.strip()]
        rows = [row for row in rows if row[0].isdigit() and int(row[0]) in BAGS and len(row) == 5]
        if pictures and rows:
            picture = np.asarray(cv2.imread(str(pictures[0])), np.uint8)
            found += [cut for row in rows if (cut := _cut(picture, [float(v) for v in row[1:]])) is not None]
    found.sort(key=lambda item: -item[0])
    return [(pixels, alpha) for _, pixels, alpha in found[:most]]


def _cut(picture: U8, row: list[float]) -> tuple[int, U8, U8] | None:
    """(area, pixels, mask) of one labelled bag; None when it is small, cut off or not clear of its surroundings."""
    rows, columns = picture.shape[:2]
    cx, cy, w, h = row
    rect = (
        round(max(1, (cx - w / 2) * columns)),
        round(max(1, (cy - h / 2) * rows)),
        round(w * columns),
        round(h * rows),
    )
    if (
        min(rect[2:]) < LEAST_PX
        or rect[2] > WIDEST * rect[3]
        or rect[0] + rect[2] >= columns - 1
        or rect[1] + rect[3] >= rows - 1
    ):
        return None
    mask = np.zeros((rows, columns), np.uint8)
    cv2.setRNGSeed(0)
    cv2.grabCut(picture, mask, rect, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_RECT)
    alpha = np.where((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD), 255, 0).astype(np.uint8)
    inside = slice(rect[1], rect[1] + rect[3]), slice(rect[0], rect[0] + rect[2])
    if alpha[inside].mean() <= 80:
        return None
    return rect[2] * rect[3], picture[inside].copy(), alpha[inside].copy()

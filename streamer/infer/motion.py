"""How a picture moves, in numbers about people: one more token beside the scene tokens of the detector.

The infer process has the letterboxed picture and its detections in hand; this looks at a small grey copy of it and at the one
about a tenth of a second before. Dense optical flow (DIS, Kroeger et al. 2016) at 208x128 without the camera's own motion
(the median), per second and in heights of the people it is measured on: how fast, how unlike (limbs), how abruptly it
changes, and whether people overlap where it does. Sorted cell values say the same where nobody was found.

The token is the same at any frame rate: pictures closer than `PACE_S` to the one measured last repeat its token. What the last
one was made of is kept (`MotionField`), so that somebody can ask which part of the picture made it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import LABELS, Batch, Detections, Letterbox, Perception
from vedette.streamer.rules.attention import PARTS
from vedette.streamer.types import F32

U8 = NDArray[np.uint8]

#: Height and width of the grey copy of the canvas.
GREY_HW = (128, 208)
#: Pictures at least so far apart are compared, seconds; a little less than two at 25 a second.
PACE_S = 0.075
#: A longer silence than this and nothing can be said about motion, seconds.
GAP_S = 0.5
#: Motion is given per this time, seconds.
UNIT_S = 0.1
#: People with a lower score do not count.
PERSON_SCORE = 0.25
#: Grey levels in `UNIT_S` above which a pixel changes.
CHANGED = 15.0
#: Cells a side of which the sorted values are told, and which of them (from the largest on).
CELLS, RANKS = 8, (0, 2, 5, 10, 20, 40)
#: Of a person: mean and 90th percentile of speed, dispersion, speed of the whole, change of the flow, share of changed pixels.
PERSON_NUMBERS = 6
#: How many of the parts of a picture are tried, those that move most: each costs a measurement.
MOST_PARTS = 24
#: Numbers of a picture, and width of the token they travel in.
NUMBERS = 9 + 3 * PERSON_NUMBERS + 3 * len(RANKS) + 2
TOKEN_WIDTH = 128
#: After the numbers and the picture's width / height a steady wave: it marks a motion token (`vedette.engines.events`), and keeps
#: the size of the numbers through a layer normalisation.
CARRIER = 2.0
PERSON = LABELS.index("person")


def small_grey(canvas: U8) -> U8:
    """u8 [H,W,3] -> u8 `GREY_HW`."""
    small = cv2.resize(canvas, GREY_HW[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)


def covered(grey: U8, box: Letterbox) -> U8:
    """The part of the grey canvas that the picture covers."""
    fy, fx = grey.shape[0] / box.canvas_h, grey.shape[1] / box.canvas_w
    height, width = box.inner_hw
    y, x = round(box.pad_y * fy), round(box.pad_x * fx)
    return np.ascontiguousarray(grey[y : y + max(16, round(height * fy)), x : x + max(16, round(width * fx))])


def token_of(numbers: F32, aspect: float) -> F32:
    """f32 [NUMBERS] and the picture's width / height -> the token f32 [TOKEN_WIDTH]."""
    token = np.full(TOKEN_WIDTH, CARRIER, np.float32)
    token[1::2] = -CARRIER
    token[:NUMBERS], token[NUMBERS] = numbers, aspect
    return token


@dataclass(frozen=True, slots=True)
class MotionField:
    """What a motion token was made of. flow f32 [h,w,2], before: the flow before it, change f32 [h,w] in grey levels, found: who."""

    flow: F32
    before: F32 | None
    change: F32
    found: Detections

    def numbers(self) -> F32:
        """f32 [NUMBERS]."""
        layers = self._layers()
        return _numbers(layers, self.found, _per_person(self._people(), layers))

    def numbers_without(self) -> Iterator[tuple[int, int, F32]]:
        """Row, column and f32 [NUMBERS] if nothing had moved in that part of the picture, for the `MOST_PARTS` that move most."""
        layers, people = self._layers(), self._people()
        each = _per_person(people, layers)
        height, width = self.change.shape
        speed = cv2.resize(layers[1], PARTS[::-1], interpolation=cv2.INTER_AREA)
        for place in np.sort(np.argsort(-speed.ravel(), kind="stable")[:MOST_PARTS]).tolist():
            row, column = divmod(place, PARTS[1])
            rows, columns = _bounds(row, PARTS[0], height), _bounds(column, PARTS[1], width)
            there = (
                (people[:, 3] * height >= rows.start) & (people[:, 1] * height < rows.stop)
                & (people[:, 2] * width >= columns.start) & (people[:, 0] * width < columns.stop)
            )  # fmt: skip
            kept = [layer[rows, columns].copy() for layer in layers]
            for layer in layers:
                layer[rows, columns] = 0
            changed = each.copy()
            changed[there] = _per_person(people[there], layers)
            yield row, column, _numbers(layers, self.found, changed)
            for layer, values in zip(layers, kept, strict=True):
                layer[rows, columns] = values

    def _people(self) -> F32:
        """f32 [P,4]: the boxes of the people who count."""
        boxes: F32 = self.found.xyxy[(self.found.label == PERSON) & (self.found.score >= PERSON_SCORE)]
        return boxes

    def _layers(self) -> _Layers:
        """Flow, speed, change of the flow, and which pixels change; all of them new arrays."""
        speed = np.hypot(self.flow[..., 0], self.flow[..., 1])
        turn = np.zeros_like(speed) if self.before is None else np.hypot(*(self.flow - self.before).transpose(2, 0, 1))
        return self.flow.copy(), speed, turn, (self.change > CHANGED).astype(np.float32)


#: flow, speed, turn, moved
_Layers = tuple[F32, F32, F32, F32]


@dataclass(slots=True)
class _Seen:
    """What is remembered of a camera."""

    grey: U8
    time_s: float
    token: F32
    field: MotionField | None = None


class MotionEye:
    """The motion tokens of many cameras, by slot. Not thread-safe; about 2 ms a picture that is measured."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._dis.setFinestScale(1)

    def tokens(self, batch: Batch, found: tuple[Detections, ...]) -> F32:
        """f32 [B,1,TOKEN_WIDTH] for the pictures of a batch and what was detected in them."""
        rows = [
            self.token(int(batch.slots[i]), batch.pixels[i], batch.letterboxes[i], found[i], float(batch.time_s[i]), fresh=bool(batch.reset[i]))
            for i in range(len(batch))
        ]  # fmt: skip
        return np.stack(rows)[:, None] if rows else np.zeros((0, 1, TOKEN_WIDTH), np.float32)

    def scene(self, batch: Batch, seen: Perception) -> F32:
        """The detector's scene tokens, if it gives any, and the motion token last: f32 [B,S+1,TOKEN_WIDTH]."""
        own = self.tokens(batch, seen.detections)
        if seen.scene is None or seen.scene.shape[2] != TOKEN_WIDTH:
            return own
        return np.concatenate((seen.scene.astype(np.float32), own), 1)

    def token(
        self, slot: int, canvas: U8, box: Letterbox, found: Detections, time_s: float, *, fresh: bool = False
    ) -> F32:
        """The token of one picture; zeros before there is something to compare with."""
        last = None if fresh else self._seen.get(slot)
        if last is not None and 0 <= time_s - last.time_s < PACE_S - 1e-6:
            return last.token
        return self.measure(slot, covered(small_grey(canvas), box), found, time_s, fresh=fresh)

    def measure(self, slot: int, grey: U8, found: Detections, time_s: float, *, fresh: bool = False) -> F32:
        """The same of a grey picture that has been made already, whatever the pace."""
        last = None if fresh else self._seen.get(slot)
        aspect = grey.shape[1] / grey.shape[0]
        now = self._seen[slot] = _Seen(grey, time_s, token_of(np.zeros(NUMBERS, np.float32), aspect))
        if last is None or last.grey.shape != grey.shape or not 0 < time_s - last.time_s <= GAP_S:
            return now.token
        units = (time_s - last.time_s) / UNIT_S
        flow = self._dis.calc(last.grey, grey, None).astype(np.float32) / np.float32(units)
        flow -= np.median(flow.reshape(-1, 2)[::7], 0)
        change = np.abs(grey.astype(np.float32) - last.grey) / np.float32(units)
        now.field = MotionField(flow, None if last.field is None else last.field.flow, change, found)
        now.token = token_of(now.field.numbers(), aspect)
        return now.token

    def fields(self, slots: Sequence[int]) -> list[MotionField | None]:
        """What the last token of each slot was made of; None where it says nothing."""
        return [seen.field if (seen := self._seen.get(slot)) is not None else None for slot in slots]


def _bounds(part: int, parts: int, size: int) -> slice:
    """The pixels of one of so many parts of a side."""
    return slice(part * size // parts, (part + 1) * size // parts)


def _numbers(layers: _Layers, found: Detections, each: F32) -> F32:
    """All `NUMBERS` of a picture. each: f32 [P,PERSON_NUMBERS] of the people who count."""
    _, speed, turn, moved = layers
    height, width = speed.shape
    people = found[(found.label == PERSON) & (found.score >= PERSON_SCORE)]
    weak = int(((found.label == PERSON) & (found.score < PERSON_SCORE)).sum())
    overlap = _overlaps(people.xyxy)
    n = len(people)
    tall: F32 = people.xyxy[:, 3] - people.xyxy[:, 1] if n else np.zeros(1, np.float32)
    wide: F32 = np.zeros(1, np.float32)
    if n:
        wide = np.asarray(
            (people.xyxy[:, 2] - people.xyxy[:, 0]) * (width / height) / np.maximum(tall, 1e-3), np.float32
        )
    shared = (overlap[:, None] * each).max(0) if n else np.zeros(PERSON_NUMBERS)
    each = each if n else np.zeros((1, PERSON_NUMBERS), np.float32)
    head = [
        np.log1p(n), np.log1p(weak), overlap.max(initial=0.0), np.log1p((overlap > 0.1).sum()), np.median(tall), tall.max(),
        wide.max(), np.median(wide), float(n > 0),
    ]  # fmt: skip
    cells = [_ranked(field) for field in (20 * moved, speed, turn)]
    rest = [np.log1p(20 * v) for v in (each.max(0), each.mean(0), shared)]
    tail = [np.log1p(speed.mean()), np.log1p(20 * moved.mean())]
    return np.concatenate([head, *rest, *(np.log1p(c) for c in cells), tail]).astype(np.float32)


def _ranked(field: F32) -> F32:
    """Cell means, sorted, at `RANKS`."""
    cells = cv2.resize(field, (CELLS, CELLS), interpolation=cv2.INTER_AREA).ravel()
    return np.asarray(np.sort(cells)[::-1][list(RANKS)], np.float32)


def _per_person(xyxy: F32, layers: _Layers) -> F32:
    """f32 [N,PERSON_NUMBERS], speeds in person heights a `UNIT_S`."""
    flow, speed, turn, moved = layers
    height, width = speed.shape
    rows = []
    for x1, y1, x2, y2 in xyxy:
        top, left = min(int(y1 * height), height - 1), min(int(x1 * width), width - 1)
        part = slice(top, max(int(y2 * height), top + 1)), slice(left, max(int(x2 * width), left + 1))
        tall = max(float(y2 - y1) * height, 8.0)
        inside, all_flow = speed[part], flow[part].reshape(-1, 2)
        whole = all_flow.mean(0)
        rows.append(
            (
                inside.mean() / tall, np.percentile(inside, 90) / tall, np.sqrt(all_flow.var(0).sum()) / tall,
                np.hypot(whole[0], whole[1]) / tall, turn[part].mean() / tall, moved[part].mean(),
            )
        )  # fmt: skip
    return np.asarray(rows, np.float32).reshape(-1, PERSON_NUMBERS)


def _overlaps(xyxy: F32) -> F32:
    """f32 [N]: the largest share of each box, or of the other, that another box covers."""
    if len(xyxy) < 2:
        return np.zeros(len(xyxy), np.float32)
    low, high = np.maximum(xyxy[:, None, :2], xyxy[None, :, :2]), np.minimum(xyxy[:, None, 2:], xyxy[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(2)
    area = np.clip(xyxy[:, 2:] - xyxy[:, :2], 1e-6, None).prod(1)
    share = both / np.minimum(area[:, None], area[None])
    np.fill_diagonal(share, 0)
    return np.asarray(share.max(1), np.float32)

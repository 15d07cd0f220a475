"""Simulated scenes to learn association from: who walks, dances, plays and drives where, and what a detector says of it.

No recorded track is used: the terms of the public ones (MOT17, MOT15, KITTI, DanceTrack) do not permit weights that are
released. Everything that differs between cameras is drawn anew for every scene: how objects move (steady, in formation
with sudden changes, back and forth, toward the camera), how often they cross, how the camera moves, 2 to 30 pictures a
second with jitter and gaps, and the detector: misses, noise that persists, scores that sink with visibility, boxes cut
to the visible part, false and partial boxes, suppression of overlapping ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Rng = np.random.Generator
#: paths are drawn at this rate, then looked up at the times of the pictures
FINE_HZ = 30.0
KINDS = ("walk", "dance", "play", "road")
ASPECT = 16 / 9


@dataclass(frozen=True, slots=True)
class Scene:
    """time_s [F]; a picture's boxes [M,4] (normalised corners), scores [M] and who each shows [M], -1 for nobody."""

    time_s: F64
    box: list[NDArray[np.float32]]
    score: list[NDArray[np.float32]]
    who: list[NDArray[np.int64]]


def draw_scene(seed: int) -> Scene:
    """One scene; the same for the same seed."""
    r = np.random.default_rng([20261123, seed])
    time_s = _times(r)
    fine = int(time_s[-1] * FINE_HZ) + 2
    centre, size, near = _paths(KINDS[r.choice(4, p=(0.35, 0.35, 0.15, 0.15))], fine, r)
    centre, size = _camera(centre, size, r)
    at = time_s * FINE_HZ
    low = at.astype(int)
    part = (at - low)[:, None, None]
    centre = centre[low] * (1 - part) + centre[low + 1] * part
    size = size[low] * (1 - part) + size[low + 1] * part
    return _detect(time_s, centre, size, near[low], r)


def _times(r: Rng) -> F64:
    """Seconds of every picture: a rate of its own, jitter, lost pictures."""
    rate = float(np.exp(r.uniform(np.log(3), np.log(30))))
    n = int(np.clip(rate * 14, 40, 160))
    step = np.full(n, 1 / rate) * (1 + r.choice([0.0, 0.15]) * np.clip(r.standard_normal(n), -2, 2))
    step *= 1 + (r.random(n) < r.choice([0.0, 0.05])) * r.integers(1, 6, n)
    return np.cumsum(step)


def _noise(fine: int, shape: tuple[int, ...], tau_s: float, r: Rng) -> F64:
    """Ornstein-Uhlenbeck noise of unit variance, [fine, *shape]."""
    keep = np.exp(-1 / (FINE_HZ * tau_s))
    out = r.standard_normal((fine, *shape))
    out[1:] *= np.sqrt(1 - keep**2)
    for k in range(1, fine):
        out[k] += keep * out[k - 1]
    return out


def _paths(kind: str, fine: int, r: Rng) -> tuple[F64, F64, F64]:
    """Centres [fine,N,2] and sizes [fine,N,2] in picture heights, and how near each is [fine,N]."""
    n = int(r.integers(4, 13)) if kind == "dance" else int(r.integers(4, 31))
    t = np.arange(fine)[:, None] / FINE_HZ
    if kind == "road":
        return _road(n, t, r)
    tall = float(np.exp(r.uniform(np.log(0.12), np.log(0.6)))) * (1 + 0.1 * r.standard_normal(n))
    tall = np.clip(tall, 0.05, 0.9)
    slender = r.uniform(0.33, 0.5) * (1 + 0.1 * r.standard_normal(n))
    if kind == "dance":
        foot = _dance(n, t, tall, r)
    else:
        foot = _roam(n, fine, tall, r, restless=kind == "play")
    bend = r.uniform(0.0, 0.3) if kind != "walk" else 0.02
    reach = r.uniform(0.1, 0.4) if kind != "walk" else r.uniform(0.02, 0.15)
    beat = _noise(fine, (n, 2), r.uniform(0.3, 1.2), r)
    depth = r.choice([0.0, 0.5]) * (foot[..., 1] - 0.6)
    height = tall * np.clip(1 + depth, 0.4, 2) * (1 - bend * np.clip(beat[..., 0], 0, 1.5) * 0.6)
    width = height * slender * np.exp(reach * np.clip(beat[..., 1], -1, 2) * 0.7)
    centre = np.stack([foot[..., 0], foot[..., 1] - height / 2], -1)
    return centre, np.stack([width, height], -1), foot[..., 1]


def _roam(n: int, fine: int, tall: F64, r: Rng, *, restless: bool) -> F64:
    """Feet [fine,N,2] of people who go their ways; restless ones turn often and fast."""
    speed = tall * (r.uniform(0.3, 1.2) if restless else r.uniform(0.1, 0.8))
    lane = r.choice([-1.0, 1.0], n) * speed
    aim = np.stack([lane, 0.15 * speed * r.standard_normal(n)], -1)
    tau = r.uniform(0.3, 1.0) if restless else r.uniform(0.8, 4.0)
    swing = r.uniform(0.5, 1.2) if restless else r.uniform(0.05, 0.6)
    rate = aim * (0.3 if restless else 1.0) + _noise(fine, (n, 2), tau, r) * (swing * speed)[:, None] * [1.0, 0.3]
    if not restless:
        halt = _noise(fine, (n, 1), 3.0, r) > r.uniform(0.8, 2.5)
        rate *= ~halt
    path = np.cumsum(rate, 0) / FINE_HZ
    rows = r.uniform(0.4, 1.0, max(2, n // 3))
    start = np.stack([r.uniform(0, ASPECT, n), rows[r.integers(0, len(rows), n)] + 0.02 * r.standard_normal(n)], -1)
    return path + start


def _dance(n: int, t: F64, tall: F64, r: Rng) -> F64:
    """Feet [fine,N,2] of a group in formation: all sway, and now and then they change places."""
    gap = r.uniform(0.25, 0.6) * tall.mean()
    slots = np.stack([ASPECT / 2 + gap * (np.arange(n) - (n - 1) / 2), 0.85 + 0.06 * r.standard_normal(n)], -1)
    last, place = t[-1, 0], np.arange(n)
    foot = np.repeat(slots[None], len(t), 0)
    start = r.uniform(0, 2)
    while start < last:
        lasts = r.uniform(1.0, 4.0)
        who = r.permutation(n)[: max(2, int(r.integers(2, n + 1)))]
        new = place.copy()
        new[who] = place[r.permutation(who)]
        part = np.clip((t - start) / lasts, 0, 1)
        part = (part * part * (3 - 2 * part))[..., None]
        foot = foot + part * (slots[new] - slots[place])[None]
        place, start = new, start + lasts + r.exponential(2.0)
    sway = np.zeros_like(foot)
    common = r.uniform(0, 2 * np.pi)
    for k in (1, 2):
        hz = r.uniform(0.15, 0.7) * k
        phase = common + r.choice([0.2, 3.0]) * r.standard_normal((n, 2))
        size = r.uniform(0.02, 0.22) / k * tall[:, None] * np.abs(1 + 0.4 * r.standard_normal((n, 2))) * [1.0, 0.25]
        sway += size * np.sin(2 * np.pi * hz * t[..., None] + phase)
    return foot + sway


def _road(n: int, t: F64, r: Rng) -> tuple[F64, F64, F64]:
    """Vehicles seen from a vehicle or a mast: depth changes, so that boxes grow and shrink toward a point."""
    speed = r.uniform(-9, 9, n) + r.choice([0.0, -8.0]) + 2 * _noise(len(t), (n,), 3.0, r)
    depth = 6 + np.abs(r.uniform(8, 70, n) + np.cumsum(speed, 0) / FINE_HZ - 6)
    side = np.round(r.uniform(-3, 3, n)) * 3.3 + 0.3 * r.standard_normal(n) + 0.5 * _noise(len(t), (n,), 4.0, r)
    focal, mast = r.uniform(0.9, 1.9), r.uniform(1.4, 5.0)
    height = focal * r.uniform(1.3, 2.2, n) / depth
    width = height * r.uniform(1.0, 2.4, n)
    centre = np.stack([ASPECT / 2 + focal * side / depth, 0.45 + focal * mast / depth - height / 2], -1)
    return centre, np.stack([width, height], -1), -depth


def _camera(centre: F64, size: F64, r: Rng) -> tuple[F64, F64]:
    """The same seen by a camera that stands, pans or shakes."""
    kind = r.choice(3, p=(0.6, 0.25, 0.15))
    if kind:
        tau, far = (2.0, 0.25) if kind == 1 else (0.15, 0.02)
        centre = centre + far * r.random() * _noise(len(centre), (1, 2), tau, r) * [1.0, 0.4]
        zoom = np.exp(0.15 * r.random() * (kind == 1) * _noise(len(centre), (1, 1), 3.0, r))
        centre, size = (centre - [ASPECT / 2, 0.5]) * zoom + [ASPECT / 2, 0.5], size * zoom
    return centre, size


def overlaps(a: F64, b: F64) -> tuple[F64, F64]:
    """Common areas [N,M] of boxes a [N,4], b [M,4] (corners), and IoU."""
    common = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = np.prod(np.maximum(common, 0), -1)
    area = [np.prod(x[:, 2:] - x[:, :2], -1) for x in (a, b)]
    return shared, shared / np.maximum(area[0][:, None] + area[1] - shared, 1e-12)


def _detect(time_s: F64, centre: F64, size: F64, near: F64, r: Rng) -> Scene:
    """What a detector with habits of its own says of boxes [F,N,2], [F,N,2]."""
    n = centre.shape[1]
    shake, cut, misses, fill = r.uniform(0.005, 0.04), r.uniform(0, 0.6), r.uniform(0, 0.04), r.uniform(0.6, 1.0)
    best, sag, flicker, strict = r.uniform(0.78, 0.96), r.uniform(0.2, 1.2), r.uniform(0.01, 0.06), r.uniform(0.6, 0.75)
    ghosts, parts, stay = (
        r.choice([0.0, 0.3, 1.0]) * r.random(),
        r.choice([0.0, 0.15]) * r.random(),
        r.uniform(0.05, 0.5),
    )
    good = np.clip(best + 0.04 * r.standard_normal(n), 0.4, 0.97)
    wobble, mood = r.standard_normal((n, 4)), r.standard_normal(n)
    ghost = np.zeros((0, 5))
    # who leaves on one side comes back on the other as somebody else
    turn = np.floor((centre[..., 0] + 0.2) / (ASPECT + 0.4)).astype(int)
    centre = centre - turn[..., None] * [ASPECT + 0.4, 0.0]
    scene = Scene(time_s, [], [], [])
    for k in range(len(time_s)):
        keep = np.exp(-(time_s[k] - time_s[k - 1]) / stay) if k else 0.0
        wobble = keep * wobble + np.sqrt(1 - keep**2) * r.standard_normal((n, 4))
        mood = keep * mood + np.sqrt(1 - keep**2) * r.standard_normal(n)
        box = np.concatenate([centre[k] - size[k] / 2, centre[k] + size[k] / 2], -1)
        seen, cover = _visible(box, near[k], fill)
        noisy = _cut(box, cover, cut * r.random((n, 1)))
        noisy = noisy + wobble * shake * (1 + 1.5 * (1 - seen[:, None])) * np.tile(size[k], 2)
        score = good * (0.2 + 0.8 * seen**sag) + flicker * mood
        inside = (np.minimum(box[:, 2], ASPECT) - np.maximum(box[:, 0], 0)) / (box[:, 2] - box[:, 0])
        told = (score > 0.1) & (seen > 0.08) & (inside > 0.25) & (r.random(n) > misses) & (box[:, 1] < 1)
        poor = np.diagonal(overlaps(box, noisy)[1]) < 0.5
        name = np.where(poor, -1, np.arange(n) + n * (turn[k] - turn.min()))
        rows = np.column_stack([noisy, score, name])[told]
        ghost = _haunt(ghost, ghosts, size[k], r)
        rows = np.concatenate([rows, np.column_stack([ghost, np.full(len(ghost), -1.0)]), _pieces(rows, parts, r)])
        _tell(scene, rows, strict)
    return scene


def _visible(box: F64, near: F64, fill: float) -> tuple[F64, F64]:
    """The visible share [N] of every box, and the box that covers most of it [N,4] (its own where none does)."""
    shared, _ = overlaps(box, box)
    shared = shared * (near[None, :] > near[:, None]) / np.prod(box[:, 2:] - box[:, :2], -1)[:, None]
    seen = np.clip(1 - fill * shared.sum(1), 0, 1)
    most = shared.argmax(1)
    return seen, np.where(shared.max(1)[:, None] > 0.05, box[most], np.nan)


def _cut(box: F64, cover: F64, part: F64) -> F64:
    """Boxes cut on the side where another covers them, by ``part`` of what is covered."""
    left = np.where(cover[:, 0] <= box[:, 0], np.clip(cover[:, 2] - box[:, 0], 0, None), 0.0)
    right = np.where(cover[:, 2] >= box[:, 2], np.clip(box[:, 2] - cover[:, 0], 0, None), 0.0)
    most = 0.6 * (box[:, 2] - box[:, 0])
    out = box.copy()
    out[:, 0] += np.nan_to_num(np.minimum(left, most)) * part[:, 0] * (left < right + 1e-9 + most)
    out[:, 2] -= np.nan_to_num(np.minimum(right, most)) * part[:, 0] * (right < left + 1e-9 + most)
    bad = out[:, 2] - out[:, 0] < 0.2 * (box[:, 2] - box[:, 0])
    out[bad] = box[bad]
    return out


def _haunt(ghost: F64, rate: float, size: F64, r: Rng) -> F64:
    """False boxes [G,5]: those that stay, shaken, and new ones."""
    ghost = ghost[r.random(len(ghost)) < 0.7]
    ghost[:, :4] += 0.005 * r.standard_normal((len(ghost), 4))
    fresh = r.poisson(rate * 0.5)
    if not fresh:
        return ghost
    like = size[r.integers(0, len(size), fresh)] * np.exp(0.3 * r.standard_normal((fresh, 2)))
    at = r.uniform([0, 0.2], [ASPECT, 0.9], (fresh, 2))
    score = 0.1 + 0.7 * r.beta(1, 2.5, (fresh, 1))
    return np.concatenate([ghost, np.column_stack([at - like / 2, at + like / 2, score])])


def _pieces(rows: F64, rate: float, r: Rng) -> F64:
    """Boxes around a part of an object, or around two."""
    out = rows[r.random(len(rows)) < rate].copy()
    side, share = r.integers(0, 4, len(out)), r.uniform(0.25, 0.6, len(out))
    size = np.tile(out[:, 2:4] - out[:, :2], 2)
    move = np.zeros((len(out), 4))
    move[np.arange(len(out)), side] = np.where(side < 2, 1, -1) * share
    out[:, :4] += move * size
    out[:, 4] *= r.uniform(0.2, 0.8, len(out))
    out[:, 5] = -1
    return out


def _tell(scene: Scene, rows: F64, strict: float) -> None:
    """Add a picture: rows [M,6] after suppression of boxes that overlap a surer one."""
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    rows = rows[rows[:, 4] > 0.1]
    _, iou = overlaps(rows[:, :4], rows[:, :4])
    keep = np.ones(len(rows), np.bool_)
    for i in range(len(rows)):
        if keep[i]:
            keep[i + 1 :] &= iou[i, i + 1 :] <= strict
    rows = rows[keep]
    scene.box.append((rows[:, :4] / [ASPECT, 1, ASPECT, 1]).astype(np.float32))
    scene.score.append(np.clip(rows[:, 4], 0, 0.99).astype(np.float32))
    scene.who.append(rows[:, 5].astype(np.int64))

"""People made of kinematics: boxes of somebody who walks, sits down, bends, lies down, or falls, as a detector would see them.

A person has a height, a shape (width / height) and a foot point; an act moves them over seconds. Boxes tremble, are cut off by
the picture's border and are missed more often when the person lies. ``down_s`` tells falls: an act that takes less than a second
from upright to lying, and stays. Sitting down, bending to the floor, crouching, and lying down slowly are not falls.
"""

from __future__ import annotations

import numpy as np

FPS = 10.0
ACTS = ("walk", "stand", "sit", "bend", "crouch", "lie_down", "lying", "fall", "sit_fall", "turn", "toward")


def ease(t: np.ndarray, start: float, took: float) -> np.ndarray:
    """0 before ``start``, 1 after ``start + took``, smooth between; a fall accelerates."""
    u = np.clip((t - start) / took, 0, 1)
    return u * u * (3 - 2 * u)


def person(act: str, r: np.random.Generator, seconds: float = 8.0) -> tuple[np.ndarray, ...]:
    """time [t], height [t], shape [t], bottom [t], label [t]; heights in picture heights."""
    steps = np.clip(r.normal(1 / FPS, 0.015, int(seconds * FPS)), 0.04, 0.25)
    t = np.cumsum(steps) - steps[0]
    tall, slim = r.uniform(0.12, 0.95), r.uniform(0.28, 0.5)
    bottom0 = r.uniform(max(0.45, tall), max(0.46, min(1.05, tall + 0.6)))
    start = r.uniform(1.0, 4.5)
    height, shape, bottom = np.full_like(t, tall), np.full_like(t, slim), np.full_like(t, bottom0)
    label = np.zeros_like(t)
    if act in ("walk", "toward"):
        height = height * np.exp(np.cumsum(r.normal(0, 0.3 if act == "toward" else 0.05) * steps * 0.5))
        bottom = bottom + (height - tall) * r.uniform(0.3, 1.0)
        shape = shape * (1 + 0.18 * np.sin(2 * np.pi * t * r.uniform(0.8, 1.3)))
    elif act == "turn":
        shape = shape * (1 + r.uniform(0.2, 0.8) * ease(t, start, r.uniform(0.3, 1.0)))
    elif act == "sit":
        u = ease(t, start, r.uniform(0.6, 1.6))
        height, shape = tall * (1 - r.uniform(0.15, 0.38) * u), slim * (1 + r.uniform(0.1, 0.9) * u)
    elif act in ("bend", "crouch"):
        back = start + r.uniform(0.7, 2.2) if act == "bend" else start + r.uniform(2, 6)
        u = ease(t, start, r.uniform(0.4, 1.2)) - ease(t, back, r.uniform(0.5, 1.2))
        height, shape = tall * (1 - r.uniform(0.2, 0.5) * u), slim * (1 + r.uniform(0.4, 1.6) * u)
        if r.random() < 0.4:  # somebody who sits already
            shape, height = shape * 1.5, height * 0.8
    elif act in ("lie_down", "lying", "fall", "sit_fall"):
        flat = r.uniform(0.16, 0.45)
        wide = r.uniform(0.7, 1.2) if r.random() < 0.3 else r.uniform(1.1, 3.0)  # towards the camera, or across
        took = r.uniform(2.0, 4.5) if act == "lie_down" else r.uniform(0.45, 1.1)
        u = ease(t, -9 if act == "lying" else start, took)
        if act == "sit_fall":
            height, shape = height * r.uniform(0.65, 0.85), shape * r.uniform(1.2, 1.7)
            slim, tall = shape[0], height[0]
        height = tall * (1 - (1 - flat) * u)
        shape = np.exp(np.log(slim) + (np.log(wide) - np.log(slim)) * u)
        bottom = bottom + r.uniform(-0.12, 0.06) * tall * u
        if act in ("fall", "sit_fall"):
            label = ((t >= start + 0.55 * took) & (t <= start + took + 3.0)).astype(np.float64)
            label[(t > start + 0.25 * took) & (t < start + 0.55 * took)] = np.nan
            label[t > start + took + 3.0] = np.nan
    return t, height, shape, bottom, label


def observe(act: str, r: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """numbers [t,6] as ``engines.events.track_numbers`` makes them, label [t], time_s [t] of the pictures where a box was seen."""
    t, height, shape, bottom, label = person(act, r)
    noise = r.uniform(0.005, 0.05)
    low = shape > 0.9
    seen = r.random(len(t)) > np.where(low, r.uniform(0, 0.6), r.uniform(0, 0.12))
    if low.any() and r.random() < 0.3:  # lost for good, a while after
        seen &= t < t[np.argmax(low)] + r.uniform(0.2, 2.0)
    height = height * np.exp(r.normal(0, noise, len(t)))
    shape = shape * np.exp(r.normal(0, 1.5 * noise, len(t)))
    bottom = bottom + r.normal(0, noise, len(t)) * height
    top = np.clip(bottom - height, 0, 0.98)
    width = shape * height
    bottom = np.clip(bottom, top + 0.02, 1.0)
    score = np.clip(r.normal(np.where(low, 0.45, 0.75), 0.12), 0.1, 0.95)
    t, top, bottom, width, score, label = (a[seen] for a in (t, top, bottom, width, score, label))
    if len(t) < 8:
        return observe(act, r)
    tall = bottom - top
    # the tracker's velocity lags by a few pictures
    middle, down = (top + bottom) / 2, np.zeros_like(t)
    for i in range(1, len(t)):
        pace = (middle[i] - middle[i - 1]) / max(t[i] - t[i - 1], 0.03)
        down[i] = 0.55 * down[i - 1] + 0.45 * pace
    numbers = np.stack([np.log(tall), np.log(width / tall), top, bottom, np.clip(down / tall, -4, 4), score], 1)
    return numbers.astype(np.float32), label.astype(np.float32), t


def crowd(count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """``count`` people, a third of them fall."""
    r = np.random.default_rng(seed)
    calm = [a for a in ACTS if a not in ("fall", "sit_fall")]
    return [
        observe(str(r.choice(("fall", "fall", "sit_fall") if r.random() < 0.35 else calm)), r) for _ in range(count)
    ]

"""Pseudo-tracks: who is who in the training clips, by linking confident detections over time.

Only what nobody could dispute is kept: boxes that overlap no other box, linked frame to frame by overlap, in tracks
of some length. Two tracks seen in one frame are two people; two tracks that never met may be the same person, and
are never used as a negative pair.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from single_picture import detect_in

from vedette.engines.api import Engine
from vedette.kernels.nms import iou_matrix


@dataclass(slots=True)
class Scene:
    """A clip (or a single picture): JPEG frames, their times, and the objects in each: rows [N,6] track, label, box px."""

    name: str
    frames: list[np.ndarray] = field(default_factory=list)
    time_s: list[float] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)


def detect(engine: Engine, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [N,4] px and labels [N] that the engine is sure of."""
    found = detect_in(engine, image)
    found = found[found.score > 0.4]
    size = np.array([image.shape[1], image.shape[0]] * 2, np.float32)
    return found.xyxy * size, found.label


def link_clip(engine: Engine, clip: Path, hz: float, min_views: int = 4) -> Scene:
    """Frames of a clip at about ``hz`` with pseudo-tracks of at least ``min_views`` views."""
    scene = Scene(clip.stem)
    capture = cv2.VideoCapture(str(clip))
    fps = capture.get(cv2.CAP_PROP_FPS) or 25
    step, k, fresh = max(1, round(fps / hz)), -1, 0
    alive: dict[int, tuple[np.ndarray, int, int]] = {}  # track -> box, label, frame last seen
    while True:
        ok, image = capture.read()
        k += 1
        if not ok:
            break
        if k % step:
            continue
        r = 1280 / max(image.shape[:2])
        if r < 1:
            image = cv2.resize(image, None, fx=r, fy=r, interpolation=cv2.INTER_AREA)
        boxes, labels = detect(engine, image)
        n = len(scene.frames)
        alive = {t: v for t, v in alive.items() if n - v[2] <= 2}
        tracks = np.full(len(boxes), -1)
        if len(boxes) and alive:
            ids = list(alive)
            overlap = iou_matrix(np.stack([alive[t][0] for t in ids]), boxes)
            while overlap.size and overlap.max() > 0.4:
                i, j = np.unravel_index(overlap.argmax(), overlap.shape)
                if alive[ids[i]][1] == labels[j]:
                    tracks[j] = ids[i]
                    overlap[i], overlap[:, j] = 0, 0
                else:
                    overlap[i, j] = 0
        crowd = iou_matrix(boxes, boxes) - np.eye(len(boxes), dtype=np.float32)
        keep = crowd.max(1, initial=0) < 0.05
        for j in range(len(boxes)):
            if tracks[j] < 0:
                tracks[j], fresh = fresh, fresh + 1
            alive[int(tracks[j])] = (boxes[j], int(labels[j]), n)
        rows = np.concatenate([tracks[:, None], labels[:, None], boxes], 1)[keep] if len(boxes) else np.zeros((0, 6))
        scene.frames.append(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])
        scene.time_s.append(k / fps)
        scene.rows.append(rows.astype(np.float32))
    views = np.bincount(np.concatenate([r[:, 0] for r in scene.rows]).astype(int), minlength=1)
    scene.rows = [r[views[r[:, 0].astype(int)] >= min_views] for r in scene.rows]
    return scene


def picture_scene(path: Path, rows: np.ndarray) -> Scene:
    """A labelled picture ([N,5] label, box) as a scene of one frame in which every object is its own track."""
    numbered = np.concatenate([np.arange(len(rows))[:, None], rows], 1).astype(np.float32)
    return Scene(path.stem, [np.fromfile(path, np.uint8)], [0.0], [numbered])

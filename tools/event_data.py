"""Clips of `event_features` as the temporal engine gets them: motion tokens, track tokens, times; and synthetic people.

The path is the daemon's: detections go through the tracker, its confirmed tracks become `track_tokens`, the grey thumbnail
becomes the token of `vedette.streamer.infer.motion`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vedette.engines.api import Detections, Letterbox
from vedette.engines.temporal_spec import EMBEDDING_DIM, TOKEN_DIM
from vedette.engines.temporal_tracks import TrackFrame, track_tokens
from vedette.streamer.infer.motion import MotionEye, covered
from vedette.streamer.tracking.tracker import Tracker

CANVAS_HW = (256, 416)
SLOTS = 16


@dataclass(slots=True)
class Sequence:
    """One clip. motion [t,128], tokens [t,SLOTS,TOKEN_DIM], present bool [t,SLOTS], time_s [t]; fight: 0, 1 or -1 (not said);
    track: labels [t,SLOTS,2] of fall and run, NaN where not said."""

    name: str
    group: str
    motion: np.ndarray
    tokens: np.ndarray
    present: np.ndarray
    time_s: np.ndarray
    fight: int = -1
    track: np.ndarray | None = None
    boxes: np.ndarray | None = None


def read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of one extracted clip and what is known of it."""
    with np.load(path) as file:
        arrays = {k: file[k] for k in file.files if (k[0] != "d" and k[0] not in "sm") or k in ("score", "scene")}
        return arrays, json.loads(str(file["meta"]))


def detections_of(arrays: dict[str, np.ndarray]) -> list[Detections]:
    ends = np.cumsum(arrays["count"])
    return [
        Detections(
            arrays["xyxy"][e - n : e].astype(np.float32),
            arrays["score"][e - n : e].astype(np.float32),
            arrays["label"][e - n : e].astype(np.int32),
            arrays["embedding"][e - n : e].astype(np.float32),
        )
        for n, e in zip(arrays["count"].tolist(), ends.tolist(), strict=True)
    ]


def motion_tokens(arrays: dict[str, np.ndarray], found: list[Detections], aspect: float) -> np.ndarray:
    """[t,128]; the first two say nothing."""
    eye, box = MotionEye(), Letterbox.fit((1000, round(1000 * aspect)), CANVAS_HW)
    return np.stack(
        [
            eye.measure(0, covered(grey, box), d, float(t))
            for grey, d, t in zip(arrays["grey"], found, arrays["time_s"], strict=True)
        ]
    )


def sequence(path: Path) -> Sequence:
    """An extracted clip as the engine sees it."""
    arrays, meta = read(path)
    found = detections_of(arrays)
    motion = motion_tokens(arrays, found, meta["aspect"])
    frames = len(found)
    tokens = np.zeros((frames, SLOTS, TOKEN_DIM), np.float32)
    present = np.zeros((frames, SLOTS), np.bool_)
    boxes = np.zeros((frames, SLOTS, 4), np.float32)
    tracker, slot = Tracker(), dict[int, int]()
    for t, (detections, time_s) in enumerate(zip(found, arrays["time_s"], strict=True)):
        (tracks,) = tracker.update(["c"], [float(time_s)], [detections[detections.label <= 5]], [meta["aspect"]])
        tracks = tracks[tracks.confirmed]
        tracks = tracks[np.argsort(tracks.id, kind="stable")]
        kept = detections[detections.label <= 5]
        seen = tracks.detection >= 0
        look = np.zeros((len(tracks), EMBEDDING_DIM), np.float32)
        look[seen] = kept.embedding[tracks.detection[seen]]
        frame = TrackFrame(
            0,
            float(time_s),
            tracks.id,
            tracks.xyxy,
            tracks.velocity_per_s,
            tracks.score,
            tracks.age_s,
            tracks.label,
            seen,
            look,
        )
        rows = track_tokens(frame)
        for i, number in enumerate(tracks.id.tolist()):
            if number not in slot and len(slot) < SLOTS:
                slot[number] = len(slot)
            if number in slot and seen[i]:
                tokens[t, slot[number]], present[t, slot[number]] = rows[i], True
                boxes[t, slot[number]] = tracks.xyxy[i]
    return Sequence(
        meta["clip"],
        meta["group"],
        motion,
        tokens,
        present,
        arrays["time_s"].astype(np.float64),
        meta.get("label", -1),
        boxes=boxes,
    )


def fall_span(classes: str) -> tuple[float, float] | None:
    """Seconds of the fall in a GMDCSA24 line (``Falling (BW) [0.4 to 4]; ...``), or None."""
    found = re.search(r"Fall[^\[]*\[\s*([\d.]+)\s*to\s*([\d.]+)\s*\]", classes)
    return (float(found[1]), float(found[2])) if found else None


def load(folder: Path, what: str, variant: int, cache: Path) -> list[Sequence]:
    """All clips of a set and variant, cached as one npz."""
    store = cache / f"seq_{what}_{variant}.npz"
    paths = sorted((folder / what / str(variant)).glob("*.npz"))
    if not store.exists():
        arrays = {}
        for i, path in enumerate(paths):
            s = sequence(path)
            for key in ("motion", "tokens", "present", "time_s", "boxes"):
                arrays[f"{i}/{key}"] = getattr(s, key)
            arrays[f"{i}/say"] = np.array(json.dumps([s.name, s.group, s.fight]))
        np.savez_compressed(store, **arrays)
    with np.load(store) as file:
        out = []
        for i in range(len([k for k in file.files if k.endswith("/say")])):
            name, group, fight = json.loads(str(file[f"{i}/say"]))
            parts = {k: file[f"{i}/{k}"] for k in ("motion", "tokens", "present", "time_s", "boxes")}
            out.append(Sequence(name, group, fight=fight, **parts))
    return out

"""Learned evidence by folds: running means of what moved, at several half-lives, and a small head. Fight and fall.

The model that won on held-out groups (see ``weights/vedette-events.md``). It is RIFT's fold memory without the attention:

    total <- total 2^(-dt/H) + 1;   mean <- mean + (x - mean) / total          for each half-life H
    fight = w . [mean_H ...] + b                                               of a camera, x = its motion token
    fall  = v . tanh(W [x, x - mean_H ...] + c) + d                            of a track, x = its box

Timestamps drive the decay, so lost pictures change nothing; steps are at most one in ``pace_s``, and what is asked
in between is answered with the last answer.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import F32, LABELS, EngineFault
from vedette.engines.runtimes.onnxruntime import OrtRuntime
from vedette.engines.strictjson import load_json
from vedette.engines.temporal_spec import sidecar_path
from vedette.engines.temporal_tracks import HISTORY_S, Judgement, TrackFrame

SCHEMA = "vedette.events/1"
#: What a motion token ends in, alternating in sign (`vedette.streamer.infer.motion`).
CARRIER = 2.0
#: Numbers of a track: ln height, ln shape (width / height), top, bottom, vertical speed in heights a second, score.
TRACK_NUMBERS = 6
#: A track or camera that was silent for longer starts anew, seconds.
FORGET_S = 30.0
#: Steps of a camera or a track that an explanation can look back on.
LOOK_BACK = 64
#: Width / height of a picture nobody told it of.
DEFAULT_ASPECT = 16 / 9
PERSON = LABELS.index("person")


@dataclass(frozen=True, slots=True)
class EventsSpec:
    """The sidecar. motion: numbers at the head of the motion token; the one after them is the picture's width / height.
    scene_half_lives_s, track_half_lives_s: of the folds. pace_s: steps closer than this are not made. sha256: of the graph.
    linear: weight, mean and deviation of the scene's head, for explanations."""

    motion: int
    scene_half_lives_s: tuple[float, ...]
    track_half_lives_s: tuple[float, ...]
    pace_s: float
    sha256: str
    linear: tuple[tuple[float, ...], ...]
    scene: tuple[str, ...] = ("fight",)
    tracks: tuple[str, ...] = ("fall",)

    def to_json(self) -> str:
        own = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({"schema": SCHEMA, **own}, indent=1, sort_keys=True) + "\n"


def schema_of(model: Path) -> str:
    """What kind of model a sidecar announces. EngineFault when there is none that can be read."""
    path = sidecar_path(model)
    try:
        return str(load_json(path.read_text())["schema"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise EngineFault(f"{path}: is no sidecar of a temporal model, got {e!r}; export the model again") from e


def load_spec(model: Path) -> EventsSpec:
    """The spec of a graph, refused when it belongs to another."""
    path = sidecar_path(model)
    try:
        raw: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in load_json(path.read_text()).items()
        }
        raw.pop("schema")
        spec = EventsSpec(**raw)
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
        raise EngineFault(f"{path}: is no sidecar of an events model, got {e!r}; export the model again") from e
    if digest != spec.sha256:
        raise EngineFault(f"{model}: does not belong to its sidecar, got sha256 {digest[:12]}; export the model again")
    return spec


def track_numbers(frame: TrackFrame, aspect: float) -> F32:
    """f32 [N,TRACK_NUMBERS] of a picture of that width / height."""
    x1, y1, x2, y2 = frame.xyxy.T
    height, width = np.maximum(y2 - y1, 1e-3), np.maximum(x2 - x1, 1e-3) * aspect
    down = np.clip(frame.velocity_per_s[:, 1] / height, -4, 4)
    return np.stack((np.log(height), np.log(width / height), y1, y2, down, frame.score), 1).astype(np.float32)


@dataclass(slots=True)
class _Folds:
    """Memory of one stream. steps: (time, input) of the latest, for explanations."""

    mean: F32
    total: F32
    since_s: float
    last_s: float
    value: float = float("nan")
    steps: deque[tuple[float, F32]] = field(default_factory=lambda: deque(maxlen=LOOK_BACK))


#: A stream's memory, its input, and when.
Row = tuple[_Folds, F32, float]


class EventEvidence:
    """Implements `vedette.engines.temporal_tracks.Evidence` over an events graph, for any number of cameras."""

    def __init__(self, model: Path, *, threads: int = 1) -> None:
        self.spec = load_spec(model)
        self.names, self.scene_names = self.spec.tracks, self.spec.scene
        self._runtime = OrtRuntime(model, threads=threads)
        self._scenes: dict[int, _Folds] = {}
        self._tracks: dict[int, dict[int, _Folds]] = {}
        self._asked: dict[int, float] = {}

    def step(self, frames: Sequence[TrackFrame]) -> list[Judgement]:
        """One judgement a frame, in order. A frame without a motion token has no fight evidence."""
        refused = [self._open(frame) for frame in frames]
        due = [f for f, bad in zip(frames, refused, strict=True) if not bad and self._is_due(f)]
        moving = [(f, motion_of(f, self.spec.motion)) for f in due]
        # all zero: there was no picture to compare with
        scene = [(self._scene(f), m[0], f.time_s) for f, m in moving if m is not None and m[0].any()]
        tracks = [row for f, m in moving for row in self._rows(f, m[1] if m is not None else DEFAULT_ASPECT)]
        self._run(scene, tracks)
        return [self._judgement(f, bad) for f, bad in zip(frames, refused, strict=True)]

    def explain(self, slot: int) -> list[tuple[float, float]]:
        """What each past step of the camera adds to the logit of its fight: (seconds ago, share), newest last.

        The head is linear in the means, so the shares are exact: they and the bias add up to the logit.
        """
        folds = self._scenes.get(slot)
        if folds is None or not folds.steps:
            return []
        weight, mean, std = (np.asarray(v) for v in self.spec.linear)
        times = np.array([t for t, _ in folds.steps])
        rows = np.clip((np.stack([x for _, x in folds.steps]) - mean) / std, -5, 5)
        fade = np.exp2(-(times[-1] - times)[:, None] / np.asarray(self.spec.scene_half_lives_s))
        each = rows @ weight.reshape(len(self.spec.scene_half_lives_s), -1).T
        share = (each * fade / folds.total).sum(1)
        return [(round(float(times[-1] - t), 3), float(s)) for t, s in zip(times, share, strict=True)]

    def weigh(self, slot: int, numbers: F32) -> NDArray[np.float64] | None:
        """f64 [n]: what the camera's latest step would add to the logit of its fight, had its motion numbers been these [n,F]."""
        folds = self._scenes.get(slot)
        if folds is None or not folds.steps:
            return None
        weight, mean, std = (np.asarray(v) for v in self.spec.linear)
        each = weight.reshape(len(self.spec.scene_half_lives_s), -1) / folds.total[:, None]
        return np.asarray(np.clip((numbers - mean) / std, -5, 5) @ each.sum(0), np.float64)

    def explain_track(self, slot: int, number: int) -> list[tuple[float, float]]:
        """What the logit of somebody's fall loses without each past step: (seconds before the newest, loss), newest last.

        The head is not linear, so the losses do not add up. The newest step is what is judged and has no loss of its own.
        """
        folds = self._tracks.get(slot, {}).get(number)
        if folds is None or len(folds.steps) < 2:
            return []
        times = np.array([t for t, _ in folds.steps])
        x = np.stack([x for _, x in folds.steps])
        blank = np.zeros((len(x), *folds.mean.shape), np.float32)
        scaled = self._judge_tracks(x, blank, blank[..., 0])["track_n_mean"][:, 0]  # the mean of one step is that step
        fade = np.exp2(-(times[-1] - times)[:, None] / np.asarray(self.spec.track_half_lives_s))
        fade[-1] = 0.0  # in the last row nothing is left out
        # what was remembered before the newest step, less the step that is left out
        total = np.maximum(folds.total - 1 - fade, 1e-6)
        sums = folds.mean * folds.total[:, None] - scaled[-1] - fade[..., None] * scaled[:, None]
        logit = self._judge_tracks(np.repeat(x[-1:], len(x), 0), sums / total[..., None], total)["track_logit"][:, 0]
        return [(round(float(times[-1] - t), 3), float(logit[-1] - v)) for t, v in zip(times, logit, strict=True)]

    def _judge_tracks(self, x: F32, mean: NDArray[Any], total: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """The track part of the graph for these inputs after these memories, which are kept as they are."""
        nobody = np.zeros((1, len(self.spec.scene_half_lives_s)), np.float32)
        feeds: dict[str, NDArray[Any]] = {
            "track_x": x, "track_mean": mean, "track_total": total, "track_decay": np.ones_like(total),
            "scene_x": np.zeros((1, self.spec.motion)), "scene_mean": np.zeros((*nobody.shape, self.spec.motion)),
            "scene_total": nobody, "scene_decay": nobody,
        }  # fmt: skip
        return dict(self._runtime.run({name: np.asarray(value, np.float32) for name, value in feeds.items()}))

    def _open(self, frame: TrackFrame) -> tuple[str, ...]:
        """Make room for the camera; why the frame cannot be used, if so."""
        if frame.reset:
            self._scenes.pop(frame.slot, None)
            self._tracks.pop(frame.slot, None)
            self._asked.pop(frame.slot, None)
        where = f"camera slot {frame.slot}"
        if not np.isfinite(frame.time_s) or frame.time_s < self._asked.get(frame.slot, -np.inf):
            return (
                f"{where}: time_s: must be finite and not fall within an epoch, got {frame.time_s}; the frame is skipped",
            )
        if frame.scene is not None and not np.isfinite(frame.scene[-1]).all():
            return (f"{where}: motion token: must be finite, got NaN or infinity; the frame is skipped",)
        return ()

    def _is_due(self, frame: TrackFrame) -> bool:
        last = self._asked.get(frame.slot)
        if last is not None and frame.time_s - last < self.spec.pace_s - 1e-6:
            return False
        self._asked[frame.slot] = frame.time_s
        return True

    def _scene(self, frame: TrackFrame) -> _Folds:
        folds = self._scenes.get(frame.slot)
        if folds is None or frame.time_s - folds.last_s > FORGET_S:
            folds = self._scenes[frame.slot] = _new(self.spec.motion, self.spec.scene_half_lives_s, frame.time_s)
        return folds

    def _rows(self, frame: TrackFrame, aspect: float) -> list[Row]:
        """The people who are seen in this frame. Who has not been for long is forgotten."""
        known = self._tracks.setdefault(frame.slot, {})
        here = set(frame.id.tolist())
        for number in [n for n, f in known.items() if n not in here and frame.time_s - f.last_s > FORGET_S]:
            del known[number]
        numbers = track_numbers(frame, aspect)
        rows = []
        for i in np.flatnonzero(frame.seen & (frame.label == PERSON) & np.isfinite(numbers).all(1)).tolist():
            number = int(frame.id[i])
            if number not in known:
                known[number] = _new(TRACK_NUMBERS, self.spec.track_half_lives_s, frame.time_s)
            rows.append((known[number], numbers[i], frame.time_s))
        return rows

    def _run(self, scene: Sequence[Row], tracks: Sequence[Row]) -> None:
        """One step of these streams, all in one call; a part without streams runs one empty row."""
        if not scene and not tracks:
            return
        parts = (
            ("scene", scene, self.spec.scene_half_lives_s, self.spec.motion),
            ("track", tracks, self.spec.track_half_lives_s, TRACK_NUMBERS),
        )
        feeds: dict[str, NDArray[Any]] = {}
        for part, rows, half_lives_s, width in parts:
            used = rows or [(_new(width, half_lives_s, 0.0), np.zeros(width, np.float32), 0.0)]
            gone_s = np.array([time_s - folds.last_s for folds, _, time_s in used])
            feeds |= {
                f"{part}_x": np.stack([x for _, x, _ in used]).astype(np.float32),
                f"{part}_mean": np.stack([folds.mean for folds, _, _ in used]),
                f"{part}_total": np.stack([folds.total for folds, _, _ in used]),
                f"{part}_decay": np.exp2(-gone_s[:, None] / np.asarray(half_lives_s)).astype(np.float32),
            }
        out = self._runtime.run(feeds)
        for part, rows, _, _ in parts:
            for i, (folds, x, time_s) in enumerate(rows):
                folds.mean, folds.total = out[f"{part}_n_mean"][i], out[f"{part}_n_total"][i]
                folds.last_s, folds.value = time_s, float(0.5 + 0.5 * np.tanh(0.5 * out[f"{part}_logit"][i, 0]))
                folds.steps.append((time_s, x))

    def _judgement(self, frame: TrackFrame, refused: tuple[str, ...]) -> Judgement:
        evidence = np.full((len(frame.id), len(self.names)), np.nan, np.float32)
        scene = np.full(len(self.scene_names), np.nan, np.float32)
        if not refused:
            known = self._tracks.get(frame.slot, {})
            for i in np.flatnonzero(frame.seen).tolist():
                folds = known.get(int(frame.id[i]))
                if folds is not None and frame.time_s - folds.since_s >= HISTORY_S - 1e-6:
                    evidence[i, 0] = folds.value
            folds = self._scenes.get(frame.slot)
            if folds is not None and frame.time_s - folds.since_s >= HISTORY_S - 1e-6:
                scene[0] = folds.value
        return Judgement(evidence, scene, None, refused)


def motion_of(frame: TrackFrame, count: int) -> tuple[F32, float] | None:
    """The motion numbers [count] of a frame and its picture's width / height; None where the last token is no motion token.

    A motion token ends in a steady wave of +-`CARRIER`, which no scene token does.
    """
    if frame.scene is None or not len(frame.scene) or frame.scene.shape[1] < count + 3:
        return None
    token = frame.scene[-1]
    if not (np.abs(token[count + 1 :]) == CARRIER).all():
        return None
    return token[:count], float(token[count])


def _new(width: int, half_lives_s: tuple[float, ...], time_s: float) -> _Folds:
    count = len(half_lives_s)
    return _Folds(np.zeros((count, width), np.float32), np.zeros(count, np.float32), time_s, time_s)

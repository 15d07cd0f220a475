"""What `process` leaves of a file: tracks, alerts, a summary, and the annotated clip.

``tracks.txt`` (persons) and ``tracks.<label>.txt`` are MOTChallenge results: 1-based source frames, pixels of the
source, confirmed tracks in the frames that really show them (a position that was only predicted is not a
result). Every file is written, also when it stays empty.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import cv2
import numpy as np

from vedette.engines.api import Detections
from vedette.streamer.alert import alert_from_event, encode_alert, rfc3339
from vedette.streamer.config.schema import CameraDefaults
from vedette.streamer.errors import VedetteError
from vedette.streamer.infer.pipeline import Outcome
from vedette.streamer.infer.trackstream import track_message
from vedette.streamer.offline.annotate import Annotator
from vedette.streamer.offline.motchallenge import reportable, write_tracks
from vedette.streamer.offline.videofile import U8, Picture
from vedette.streamer.rules.base import labels_of
from vedette.streamer.types import Event

#: The label whose tracks go to ``tracks.txt``.
MAIN = "person"


class Results:
    """The files of one video, in ``folder``; older results there are replaced. A context manager.

    site, boot: as in the alerts. labels: the engine's, in its order. annotate_fps: frames a second of
    ``annotated.mp4``, None for no clip. detections: also write ``det.txt``, what the tracker was given of persons, so
    that other trackers can be run on the same.
    """

    def __init__(
        self,
        folder: Path,
        section: CameraDefaults,
        labels: Sequence[str],
        *,
        site: str,
        boot: str,
        annotate_fps: float | None = None,
        detections: bool = False,
    ) -> None:
        self.folder, self._labels, self._site, self._boot = folder, tuple(labels), site, boot
        folder.mkdir(parents=True, exist_ok=True)
        for old in [*folder.glob("tracks*.txt"), *(folder / n for n in ("annotated.mp4", "summary.json", "det.txt"))]:
            old.unlink(missing_ok=True)
        (folder / "tracks.txt").touch()  # also where the engine knows no persons
        wanted = labels_of(section.classes).union(*(labels_of(rule.classes or []) for rule in section.rules)) | {MAIN}
        self._files: dict[int, TextIO] = {
            i: (folder / (f"tracks.{label}.txt" if label != MAIN else "tracks.txt")).open("w", encoding="utf-8")
            for i, label in enumerate(self._labels)
            if label in wanted
        }
        self._detections = (folder / "det.txt").open("w", encoding="utf-8") if detections else None
        self._alerts = (folder / "alerts.jsonl").open("wb")
        self._seq = 0
        self._counts: Counter[tuple[str, str]] = Counter()
        self._tracks: dict[str, set[int]] = {}
        self._boxes = 0
        self._clip = None if annotate_fps is None else _Clip(folder / "annotated.mp4", section, annotate_fps)

    def take(self, picture: Picture, outcome: Outcome, detections: Detections) -> None:
        """Write what one picture gave."""
        box = picture.letterbox
        if self._detections is not None:
            persons = detections[np.array([self._labels[i] == MAIN for i in detections.label.tolist()], np.bool_)]
            write_detections(self._detections, picture.index + 1, persons, box.source_w, box.source_h)
        shown = reportable(outcome.tracks)
        for i, file in self._files.items():
            self._boxes += write_tracks(file, picture.index + 1, shown[shown.label == i], box.source_w, box.source_h)
        for number, label in zip(shown.id.tolist(), shown.label.tolist(), strict=True):
            self._tracks.setdefault(self._labels[label], set()).add(number)
        alerts = self.take_events(outcome.events)
        if self._clip is not None and picture.full is not None:
            size = (box.source_w, box.source_h)
            message = track_message(self._site, self._boot, outcome.moment, size, outcome.tracks, self._labels)
            self._clip.add(picture.full, message, alerts, picture.time_s)

    def take_events(
        self, events: Sequence[Event], evidence: dict[str, str | None] | None = None
    ) -> list[dict[str, Any]]:
        """Write these events as alerts; the alerts. evidence: what they show."""
        alerts = []
        for event in events:
            previous, self._seq = self._seq or None, self._seq + 1
            alert = alert_from_event(
                event, site=self._site, stream=None, seq=self._seq, prev=previous, evidence=evidence
            )
            self._alerts.write(encode_alert(alert) + b"\n")
            self._counts[event.rule, event.phase] += 1
            alerts.append(alert)
        return alerts

    def summarise(self, about: dict[str, Any]) -> dict[str, Any]:
        """Write ``summary.json``: ``about``, and what was found. Returns it."""
        rules = sorted({rule for rule, _ in self._counts})
        summary = {
            "schema": "vedette.process/1",
            **about,
            "boxes": self._boxes,
            "tracks": {label: len(ids) for label, ids in sorted(self._tracks.items())},
            "alerts": {rule: {phase: self._counts[rule, phase] for phase in ("start", "update", "end")} for rule in rules},
        }  # fmt: skip
        (self.folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        return summary

    def close(self) -> None:
        """Close every file."""
        for file in self._files.values():
            file.close()
        self._alerts.close()
        if self._detections is not None:
            self._detections.close()
        if self._clip is not None:
            self._clip.close()

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_detections(file: TextIO, frame: int, detections: Detections, width_px: int, height_px: int) -> None:
    """Write a line for each detection, ``frame,-1,x,y,w,h,conf,-1,-1,-1`` in pixels (MOTChallenge det.txt)."""
    size = np.array([width_px, height_px] * 2)
    for (x1, y1, x2, y2), score in zip((detections.xyxy * size).tolist(), detections.score.tolist(), strict=True):
        file.write(f"{frame},-1,{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.4f},-1,-1,-1\n")


class _Clip:
    """``annotated.mp4``: as large as the first picture, whatever comes later."""

    def __init__(self, path: Path, section: CameraDefaults, fps: float) -> None:
        self._path, self._fps = path, fps
        self._annotator = Annotator(section.zones, section.lines)
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def add(self, picture: U8, message: dict[str, Any], alerts: Sequence[dict[str, Any]], time_s: float) -> None:
        """Draw and append one picture."""
        for alert in alerts:
            self._annotator.take(alert, time_s)
        caption = f"{message['camera']}  {rfc3339(time_s)[11:23]}  {len(message['tracks'])} tracks"
        self._annotator.draw(picture, message["tracks"], caption, time_s)
        if self._writer is None:
            self._open(picture)
        assert self._writer is not None
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = np.asarray(cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA), np.uint8)
        self._writer.write(picture)

    def _open(self, picture: U8) -> None:
        # MPEG-4 Part 2 wants even sides, and is the codec every OpenCV wheel can write
        self._size = (max(2, picture.shape[1] // 2 * 2), max(2, picture.shape[0] // 2 * 2))
        self._writer = cv2.VideoWriter(str(self._path), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, self._size)
        if not self._writer.isOpened():
            raise VedetteError(f"{self._path}: cannot be written as mp4; leave --annotate out")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()

"""Files through the whole path, as fast as possible and with the same result every time.

The same pipeline as the daemon's, fed with every picture of a file in order, one a call: nothing depends on
timing. Time is the file's own, from ``start`` on; schedules are read in the time zone of ``start``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vedette.engines.api import Batch, Engine
from vedette.streamer.alert import rfc3339
from vedette.streamer.capture.picturemeter import PictureMeter
from vedette.streamer.capture.privacy import PrivacyMask
from vedette.streamer.config.schema import CameraDefaults
from vedette.streamer.errors import SourceError
from vedette.streamer.infer.incidents import Moment
from vedette.streamer.infer.learned import EvidenceStage
from vedette.streamer.infer.motion import MotionEye
from vedette.streamer.infer.pipeline import Outcome, Pipeline
from vedette.streamer.infer.stillness import SkipStill
from vedette.streamer.offline.fileclips import FileClips
from vedette.streamer.offline.fileresults import Results
from vedette.streamer.offline.videofile import UNKNOWN_FPS, Ahead, Picture, VideoFile
from vedette.streamer.tracking.tracker import TrackerConfig

#: The ``boot`` of every file, so that ids are the same in every run.
BOOT = "process"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Called after each picture with how many were done.
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How files are processed. start: wall time of the first picture, with its time zone. fps: at most so many
    pictures a second of the file's time, None for every one. skip_still_s: see `SkipStill`; 0 looks at every one."""

    section: CameraDefaults
    site: str = "site"
    start: datetime = EPOCH
    fps: float | None = None
    annotate: bool = False
    detections: bool = False
    skip_still_s: float = 0.0
    clips: bool = False


def camera_name(path: Path) -> str:
    """The camera a file stands for: its stem, in the letters that camera names may have."""
    return re.sub(r"[^a-z0-9_-]+", "-", path.stem.lower()).strip("-")[:32] or "video"


def process_file(
    path: Path,
    folder: Path,
    engine: Engine,
    options: Options,
    progress: Progress,
    stage: EvidenceStage | None = None,
) -> dict[str, Any]:
    """Process one file into ``folder``; its summary. Raises SourceError when the file holds no picture.

    stage: the temporal engine, where a rule needs learned evidence; it forgets the file at its end.
    """
    camera, spec, section = camera_name(path), engine.spec, options.section
    video = VideoFile(
        path, spec.input_hw, mask=PrivacyMask(section.privacy), fps=options.fps, full=options.annotate or options.clips
    )  # fmt: skip
    zone, start_s = options.start.tzinfo, options.start.timestamp()

    def local(wall_s: float) -> tuple[int, int]:
        moment = datetime.fromtimestamp(wall_s, zone)
        return moment.weekday(), moment.hour * 60 + moment.minute

    pipeline = Pipeline(
        options.site, BOOT, spec.labels, tracker=TrackerConfig.for_detector(spec.name), local=local, evidence=stage
    )
    pipeline.configure(camera, section)
    clip_fps = (options.fps or video.info.fps or UNKNOWN_FPS) if options.annotate else None
    began_s, done, last, meter = time.monotonic(), 0, None, PictureMeter()
    eyes = SkipStill(engine, options.skip_still_s)
    ahead = Ahead(video.pictures())
    try:
        with Results(
            folder, section, spec.labels,
            site=options.site, boot=BOOT, annotate_fps=clip_fps, detections=options.detections,
        ) as results:  # fmt: skip
            peaks, eye = Peaks(() if stage is None else stage.names), MotionEye()
            again = partial(pipeline.again, camera)
            films = FileClips(folder, section.evidence, again) if options.clips else None
            for picture in ahead:
                batch = _batch(picture, first=done == 0)
                perception = eyes.infer(batch)
                (detections,) = perception.detections
                scene = perception.scene if stage is None else eye.scene(batch, perception)
                moment, fields = _moment(camera, picture, start_s, meter), eye.fields(batch.slots.tolist())
                (outcome,) = pipeline.step([moment], [detections], scene, fields)
                eyes.settle(int(batch.slots[0]), settled=outcome.settled)
                results.take(picture, outcome, detections)
                for event, evidence in films.take(picture, outcome.events) if films else ():
                    results.take_events([event], evidence)
                peaks.take(outcome)
                done, last = done + 1, picture
                progress(done)
            for event, evidence in films.finish() if films else ():
                results.take_events([event], evidence)
            results.take_events(pipeline.interrupt(camera, "end of file") if last else [])
            if last is None:
                raise SourceError(
                    f"{path}: holds no picture that can be decoded" + (f" ({video.fault})" if video.fault else "")
                )
            elapsed_s = time.monotonic() - began_s
            return results.summarise(
                {
                    "video": path.name,
                    "camera": camera,
                    "site": options.site,
                    "start": rfc3339(start_s),
                    "frames": video.frames,
                    "analysed": done,
                    **({"looked": eyes.looked} if options.skip_still_s else {}),
                    "width": last.letterbox.source_w,
                    "height": last.letterbox.source_h,
                    "fps": round(video.info.fps, 3),
                    "duration_s": round(last.time_s, 3),
                    "fault": video.fault,
                    "engine": _engine(engine),
                    **({} if stage is None else {"learned": peaks.report()}),
                    "speed": {"elapsed_s": round(elapsed_s, 3), "fps": round(done / max(elapsed_s, 1e-6), 2)},
                }
            )
    finally:
        if stage is not None:
            stage.forget(camera)
        ahead.close()
        video.close()


class Peaks:
    """The highest learned evidence of a file, by name, and in how many pictures any was known."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names, self._peak, self._frames = tuple(names), dict[str, float](), 0

    def take(self, outcome: Outcome) -> None:
        """Look at one picture's outcome."""
        found, evidence = dict(outcome.scene), outcome.tracks.evidence
        for i, name in enumerate(self._names if evidence is not None and len(evidence) else ()):
            assert evidence is not None
            known = evidence[~np.isnan(evidence[:, i]), i]
            if len(known):
                found[name] = float(known.max())
        self._frames += bool(found)
        for name, value in found.items():
            self._peak[name] = max(value, self._peak.get(name, -np.inf))

    def report(self) -> dict[str, Any]:
        """JSON for the summary."""
        return {"frames": self._frames, "peak": {name: round(v, 4) for name, v in sorted(self._peak.items())}}


def _batch(picture: Picture, *, first: bool) -> Batch:
    return Batch(
        picture.canvas[None],
        (picture.letterbox,),
        np.zeros(1, np.int32),
        np.array([first]),
        np.array([picture.time_s]),
    )


def _moment(camera: str, picture: Picture, start_s: float, meter: PictureMeter) -> Moment:
    box = picture.letterbox
    return Moment(
        camera=camera,
        epoch=0,
        seq=picture.index,
        mono_ns=round(picture.time_s * 1e9),
        source_s=picture.time_s,
        wall_s=start_s + picture.time_s,
        aspect=box.source_w / box.source_h,
        stats=meter.measure(picture.canvas, box, picture.time_s),
    )


def _engine(engine: Engine) -> dict[str, Any]:
    spec = engine.spec
    height, width = spec.input_hw
    return {
        "name": spec.name,
        "backend": spec.backend,
        "precision": spec.precision,
        "size": f"{width}x{height}",
        "sha256": spec.sha256,
    }

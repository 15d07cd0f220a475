"""The infer process: newest frames in, tracks and events out, for all cameras.

One loop does the work and reports it: take what waits, run the engine once, track, judge, tell. Frames arrive in the
reader's own thread; pictures for alerts are asked of the capture processes and never waited for in this loop.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from vedette.engines.api import Batch, Engine, EngineFault, Letterbox, Perception
from vedette.streamer.bus import FrameReader
from vedette.streamer.bus.mailbox import Lease
from vedette.streamer.config import Config
from vedette.streamer.errors import EngineError
from vedette.streamer.eventlink import EventLink
from vedette.streamer.infer.batcher import Batcher
from vedette.streamer.infer.clipdesk import ClipDesk
from vedette.streamer.infer.engine import open_engine, open_stage
from vedette.streamer.infer.learned import EvidenceStage
from vedette.streamer.infer.motion import MotionEye
from vedette.streamer.infer.pipeline import Outcome, Pipeline
from vedette.streamer.infer.snapshotdesk import SnapshotDesk
from vedette.streamer.infer.stats import InferStats
from vedette.streamer.infer.stillness import SKIP_STILL_S, SkipStill
from vedette.streamer.infer.trackstream import topic_of, track_message
from vedette.streamer.telemetry import TelemetryLink
from vedette.streamer.tracking.tracker import TrackerConfig
from vedette.streamer.types import F32, Event
from vedette.streamer.wire import EVENTS, TELEMETRY, FrameHeader, ipc

if TYPE_CHECKING:
    from vedette.streamer.worker import Life

log = logging.getLogger("vedette.infer")

PRODUCER = "infer"
#: The loop turns at least this often, seconds.
TURN_S = 0.1
#: What loading an engine may take before it counts as hung: a plan may have to be built.
LOAD_S = 300.0
#: A heartbeat at most so often, seconds; it is made of percentiles.
BEAT_S = 0.5
#: The canonical line of every camera.
LINE_EVERY_S = 10.0
#: Pictures in one call of a GPU engine.
GPU_BATCH = 64
#: How long a GPU's batch may wait to be filled, seconds.
GPU_FILL_S = 0.010
#: How long the end may take: events that wait for a picture or for the hub, seconds.
DRAIN_S = 1.8


def run(life: Life) -> None:
    """Infer until told to stop. Raises EngineError when no engine can be loaded or it fails for good."""
    life.beat("loading", force=True, deadline_s=LOAD_S)
    engine = open_engine(life.config.engine)
    spec = engine.spec
    log.info("engine %s: %s, %s (%s)", spec.name, spec.backend, spec.precision, spec.reason)
    try:
        _warm(engine)
        most_s = life.config.engine.skip_still
        station = Station(life, SkipStill(engine, SKIP_STILL_S if most_s is None else most_s))
        try:
            while not life.stopping.is_set():
                station.turn()
            station.drain()
        finally:
            station.close()
    except EngineFault as error:
        raise EngineError(str(error)) from error
    finally:
        engine.close()


def cpu_batch(cores: int) -> int:
    """Pictures in one call of a CPU engine: 1 on small machines, up to 8.

    Two cores take as long per picture in a batch of 8 as alone (81.7 and 86.4 ms on a busy machine, 46.8 and 40.6 at
    best, 2026-11), so a batch would only make the first camera wait for the last. Many cores are filled by more work.
    """
    return max(1, min(8, cores // 4))


def learned_by(config: Config) -> frozenset[str]:
    """Names of all learned evidence that rules of this configuration read."""
    return frozenset(n for camera in config.cameras.values() for rule in camera.rules for n in rule.learned())


def _warm(engine: Engine) -> None:
    """The first call of a session allocates and tunes: nobody's picture should pay for it."""
    height, width = engine.spec.input_hw
    box = Letterbox.fit((height, width), (height, width))
    blank = np.zeros((1, height, width, 3), np.uint8)
    engine.infer(Batch(blank, (box,), np.zeros(1, np.int32), np.ones(1, np.bool_), np.zeros(1)))


class Station:
    """Everything the loop holds."""

    def __init__(self, life: Life, engine: SkipStill) -> None:
        self._life, self._engine, self._config = life, engine, life.config
        spec, boot = engine.spec, life.setup.boot
        on_cpu = spec.backend == "onnxruntime"
        self._fill_s = 0.0 if on_cpu else GPU_FILL_S
        self._batcher = Batcher(spec.input_hw, cpu_batch(os.cpu_count() or 1) if on_cpu else GPU_BATCH)
        # in its first life this process is the first to see the scene; later ones may have seen it before
        self._pipeline = Pipeline(
            self._config.site, boot, spec.labels, rearm=int(life.setup.extra.get("life", 1)) > 1,
            tracker=TrackerConfig.for_detector(spec.name), evidence=self._stage(self._config),
        )  # fmt: skip
        for name, section in self._config.cameras.items():
            self._pipeline.configure(name, section)
        self._eye = MotionEye()
        self._link = EventLink(ipc(life.run_dir, EVENTS), PRODUCER, boot)
        self._telemetry = TelemetryLink(ipc(life.run_dir, TELEMETRY))
        self._reader = FrameReader(life.run_dir, boot, listen=life.setup.extra.get("listen", ()))
        self._desk = SnapshotDesk(self._reader.cut, self._link.send)
        self._clips = ClipDesk(self._cut_clip, self._pipeline.again)
        now_s = time.monotonic()
        self._stats = InferStats(now_s)
        self._last_s: dict[str, float] = {}
        self._told: dict[str, tuple[int, bool]] = {}
        self._next_line_s = now_s + LINE_EVERY_S
        self._next_beat_s = now_s
        self._beat(force=True)

    def turn(self) -> None:
        """One round: what was asked of us, what waits, what is due."""
        self._obey()
        leases = self._reader.take(self._batcher.most, self._patience_s(), fill_s=self._fill_s)
        if leases:
            self._infer(leases)
        self._finish(time.monotonic())
        self._beat()

    def drain(self) -> None:
        """The end: close every incident, and give pictures and hub a moment."""
        until_s = time.monotonic() + DRAIN_S
        self._hear()
        for camera in self._pipeline.cameras:
            self._put(self._pipeline.remove(camera, "stopped"))
        while len(self._desk) and time.monotonic() < until_s:
            self._hear()
            self._desk.work(time.monotonic())
            self._link.work()
            self._reader.take(1, 0.01)
        self._desk.work(float("inf"))
        if not self._link.drain(max(0.0, until_s - time.monotonic())):
            log.warning("%d events were not acknowledged", self._link.waiting)
        self._beat(force=True)

    def close(self) -> None:
        """Let go of every socket."""
        self._reader.close()
        self._link.close()
        self._telemetry.close()

    # -- one round -----------------------------------------------------------------------------------------------

    def _patience_s(self) -> float:
        """How long this round may wait for frames; a snapshot that arrives ends the wait by itself."""
        due_s = self._desk.next_s()
        return TURN_S if due_s is None else min(TURN_S, max(0.0, due_s - time.monotonic()))

    def _infer(self, leases: Sequence[Lease]) -> None:
        taken_ns = time.monotonic_ns()
        for lease in leases:
            if lease.header.camera not in self._config.cameras:  # removed, and its capture process not gone yet
                lease.release()
        batch, moments, headers = self._batcher.batch([n for n in leases if n.header.camera in self._config.cameras])
        if not len(batch):
            return
        before = self._engine.looked
        perception = self._engine.infer(batch)
        engine_ns = time.monotonic_ns()
        scene = self._scene(batch, perception)
        fields = self._eye.fields(batch.slots.tolist())
        outcomes = self._pipeline.step(moments, perception.detections, scene, fields)
        done_ns = time.monotonic_ns()
        self._stats.batch(len(batch), self._engine.looked - before, (engine_ns - taken_ns) / 1e6)
        by_camera = {header.camera: header for header in headers}
        slots = {moment.camera: int(slot) for moment, slot in zip(moments, batch.slots, strict=True)}
        for outcome in outcomes:
            self._engine.settle(slots[outcome.moment.camera], settled=outcome.settled)
            self._reassure(outcome)
            self._tell(outcome, by_camera[outcome.moment.camera], taken_ns, done_ns)

    def _reassure(self, outcome: Outcome) -> None:
        """Tell a capture process, when it changes, whether anything is in doubt; each of its epochs anew."""
        camera, told = outcome.moment.camera, (outcome.moment.epoch, outcome.settled)
        if self._told.get(camera) != told:
            self._told[camera] = told
            self._reader.tell_calm(camera, calm=outcome.settled)

    def _scene(self, batch: Batch, seen: Perception) -> F32 | None:
        """Scene tokens, and where learned evidence is asked for how the pictures move."""
        return seen.scene if self._pipeline.evidence is None else self._eye.scene(batch, seen)

    def _tell(self, outcome: Outcome, header: FrameHeader, taken_ns: int, done_ns: int) -> None:
        """Publish one picture's tracks and hand its events over."""
        moment = outcome.moment
        size = header.letterbox[0], header.letterbox[1]
        spec, boot = self._engine.spec, self._life.setup.boot
        self._telemetry.send(
            topic_of(moment.camera),
            track_message(
                self._config.site, boot, moment, size, outcome.tracks, spec.labels, self._names(), outcome.scene
            ),
        )
        latency = {"capture": (taken_ns - moment.mono_ns) / 1e6, "infer": (done_ns - taken_ns) / 1e6}
        self._put([replace(event, latency_ms=dict(latency)) for event in outcome.events])
        self._stats.frame(moment.camera, (done_ns - moment.mono_ns) / 1e6)
        self._last_s[moment.camera] = done_ns / 1e9

    def _names(self) -> tuple[str, ...]:
        stage = self._pipeline.evidence
        return () if stage is None else stage.names

    def _put(self, events: Sequence[Event]) -> None:
        now_s = time.monotonic()
        for event in events:
            section = self._config.cameras.get(event.camera)
            kept = section is not None and section.evidence.enabled
            self._desk.put(event, now_s, picture=kept)
            self._clips.put(event, section.evidence.clip if section is not None and kept else None, now_s)
        self._stats.totals["events"] += len(events)

    def _hear(self) -> None:
        while self._reader.snapshots:
            snapshot = self._reader.snapshots.popleft()
            if not self._clips.take(snapshot):
                self._desk.take(snapshot)

    def _cut_clip(self, camera: str, key: str, mono_ns: int, around_s: tuple[float, float]) -> None:
        self._reader.cut(camera, key, mono_ns, clip=around_s)

    def _finish(self, now_s: float) -> None:
        """What is due whether or not frames came."""
        self._hear()
        for camera, last_s in list(self._last_s.items()):
            section = self._config.cameras.get(camera)
            if section is not None and now_s - last_s > section.offline_after:
                del self._last_s[camera]  # once; the next picture starts anew
                self._put(self._pipeline.interrupt(camera, "no pictures"))
        for event, clip in self._clips.work(now_s):
            self._desk.put(event, now_s, picture=False, clip=clip)
        self._desk.work(now_s)
        self._link.work()
        if now_s >= self._next_line_s:
            self._next_line_s = now_s + LINE_EVERY_S
            for line in self._stats.lines(now_s, self._drops()):
                log.info("%s", line)

    def _drops(self) -> dict[tuple[str, str], int]:
        drops = dict(self._reader.drops)
        for key, count in self._batcher.dropped.items():
            drops[key] = drops.get(key, 0) + count
        return drops

    def _beat(self, *, force: bool = False) -> None:
        now_s = time.monotonic()
        if not force and now_s < self._next_beat_s:
            return
        self._next_beat_s = now_s + BEAT_S
        state = "running" if self._last_s else "idle"
        report: dict[str, Any] = {
            **self._stats.report(self._drops()),
            "unacked": self._link.waiting,
            "waiting_for_pictures": len(self._desk),
            "pictures_missed": self._desk.counters["missed"],
            "clips_missed": sum(self._clips.counters[why] for why in ("gone", "missed", "refused")),
            "events_lost": self._link.counters["lost"],
            "tracks_unsent": self._telemetry.dropped["track"],
        }
        spec = self._engine.spec
        self._life.beat(
            state, force=force, input_hw=list(spec.input_hw), engine=spec.name, backend=spec.backend, **report
        )

    # -- control -------------------------------------------------------------------------------------------------

    def _obey(self) -> None:
        while not self._life.control.empty():
            message = self._life.control.get()
            if message.get("control") != "reload":
                log.error("unknown control message: %.80r", message.get("control"))
                continue
            try:
                self._reload(Config.model_validate(message.get("config")))
            except ValidationError as error:
                log.error(
                    "reload: the configuration that was sent is wrong: %s", error.errors(include_url=False)[0]["msg"]
                )

    def _stage(self, config: Config) -> EvidenceStage | None:
        cameras = config.cameras
        return open_stage(config.engine, self._engine.spec, cameras.values(), len(cameras))

    def _restage(self, old: Config, config: Config) -> None:
        """Open or close the temporal engine where rules that need it came or went; a fault leaves things as they were."""
        if learned_by(old) == learned_by(config):
            return
        try:
            self._pipeline.evidence = self._stage(config)
        except EngineError as error:
            log.error("reload: %s; learned evidence stays as it was", error)

    def _reload(self, config: Config) -> None:
        """Watch what ``config`` says; cameras that did not change keep everything."""
        old, self._config = self._config, config
        self._restage(old, config)
        for camera in old.cameras.keys() - config.cameras.keys():
            self._put(self._pipeline.remove(camera))
            self._clips.forget(camera)
            self._batcher.forget(camera)
            self._reader.forget(camera)
            self._stats.forget(camera)
            self._told.pop(camera, None)
            self._last_s.pop(camera, None)
        for camera, section in config.cameras.items():
            if old.cameras.get(camera) != section:
                self._put(self._pipeline.configure(camera, section))
        log.info("reloaded: %d cameras", len(config.cameras))

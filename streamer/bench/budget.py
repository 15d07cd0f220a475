"""Where the time of one camera-frame goes, stage by stage, and how far each stage is from what this machine can do at all.

Real pictures of a clip go through the real parts, one after the other in one process: so each figure is the stage's own
time, without the others in its way, and their sum is what one frame costs. Transport and publishing cross real sockets;
the outbox commits with fsync. The limits are measured in the same run: copying memory, a matrix product, waking a
thread, fsync. JSON on standard output, or a table with ``--markdown``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zmq
from numpy.typing import NDArray

from vedette.engines import detector
from vedette.engines.api import Engine
from vedette.streamer.bench._hub import numbered_event
from vedette.streamer.bench._physical import MULTIPLY_ADDS
from vedette.streamer.bench._protocol import machine, say
from vedette.streamer.bench.alerts import raw_fsync
from vedette.streamer.bus import FrameReader, FrameWriter
from vedette.streamer.bus.ring import SLOTS, Ring, create_ring, slot_bytes_for
from vedette.streamer.capture.evidence import EvidenceRing
from vedette.streamer.capture.frozen import FrozenDetector
from vedette.streamer.capture.letterbox import draw_letterbox
from vedette.streamer.capture.picturemeter import PictureMeter
from vedette.streamer.capture.privacy import PrivacyMask
from vedette.streamer.cells import moved, shrink
from vedette.streamer.config.schema import CameraDefaults, EngineSection
from vedette.streamer.errors import SourceError
from vedette.streamer.hub.publisher import Publisher
from vedette.streamer.infer.batcher import Batcher
from vedette.streamer.infer.engine import open_engine, open_stage
from vedette.streamer.infer.learned import EvidenceStage
from vedette.streamer.infer.motion import MotionEye
from vedette.streamer.infer.pipeline import Pipeline
from vedette.streamer.offline.sample import find_clip
from vedette.streamer.outbox.records import Draft
from vedette.streamer.outbox.store import Outbox
from vedette.streamer.sources import file
from vedette.streamer.sources.base import EndOfStream, Reader, Want
from vedette.streamer.tracking.tracker import Tracker
from vedette.streamer.types import Frame

SCHEMA = "vedette.bench.budget/1"
#: What every frame pays, and what only an alert pays.
FRAME_STAGES = (
    "decode", "privacy", "frozen", "evidence", "letterbox", "measure", "transport", "batch_wait", "batch", "stillness",
    "detector", "nms", "tracker", "rules",
)  # fmt: skip
#: What a frame pays as well where a rule reads learned evidence.
LEARNED_STAGES = ("motion", "temporal")
ALERT_STAGES = ("outbox_commit", "publish")
#: Frames that are not counted.
WARM = 5
#: The camera of the measurement: a privacy corner, two zones, a line.
SECTION = {
    "privacy": [[[0.0, 0.0], [0.2, 0.0], [0.2, 0.3], [0.0, 0.3]]],
    "zones": {"all": [[0, 0], [1, 0], [1, 1], [0, 1]], "low": [[0, 0.5], [1, 0.5], [1, 1], [0, 1]]},
    "lines": {"middle": [[0.5, 0.0], [0.5, 1.0]]},
    "rules": [
        {"kind": "zone", "zone": "all"},
        {"kind": "loiter", "zone": "low", "seconds": 10},
        {"kind": "line", "line": "middle"},
        {"kind": "fight"},
    ],
}

U8 = NDArray[np.uint8]
Times = dict[str, list[float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette bench budget`` takes."""
    parser.add_argument("--video", type=Path, help="clip whose pictures are measured (default: the demo's)")
    parser.add_argument("--frames", type=int, default=200, help="pictures, at most (default: 200)")
    parser.add_argument("--store", type=Path, help="commit on the disk of this folder (default: the temporary one)")
    parser.add_argument("--markdown", action="store_true", help="a table for people instead of JSON")


def run(args: argparse.Namespace) -> int:
    """Measure; the result goes to standard output, progress to standard error."""
    clip = find_clip(args.video, say)
    cv2.setNumThreads(1)  # as in every process of the daemon
    engine = open_engine(EngineSection())
    with closing(engine), tempfile.TemporaryDirectory(prefix="vedette-bench-", dir=args.store) as folder:
        before = measure_limits(Path(folder))
        times, size_hw = measure(clip, engine, Path(folder), args.frames)
        after = measure_limits(Path(folder))
        # the better of two: a limit is what the machine can do, not what it did while somebody else was busy
        limits = {k: (min if k.endswith("_us") else max)(before[k], after[k]) for k in before}
        document = document_of(times, limits, size_hw, engine, clip)
    print(markdown_of(document) if args.markdown else json.dumps(document, indent=2))
    return 0


def measure_limits(folder: Path) -> dict[str, float]:
    """What this machine can do: bytes a second that a copy reads and writes, FLOP a second of a matrix product of
    single precision on all cores, microseconds of an fsync and of waking a thread."""
    source, target = np.ones(64_000_000, np.uint8), np.empty(64_000_000, np.uint8)
    copy_s = min(_timed(lambda: np.copyto(target, source)) for _ in range(10))
    a = np.random.default_rng(1).random((1024, 1024), np.float32)
    product_s = min(_timed(lambda: a @ a) for _ in range(10))
    return {
        "memory_bytes_per_s": 2 * source.size / copy_s,
        "gemm_flop_per_s": 2 * 1024**3 / product_s,
        "fsync_us": 1e6 / raw_fsync(folder, 0.5)["per_s"],
        "wake_us": _wake_us(),
    }


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _wake_us(turns: int = 2000) -> float:
    """Half of a round trip between two threads by pipes, median."""
    (there, ask), (answer, back) = os.pipe(), os.pipe()

    def echo() -> None:
        while os.read(there, 1) == b"x":
            os.write(back, b"x")

    thread = threading.Thread(target=echo, daemon=True)
    thread.start()

    def turn() -> None:
        os.write(ask, b"x")
        os.read(answer, 1)

    median_s = float(np.median([_timed(turn) for _ in range(turns)]))
    os.write(ask, b"q")
    thread.join()
    for fd in (there, ask, answer, back):
        os.close(fd)
    return median_s * 1e6 / 2


class Stopwatch:
    """Collects times by stage, microseconds."""

    def __init__(self) -> None:
        self.times: Times = defaultdict(list)
        self._inside_us = 0.0

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a stage, without what `inside` took away from it meanwhile."""
        self._inside_us = 0.0
        began = time.perf_counter()
        yield
        self.times[stage].append((time.perf_counter() - began) * 1e6 - self._inside_us)

    @contextmanager
    def inside(self, owner: object, name: str, stage: str) -> Iterator[None]:
        """Time calls of ``owner.name`` as a stage of their own while it lasts."""
        original = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                took_us = (time.perf_counter() - began) * 1e6
                self._inside_us += took_us
                self.times[stage].append(took_us)

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, original)


class OneCamera:
    """Every part that a frame of one camera goes through, in this process; a rule reads learned evidence, too."""

    def __init__(self, engine: Engine, folder: Path, stack: ExitStack, watch: Stopwatch) -> None:
        self.watch, self.engine = watch, engine
        self._input_hw = engine.spec.input_hw
        section = CameraDefaults.model_validate(SECTION)
        self._mask, self._frozen, self._meter = PrivacyMask(section.privacy), FrozenDetector(10.0), PictureMeter()
        self._evidence = EvidenceRing(48_000_000)
        create_ring(folder / "ring-bench-1", SLOTS, slot_bytes_for(self._input_hw))
        self._frames = stack.enter_context(closing(FrameReader(folder, "bench")))
        ring = Ring.open(folder / "ring-bench-1", writable=True)
        self._writer = stack.enter_context(closing(FrameWriter(folder, "bench", "1", ring)))
        self._batcher = Batcher(self._input_hw, 1)
        stage = open_stage(EngineSection(), engine.spec, [section], 1)
        self._pipeline, self._eye = Pipeline("bench", "bench", engine.spec.labels, evidence=stage), MotionEye()
        self._pipeline.configure("bench", section)
        (folder / "store").mkdir()
        self._outbox = stack.enter_context(closing(Outbox(folder / "store", site="bench")))
        self._publisher, self._subscriber = _publishing(folder, stack)
        self._cells: U8 | None = None

    def take(self, number: int, picture: U8, source_s: float) -> None:
        """One picture from decoded to judged, and one alert."""
        watch, mono_ns = self.watch, time.monotonic_ns()
        with watch("privacy"):
            self._mask.apply(picture)
        with watch("frozen"):
            self._frozen.update(picture, mono_ns / 1e9, source_s)
        with watch("evidence"):
            self._evidence.push(picture, mono_ns)
        while not self._writer.wait_credit(0.1):
            self._frames.take(1, 0.01)  # the two have yet to meet
        with watch("letterbox"):
            view = self._writer.reserve(*self._input_hw)
            assert view is not None
            box = draw_letterbox(picture, view)
        with watch("measure"):
            stats = self._meter.measure(view, box, source_s)
        with watch("transport"):
            self._writer.send(Frame("bench", 1, number, mono_ns, source_s, 0.0, view, box, stats))
            leases = self._frames.take(1, 10.0)
        with watch("batch"):
            batch, moments, _headers = self._batcher.batch(leases)
        with watch("stillness"):
            cells = shrink(batch.pixels[0])
            if self._cells is not None:
                moved(cells, self._cells)
            self._cells = cells
        with watch.inside(detector, "nms", "nms"), watch("detector"):
            perception = self.engine.infer(batch)
        with watch("motion"):
            scene = self._eye.scene(batch, perception)
        with (
            watch.inside(Tracker, "update", "tracker"),
            watch.inside(EvidenceStage, "step", "temporal"),
            watch("rules"),
        ):
            self._pipeline.step(moments, perception.detections, scene)
        with watch("outbox_commit"):
            stored = self._outbox.commit([Draft(numbered_event(number))]).stored
        with watch("publish"):
            self._publisher.publish(stored)
            self._subscriber.recv_multipart()
        self._evidence.compact()


def _publishing(folder: Path, stack: ExitStack) -> tuple[Publisher, zmq.Socket[bytes]]:
    """The hub's socket and one subscriber that hears it."""
    context = stack.enter_context(zmq.Context())
    publisher = stack.enter_context(closing(Publisher(context)))
    publisher.bind(f"ipc://{folder}/publish.sock")
    subscriber = stack.enter_context(context.socket(zmq.SUB))
    subscriber.setsockopt(zmq.SUBSCRIBE, b"")
    subscriber.connect(publisher.endpoint)
    while not subscriber.poll(20):
        publisher.send("status.bench", b"{}")
    time.sleep(0.05)
    while subscriber.poll(20):
        subscriber.recv_multipart()
    return publisher, subscriber


def measure(clip: Path, engine: Engine, folder: Path, frames: int) -> tuple[Times, tuple[int, int]]:
    """The times of all stages, microseconds a frame, and the clip's height and width."""
    watch, size_hw, number = Stopwatch(), (0, 0), 0
    with ExitStack() as stack:
        reader: Reader = stack.enter_context(closing(file.KIND.open(str(clip), Want())))
        camera = OneCamera(engine, folder, stack, watch)
        for number in range(frames + WARM):
            try:
                with watch("decode"):
                    stamp_s = reader.grab()
                    picture = reader.retrieve()
            except EndOfStream:
                break
            size_hw = (picture.shape[0], picture.shape[1])
            camera.take(number, picture, stamp_s)
    if number <= WARM:
        raise SourceError(f"{clip}: needs more than {WARM} pictures, got {number}")
    watch.times["batch_wait"] = [0.0] * number  # on a CPU a batch is what waits; a GPU's waits at most 10 ms
    return {stage: values[WARM:] for stage, values in watch.times.items()}, size_hw


def document_of(
    times: Times, limits: dict[str, float], size_hw: tuple[int, int], engine: Engine, clip: Path
) -> dict[str, Any]:
    """The JSON document."""
    bounds = bounds_us(limits, size_hw, engine)
    stages: dict[str, dict[str, Any]] = {}
    for stage in (*FRAME_STAGES, *LEARNED_STAGES, *ALERT_STAGES):
        p50, p95 = (round(float(v), 2) for v in np.percentile(times[stage], (50, 95)))
        bound = bounds.get(stage)
        stages[stage] = {
            "p50_us": p50,
            "p95_us": p95,
            "limit_us": None if bound is None else round(bound[0], 2),
            "limit_is": None if bound is None else bound[1],
            "share_of_limit": None if bound is None or p50 <= 0 else round(bound[0] / p50, 3),
        }
    return {
        "schema": SCHEMA,
        "machine": machine(),
        "engine": {"name": engine.spec.name, "backend": engine.spec.backend, "precision": engine.spec.precision},
        "clip": {"name": clip.name, "height": size_hw[0], "width": size_hw[1]},
        "frames": len(times["detector"]),
        "limits": {name: round(value, 2) for name, value in limits.items()},
        "frame_us": round(sum(stages[stage]["p50_us"] for stage in FRAME_STAGES), 1),
        "learned_us": round(sum(stages[stage]["p50_us"] for stage in LEARNED_STAGES), 1),
        "alert_us": round(sum(stages[stage]["p50_us"] for stage in ALERT_STAGES), 1),
        "stages": stages,
    }


def bounds_us(limits: dict[str, float], size_hw: tuple[int, int], engine: Engine) -> dict[str, tuple[float, str]]:
    """The least that a stage could take, microseconds, and what it is made of. Stages without one are left out."""
    picture, canvas = size_hw[0] * size_hw[1] * 3, slot_bytes_for(engine.spec.input_hw)
    per_byte_us = 1e6 / limits["memory_bytes_per_s"]

    def memory(nbytes: float, what: str) -> tuple[float, str]:
        return nbytes * per_byte_us, f"memory: {what}"

    bounds = {
        "decode": memory(picture, "the picture written once"),
        "privacy": memory(picture * 0.06, "its polygon written once"),
        "evidence": memory(picture * 1.5, "the picture read, half as much written"),
        "letterbox": memory(picture + canvas, "the picture read, the canvas written"),
        "measure": memory(canvas, "the canvas read once"),
        "batch": memory(2 * canvas, "the canvas read and written"),
        "stillness": memory(canvas, "the canvas read once"),
        "transport": (limits["wake_us"], "one thread woken"),
        "publish": (limits["wake_us"], "one thread woken"),
        "outbox_commit": (limits["fsync_us"], "one fsync"),
    }
    adds = MULTIPLY_ADDS.get(engine.spec.sha256)
    if adds is not None and engine.spec.input_hw == (256, 416):
        bounds["detector"] = 2e6 * adds / limits["gemm_flop_per_s"], "convolutions at the speed of a matrix product"
    return bounds


def markdown_of(document: dict[str, Any]) -> str:
    """The same as a table."""
    clip, engine = document["clip"], document["engine"]
    lines = [
        f"One frame of {clip['name']} ({clip['width']}x{clip['height']}), {engine['name']} {engine['precision']} on "
        f"{engine['backend']}, {document['machine']['cpus']} cores: {document['frame_us'] / 1000:.1f} ms; learned evidence "
        f"{document['learned_us'] / 1000:.1f} ms and an alert {document['alert_us'] / 1000:.1f} ms more.",
        "",
        "| stage | median us | p95 us | limit us | of the limit | the limit |",
        "|---|---|---|---|---|---|",
    ]
    for stage, row in document["stages"].items():
        limit = "" if row["limit_us"] is None else f"{row['limit_us']:.1f}"
        share = "" if row["share_of_limit"] is None else f"{row['share_of_limit']:.0%}"
        lines.append(
            f"| {stage} | {row['p50_us']:.1f} | {row['p95_us']:.1f} | {limit} | {share} | {row['limit_is'] or ''} |"
        )
    return "\n".join(lines)

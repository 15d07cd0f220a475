"""The capture process: one camera in, frames and evidence out.

Two threads. The source thread (`vedette.streamer.capture.camera`) reads and reports progress; it may hang inside a C library.
The main thread answers requests for evidence and takes in credits, and hears signals, whatever the other one does.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING

from vedette.streamer.bus import Cut, FrameWriter
from vedette.streamer.bus.ring import Ring
from vedette.streamer.capture.camera import Camera
from vedette.streamer.capture.clip import ClipForm, ClipMaker, encode_clip
from vedette.streamer.capture.evidence import JPEG_EVERY_S, EvidenceRing

if TYPE_CHECKING:
    from vedette.streamer.worker import Life

log = logging.getLogger("vedette.capture")

#: How long the source thread gets to leave its read when the process is told to stop.
LEAVE_S = 1.0
#: The canonical line of a camera.
LINE_EVERY_S = 10.0


def run(life: Life) -> int | None:
    """Capture ``life.name`` until told to stop. Raises ConfigError when this installation can never open the source."""
    section = life.config.cameras[life.name]
    ring = Ring.open(life.run_dir / life.setup.ring, writable=True) if life.setup.ring else None
    place = life.setup.extra.get("frames", life.run_dir)  # the infer process of another host, or our own
    writer = FrameWriter(place, life.name, uuid.uuid4().hex[:16], ring)
    kept = section.evidence
    evidence = EvidenceRing(
        kept.ring_mb * 1_000_000,
        quality=kept.jpeg_quality,
        max_side=kept.max_side,
        enabled=kept.enabled,
        jpeg_every_s=JPEG_EVERY_S if kept.clip is None else 1 / kept.clip.fps,
    )
    clips = ClipMaker(life.name)
    camera = Camera(
        life.name,
        section,
        life.setup.input_hw,
        writer=writer,
        evidence=evidence,
        beat=life.beat,
        stopping=life.stopping,
        interval_s=life.setup.extra.get("interval_s"),
        # Another host's monotonic clock starts again when that host does; its wall clock goes on.
        first_epoch=None if ring else int(time.time() * 1000),
        rest=life.config.engine.rest and life.config.engine.skip_still != 0,
    )
    thread = threading.Thread(target=camera.run, name="source", daemon=True)
    thread.start()
    try:
        _serve(life, thread, writer, evidence, camera, clips)
    finally:
        life.stopping.set()
        clips.close()
        thread.join(LEAVE_S)
        if thread.is_alive():
            # Inside C: the interpreter cannot be taken down around it. Nothing is left to save.
            log.info("%s: left a read that would not end", life.name)
            logging.shutdown()
            os._exit(0)
        writer.close()
    if camera.failure is not None:
        raise camera.failure
    return None


def _serve(
    life: Life,
    thread: threading.Thread,
    writer: FrameWriter,
    evidence: EvidenceRing,
    camera: Camera,
    clips: ClipMaker,
) -> None:
    """Credits, cuts, compaction, and a line now and then, until stopped or left alone."""
    next_line = time.monotonic() + LINE_EVERY_S
    while not life.stopping.is_set() and thread.is_alive():
        for cut in writer.poll(250):
            if cut.clip is None:
                writer.send_snapshot(cut, evidence.cut(cut.mono_ns))
            else:
                clips.ask(partial(_film, life, evidence, cut, cut.clip), partial(writer.send_snapshot, cut))
        evidence.compact()
        if time.monotonic() >= next_line:
            next_line += LINE_EVERY_S
            log.info("%s", camera.line())


def _film(life: Life, evidence: EvidenceRing, cut: Cut, around_s: tuple[float, float]) -> bytes:
    """The clip around a moment: ``around_s`` seconds before and after it."""
    section = life.config.cameras[life.name].evidence.clip
    form = ClipForm() if section is None else ClipForm(section.fps, section.max_side)
    from_ns, until_ns = cut.mono_ns - round(around_s[0] * 1e9), cut.mono_ns + round(around_s[1] * 1e9)
    return encode_clip(evidence.span(from_ns, until_ns), from_ns, until_ns, form, life.run_dir)

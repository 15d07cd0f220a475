"""One camera's working loop: open, read, blacken, remember, shrink, send; and again after every failure.

This loop, and nothing else, reports progress: it may sit inside a C library for ever, and then only its silence tells.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import Letterbox
from vedette.streamer.bus import FrameWriter
from vedette.streamer.capture.evidence import EvidenceRing
from vedette.streamer.capture.frozen import FrozenDetector
from vedette.streamer.capture.letterbox import draw_letterbox
from vedette.streamer.capture.pacing import RealTime, Sampler, SourceClock
from vedette.streamer.capture.picturemeter import PictureMeter
from vedette.streamer.capture.privacy import PrivacyMask
from vedette.streamer.capture.reconnect import Backoff, Cadence, wait_to_open
from vedette.streamer.capture.resting import Rest
from vedette.streamer.config.schema import CameraSection
from vedette.streamer.errors import SourceError, SourceRefused
from vedette.streamer.log import redact
from vedette.streamer.picturestats import PictureStats
from vedette.streamer.sources import EndOfStream, Reader, Want, kind_of
from vedette.streamer.types import Frame

log = logging.getLogger("vedette.capture")

U8 = NDArray[np.uint8]

OPEN_TIMEOUT_S = 5.0
#: Silence that is forgiven while a camera's own interval is not known.
UNKNOWN_SILENCE_S = 20.0
#: What we add to a time-out inside the process before the supervisor may call it hung.
GRACE_S = 1.5
#: How long an opening looks at a stream, and how long failed ones may make the next one look, seconds.
ANALYSIS_S, LONGEST_ANALYSIS_S = 0.5, 8.0


class Beat(Protocol):
    """`vedette.streamer.worker.Life.beat`."""

    def __call__(self, state: str, *, force: bool = ..., deadline_s: float | None = ..., **report: Any) -> None: ...


class Camera:
    """Runs until ``stopping``. beat: told of every step. interval_s: the learned interval of an earlier life."""

    def __init__(
        self,
        name: str,
        section: CameraSection,
        input_hw: tuple[int, int],
        *,
        writer: FrameWriter,
        evidence: EvidenceRing,
        beat: Beat,
        stopping: threading.Event,
        interval_s: float | None = None,
        first_epoch: int | None = None,
        rest: bool = False,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.name = name
        self.failure: BaseException | None = None
        self._section = section
        self._input_hw = input_hw
        self._writer = writer
        self._evidence = evidence
        self._beat = beat
        self._stopping = stopping
        self._clock_ns = clock_ns
        self._kind = kind_of(section.source)
        self._mask = PrivacyMask(section.privacy)
        self._frozen = FrozenDetector(section.frozen_after)
        self._meter = PictureMeter()
        self._cadence = Cadence(interval_s)
        self._backoff = Backoff()
        self._paced = not self._kind.live and section.pace == "realtime"
        self._may_rest = rest and (self._kind.live or self._paced)
        self._box: Letterbox | None = None
        self._stats: PictureStats | None = None
        # Milliseconds since the machine started: every life of this camera begins above all epochs of the one before.
        self._epoch = clock_ns() // 1_000_000 if first_epoch is None else first_epoch
        self._connections = 0
        self._seq = 0
        self._frames = 0
        self._size = (0, 0)
        self._claimed_fps = 0.0
        self._analyze_s = ANALYSIS_S
        self._state = "connecting"
        self._last_error: str | None = None
        self._last_frame_ns: int | None = None
        self._rate = Rate()

    def run(self) -> None:
        """The thread's function: what ends it unexpectedly is kept in ``failure``."""
        try:
            while not self._stopping.is_set():
                try:
                    if self._connect_and_stream():
                        self._rest()
                except SourceError as error:
                    self._failed(error)
        except BaseException as error:  # noqa: BLE001 -- the main thread raises it again
            self.failure = error

    def line(self) -> str:
        """The canonical line: state, rates, what was dropped and why."""
        drops = " ".join(f"{reason} {count}" for reason, count in sorted(self._writer.drops.items())) or "none"
        return (
            f"{self.name}: {self._state} {self._size[0]}x{self._size[1]} {self._rate.last:.1f} fps, "
            f"{self._frames} taken, {self._writer.sent} sent, dropped: {drops}, "
            f"{max(0, self._connections - 1)} reconnects"
        )

    def _connect_and_stream(self) -> bool:
        """One connection, from opening to its end; true when there is nothing more to come."""
        want = Want(
            transport=self._section.transport,
            open_timeout_s=OPEN_TIMEOUT_S,
            read_timeout_s=self._cadence.silence_s(UNKNOWN_SILENCE_S),
            analyze_s=self._analyze_s,
            rest=self._may_rest,
        )
        self._say("connecting", deadline_s=3 * OPEN_TIMEOUT_S + 2 * want.analyze_s)
        began = time.monotonic()
        try:
            reader = self._kind.open(self._section.source, want)
        except SourceRefused:
            raise
        except SourceError:
            self._analyze_s = min(LONGEST_ANALYSIS_S, 2 * self._analyze_s)
            raise
        with contextlib.closing(reader):
            self._analyze_s = ANALYSIS_S
            self._claimed_fps = reader.info.fps
            self._say("connecting", deadline_s=want.read_timeout_s + GRACE_S)
            return self._stream(reader, began)

    def _stream(self, reader: Reader, began: float) -> bool:
        self._epoch += 1
        self._connections += 1
        self._seq = 0
        self._cadence.restart()
        self._frozen.restart()
        clock, sampler, pace = SourceClock(), Sampler(self._section.fps), RealTime()
        rest = Rest(reader, wanted=self._may_rest)
        grabbed = 0
        while not self._stopping.is_set():
            try:
                stamp_s = reader.grab()
            except EndOfStream:
                if grabbed == 0:
                    raise SourceRefused(f"{self._section.source}: holds no picture that can be decoded") from None
                return not self._section.loop
            arrived_s = self._clock_ns() / 1e9
            source_s = clock.at(stamp_s, arrived_s)
            grabbed += 1
            if self._kind.live:
                self._cadence.saw(arrived_s, source_s)
            # while it rests every picture that is decoded counts, whatever the beat
            if sampler.takes(source_s) or (rest.fresh and rest.canvas is not None):
                if self._paced and self._hold(pace, source_s):
                    break
                if rest.fresh:
                    self._take(reader.retrieve(), stamp_s, source_s, reader, time.monotonic() - began, rest)
                else:
                    self._take_again(rest.again(source_s, calm=self._writer.calm), source_s)
                self._backoff.healthy(time.monotonic() - began)
            self._progress()
        return False

    def _take(self, picture: U8, stamp_s: float, source_s: float, reader: Reader, after_s: float, rest: Rest) -> None:
        """One picture, from decoded to sent."""
        mono_ns, wall_s = self._clock_ns(), time.time()
        self._mask.apply(picture)
        frozen = self._frozen.update(picture, mono_ns / 1e9, stamp_s)
        self._evidence.push(picture, mono_ns)
        self._count(mono_ns)
        self._note(picture, reader, after_s, frozen=frozen)
        self._send(picture, source_s, mono_ns, wall_s, rest)
        self._seq += 1

    def _count(self, mono_ns: int) -> None:
        self._frames += 1
        self._rate.saw(mono_ns / 1e9)
        self._last_frame_ns = mono_ns

    def _take_again(self, canvas: U8 | None, source_s: float) -> None:
        """A picture that need not be decoded: count it, and send the last one again when there is one to send."""
        mono_ns = self._clock_ns()
        self._count(mono_ns)
        if canvas is not None and self._box is not None:
            frame = Frame(
                self.name, self._epoch, self._seq, mono_ns, source_s, time.time(), canvas, self._box, self._stats
            )
            self._writer.send(frame)
            self._seq += 1

    def _send(self, picture: U8, source_s: float, mono_ns: int, wall_s: float, rest: Rest) -> None:
        while not self._paced and not self._kind.live and not self._stopping.is_set():
            if self._writer.wait_credit(0.1):
                break
            self._progress()  # as fast as possible means as fast as the reader, not as fast as we can drop
        view = self._writer.reserve(*self._input_hw)
        if view is None:
            return
        self._box = draw_letterbox(picture, view)
        self._stats = self._meter.measure(view, self._box, mono_ns / 1e9 if self._kind.live else source_s)
        rest.saw(view, source_s, calm=self._writer.calm)
        self._writer.send(
            Frame(self.name, self._epoch, self._seq, mono_ns, source_s, wall_s, view, self._box, self._stats)
        )

    def _note(self, picture: U8, reader: Reader, after_s: float, *, frozen: bool) -> None:
        """Say once what has changed: the size, the state."""
        size = (picture.shape[1], picture.shape[0])
        if self._seq == 0:
            codec = reader.info.codec
            log.info("%s: first picture after %.2f s: %dx%d %s", self.name, after_s, *size, codec)
        elif size != self._size:
            log.warning("%s: the picture's size changed from %dx%d to %dx%d", self.name, *self._size, *size)
        self._size = size
        state = "frozen" if frozen else "streaming"
        if state != self._state:
            self._last_error = None
            if "frozen" in (state, self._state):
                log.warning("%s: the picture %s", self.name, "stands still" if frozen else "moves again")
            self._say(state, deadline_s=self._deadline_s())

    def _hold(self, pace: RealTime, source_s: float) -> bool:
        """Wait for a file's picture to be due; true when told to stop."""
        while (left := pace.wait_s(source_s, self._clock_ns() / 1e9)) > 0:
            if self._stopping.wait(min(left, 0.5)):
                return True
            self._progress()
        return False

    def _rest(self) -> None:
        """A file has ended: stay, idle."""
        log.info("%s: %s has ended after %d pictures", self.name, redact(self._section.source), self._frames)
        self._say("ended")
        while not self._stopping.wait(0.5):
            self._progress()

    def _failed(self, error: SourceError) -> None:
        """Wait before the next try."""
        if self._stopping.is_set():
            return
        refused = isinstance(error, SourceRefused)
        text = redact(str(error))
        if text != self._last_error:
            log.warning("%s", text)
        self._last_error = text
        delay_s = self._backoff.next_s(refused=refused)
        self._say("refused" if refused else "waiting")
        wait_to_open(
            self._kind.address(self._section.source),
            delay_s,
            pause=self._stopping.wait,
            tick=lambda: self._progress(deadline_s=30.0),  # a resolver may take its time
        )

    def _deadline_s(self) -> float | None:
        return self._cadence.silence_s(UNKNOWN_SILENCE_S) + GRACE_S if self._kind.live else None

    def _say(self, state: str, deadline_s: float | None = None) -> None:
        """Report a change of state at once."""
        self._state = state
        self._report(force=True, deadline_s=deadline_s)

    def _progress(self, deadline_s: float | None = None) -> None:
        self._report(force=False, deadline_s=deadline_s or self._deadline_s())

    def _report(self, *, force: bool, deadline_s: float | None) -> None:
        self._beat(
            self._state,
            force=force,
            deadline_s=deadline_s,
            epoch=self._epoch,
            frames=self._frames,
            sent=self._writer.sent,
            drops=dict(self._writer.drops),
            fps=round(self._rate.per_s(self._clock_ns() / 1e9), 2),
            claimed_fps=round(self._claimed_fps, 3),
            source_w=self._size[0],
            source_h=self._size[1],
            interval_s=self._cadence.interval_s,
            last_frame_mono_ns=self._last_frame_ns,
            reconnects=max(0, self._connections - 1),
            last_error=self._last_error,
            evidence_bytes=self._evidence.nbytes,
        )


class Rate:
    """Events a second over the last whole window."""

    WINDOW_S = 2.0

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._count = 0
        self.last = 0.0

    def saw(self, mono_s: float) -> None:
        """One more."""
        if self._began_s is None:
            self._began_s = mono_s
        self._count += 1

    def per_s(self, mono_s: float) -> float:
        """The rate; 0 before the first whole window and after one without events."""
        if self._began_s is not None and mono_s - self._began_s >= self.WINDOW_S:
            self.last = self._count / (mono_s - self._began_s)
            self._began_s, self._count = mono_s, 0
        return self.last

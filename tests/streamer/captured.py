"""A real capture process under test: started as the supervisor does, its beats, its log and its frames at hand."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vedette.streamer.bus import FrameReader, Lease
from vedette.streamer.bus.ring import SLOTS, create_ring, slot_bytes_for

INPUT_HW = (256, 416)


class CaptureProcess:
    """``python -m vedette.streamer.worker`` with role capture, and a reader for its frames."""

    def __init__(self, run_dir: Path, source: str, **camera: Any) -> None:
        self.beats: list[dict[str, Any]] = []
        self.log: list[str] = []
        self.reader = FrameReader(run_dir, "reader1")
        create_ring(run_dir / "ring-cam-1", SLOTS, slot_bytes_for(INPUT_HW))
        beat_read, beat_write = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vedette.streamer.worker"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[beat_write],
        )
        os.close(beat_write)
        config = {"version": 1, "cameras": {"cam": {"source": source, **camera}}}
        setup = {
            "role": "capture", "name": "cam", "boot": "b", "run_dir": str(run_dir), "config": config,
            "heartbeat_fd": beat_write, "parent_pid": os.getpid(), "ring": "ring-cam-1", "input_hw": INPUT_HW,
            "secrets": [],
        }  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(setup).encode() + b"\n")
        self.process.stdin.flush()
        self._threads = [
            threading.Thread(target=self._follow_beats, args=(beat_read,)),
            threading.Thread(target=self._follow_log),
        ]
        for thread in self._threads:
            thread.start()

    def _follow_beats(self, fd: int) -> None:
        with os.fdopen(fd) as lines:
            self.beats.extend(json.loads(line) for line in lines)

    def _follow_log(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(line.decode(errors="replace") for line in self.process.stderr)

    def until(self, done: Callable[[], object], what: str, deadline_s: float = 40.0, *, ended: bool = False) -> None:
        """Wait for a condition; fail with what was seen, at once when the process is gone (unless ``ended``)."""
        end = time.monotonic() + deadline_s
        while not done():
            self._check(end, what, ended=ended)
            time.sleep(0.01)

    def _check(self, end: float, what: str, *, ended: bool) -> None:
        seen = f"last beats {self.beats[-2:]}, log {self.log[-5:]}"
        assert time.monotonic() < end, f"waited in vain for {what}; {seen}"
        assert ended or self.process.poll() is None, f"ended with {self.process.poll()} before {what}; {seen}"

    def until_state(self, state: str, *, after: int = 0, deadline_s: float = 40.0) -> dict[str, Any]:
        """The first beat with this state among those after number ``after``."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [beat for beat in self.beats[after:] if beat["state"] == state][:1]
            return bool(found)

        self.until(look, f"the state {state}", deadline_s)
        return found[0]

    def frames(self, count: int, deadline_s: float = 40.0) -> Iterator[Lease]:
        """The next frames; each is released when the next one is asked for."""
        end = time.monotonic() + deadline_s
        while count > 0:
            self._check(end, "frames", ended=False)
            for lease in self.reader.take(1, 0.2):
                with lease:
                    yield lease
                count -= 1

    def cut(self, mono_ns: int, deadline_s: float = 20.0) -> bytes | None:
        """The evidence of a moment."""
        self.reader.cut("cam", "key", mono_ns)
        self.until(lambda: self.reader.take(1, 0.05) is None or self.reader.snapshots, "a snapshot", deadline_s)
        return self.reader.snapshots.popleft().jpeg

    def stop(self, deadline_s: float = 10.0) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        return self.process.wait(deadline_s)

    def close(self) -> None:
        """Nothing is left behind."""
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self.process.stdin, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self.reader.close()


@contextlib.contextmanager
def captured(run_dir: Path, source: str, **camera: Any) -> Iterator[CaptureProcess]:
    """A running capture process; gone afterwards."""
    process = CaptureProcess(run_dir, source, **camera)
    try:
        yield process
    finally:
        process.close()

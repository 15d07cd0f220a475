"""A real hub in a process of its own, started as the supervisor starts it; for benchmarks and tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import IO, Any, Literal

from vedette.streamer.types import Event
from vedette.streamer.wire import EVENTS, TELEMETRY, ipc


class HubProcess:
    """``python -m vedette.streamer.worker`` as hub. `kill` is SIGKILL; `start` brings it back with a new boot.

    store: its folder. The publish and replay endpoints are ipc sockets in ``run_dir`` unless ``alerts`` says
    otherwise. stderr: where its log goes.
    """

    def __init__(
        self,
        store: Path,
        *,
        alerts: dict[str, Any] | None = None,
        http: str | None = None,
        cameras: dict[str, Any] | None = None,
        stderr: IO[Any] | int | None = None,
    ) -> None:
        self.store = store
        self._temporary = tempfile.TemporaryDirectory(prefix="vedette-", ignore_cleanup_errors=True)
        self.run_dir = Path(self._temporary.name)  # short: unix socket paths end at 107 bytes
        self.alerts: dict[str, Any] = {
            "publish": f"ipc://{self.run_dir}/publish.sock",
            "replay": f"ipc://{self.run_dir}/replay.sock",
            "store": str(store),
            **(alerts or {}),
        }
        self.config: dict[str, Any] = {
            "version": 1,
            "site": "test",
            "cameras": cameras or {},
            "alerts": self.alerts,
            "http": {"listen": http},
        }
        self._stderr = stderr
        self._process: subprocess.Popen[bytes] | None = None
        self._beats: int | None = None
        self._unread = b""

    @property
    def publish(self) -> str:
        """Where subscribers connect."""
        return str(self.alerts["publish"])

    @property
    def replay(self) -> str:
        """Where they ask for what they missed."""
        return str(self.alerts["replay"])

    @property
    def events(self) -> str:
        """Where producers connect."""
        return ipc(self.run_dir, EVENTS)

    @property
    def telemetry(self) -> str:
        """Where telemetry goes."""
        return ipc(self.run_dir, TELEMETRY)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        if self._process is None:
            raise RuntimeError("HubProcess: not started")
        return self._process

    def start(self, *, wait_s: float = 20.0) -> HubProcess:
        """Start it; with ``wait_s`` > 0 return when it serves. Raises RuntimeError when it ends before that."""
        ours, theirs = os.pipe()
        setup = {
            "role": "hub",
            "name": "hub",
            "boot": uuid.uuid4().hex[:12],
            "run_dir": str(self.run_dir),
            "config": self.config,
            "heartbeat_fd": theirs,
            "parent_pid": os.getpid(),
            "input_hw": [256, 416],
            "secrets": [],
        }
        command = [sys.executable, "-m", "vedette.streamer.worker"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=self._stderr, pass_fds=(theirs,), start_new_session=True
        )
        os.close(theirs)
        os.set_blocking(ours, False)
        self._beats, self._unread = ours, b""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(setup).encode() + b"\n")
        self._process.stdin.flush()
        if wait_s > 0:
            self.wait_for("serving", wait_s)
        return self

    def beats(self) -> list[dict[str, Any]]:
        """Heartbeats since the last call."""
        assert self._beats is not None
        while True:
            try:
                data = os.read(self._beats, 65536)
            except BlockingIOError:
                break
            if not data:
                break
            self._unread += data
        *lines, self._unread = self._unread.split(b"\n")
        return [json.loads(line) for line in lines]

    def wait_for(self, state: str, wait_s: float = 20.0) -> dict[str, Any]:
        """The first heartbeat of that state. Raises RuntimeError when it does not come."""
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            for beat in self.beats():
                if beat["state"] == state:
                    return beat
            if self.process.poll() is not None:
                raise RuntimeError(f"the hub ended with status {self.process.returncode}")
            time.sleep(0.01)
        raise RuntimeError(f"the hub was not {state!r} within {wait_s} s")

    def control(self, message: dict[str, Any]) -> None:
        """Send a control message, as the supervisor does."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.send_signal(signal.SIGKILL)
        self._reap()

    def stop(self, *, wait_s: float = 8.0) -> int:
        """SIGTERM; the exit status. Kills it when it does not end in time, then the status is negative."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(wait_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self._reap()

    def _reap(self) -> int:
        status = self.process.wait(10)
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self._beats is not None:
            os.close(self._beats)
            self._beats = None
        return status

    def __enter__(self) -> HubProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop it when it still runs, and remove its sockets."""
        if self._beats is not None:
            self.stop()
        self._temporary.cleanup()


def numbered_event(
    number: int,
    *,
    camera: str = "dock",
    phase: Literal["start", "update", "end"] = "end",
    rev: int = 0,
    producer: str = "infer",
    boot: str = "boot-1",
    wall_s: float | None = None,
) -> Event:
    """An event called ``e<number>``; its picture was decoded just now."""
    return Event(
        id=f"e{number}",
        rev=rev,
        producer=producer,
        boot=boot,
        camera=camera,
        rule="zone:gate",
        kind="zone",
        phase=phase,
        severity="warning",
        mono_ns=time.monotonic_ns(),
        wall_s=time.time() if wall_s is None else wall_s,
        track_ids=(f"{camera}/{boot}/{number}",),
        label="person",
        score=0.9,
        box=(0.1, 0.2, 0.3, 0.4),
        zone="gate",
        explain={"number": number},
        latency_ms={"capture": 1.0, "infer": 2.0},
    )

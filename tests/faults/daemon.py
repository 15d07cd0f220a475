"""The real daemon under test: `vedette run` as its own process, looked at only through its public contracts."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.faults.netns import Namespace
from vedette.streamer import subscribe


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, ready: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """The first true value of ``ready``; AssertionError naming ``what`` when it does not come in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = ready()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {timeout_s:g} s")


class Daemon:
    """One `vedette run` on free ports with its own store; ``start`` may be called again after a kill."""

    def __init__(
        self,
        folder: Path,
        cameras: dict[str, Any],
        *,
        environment: dict[str, str] | None = None,
        namespace: Namespace | None = None,
        **top: Any,
    ) -> None:
        """environment: variables added to its own. namespace: the network it lives in."""
        self.folder = folder
        self.environment = {**os.environ, "VEDETTE_LOG": "info", **(environment or {})}
        self.namespace = namespace
        self.publish = f"tcp://127.0.0.1:{free_port()}"
        self.replay = f"tcp://127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self.store = folder / "store"
        self.config = {
            "version": 1,
            "cameras": cameras,
            "alerts": {"publish": self.publish, "replay": self.replay, "store": str(self.store)},
            "http": {"listen": self.http},
            **top,
        }
        self.path = folder / "config.yaml"
        self.write()
        self.log = folder / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None

    def write(self) -> None:
        """Write the configuration as it now is."""
        self.path.write_text(yaml.safe_dump(self.config))

    def start(self) -> None:
        """Start the supervisor."""
        command = [sys.executable, "-m", "vedette.streamer.cli", "run", str(self.path)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*(self.namespace.prefix if self.namespace else []), *command],
                stdout=log,
                stderr=log,
                env=self.environment,
            )

    def get(self, path: str) -> Any:
        """JSON of an HTTP path, or None while it does not answer with 200."""
        try:
            return json.loads(self._fetch(path))
        except (OSError, ValueError, http.client.HTTPException):
            return None

    def metric(self, name: str, **labels: str) -> float:
        """A metric's value; 0 while it is not told."""
        try:
            text = self._fetch("/metrics").decode()
        except (OSError, http.client.HTTPException):
            return 0.0
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        for line in text.splitlines():
            if line.startswith((f"{name}{{", f"{name} ")) and all(label in line for label in wanted):
                return float(line.rpartition(" ")[2])
        return 0.0

    def _fetch(self, path: str) -> bytes:
        inside = self.namespace.entered() if self.namespace else contextlib.nullcontext()
        with inside, urllib.request.urlopen(f"http://{self.http}{path}", timeout=2) as answer:
            found: bytes = answer.read()
            return found

    def processes(self) -> list[dict[str, Any]]:
        """The process table of /api/v1/processes."""
        return (self.get("/api/v1/processes") or {}).get("processes", [])

    def row(self, name: str) -> dict[str, Any]:
        """The row of ``hub``, ``infer`` or a camera in the process table; {} while it is not known."""
        return next((row for row in self.processes() if row["name"] == name), {})

    def committed(self) -> list[dict[str, Any]]:
        """Every alert of the store, over HTTP."""
        alerts: list[dict[str, Any]] = []
        while True:
            since = alerts[-1]["seq"] if alerts else 0
            page = wait_for("a page of alerts", lambda since=since: self.get(f"/api/v1/alerts?from={since}"), 20)
            if not page["alerts"]:
                return alerts
            alerts += page["alerts"]

    def messages(self) -> list[str]:
        """What it logged, a message a line."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line)["message"] if line.startswith("{") else line for line in lines]

    def pid(self, role: str, camera: str | None = None) -> int | None:
        """The pid of a role (and camera), once it is known."""
        for row in self.processes():
            if row["role"] == role and (camera is None or row.get("camera") == camera):
                return row["pid"] if row["pid"] and alive(row["pid"]) else None
        return None

    def wait_streaming(self, *cameras: str, timeout_s: float = 60.0) -> None:
        """Until each of these cameras says that it streams."""

        def streaming() -> bool:
            states = {row.get("camera"): row["state"] for row in self.processes()}
            return all(states.get(name) == "streaming" for name in cameras)

        wait_for(f"{', '.join(cameras)} streaming ({self.log})", streaming, timeout_s)

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Until /readyz answers."""
        wait_for(f"readyz ({self.log})", lambda: self.get("/readyz"), timeout_s)

    def stop(self, timeout_s: float = 12.0) -> int:
        """SIGTERM and the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def close(self) -> None:
        """Kill it when it still runs, and wait for its children."""
        if self.process is not None and self.process.poll() is None:
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.kill()
            psutil.wait_procs(children, timeout=5)

    def kill(self) -> None:
        """SIGKILL the supervisor."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


class Listener:
    """A subscriber in a thread that keeps its cursor in memory and remembers every alert."""

    def __init__(self, daemon: Daemon, since: int = 0) -> None:
        self.alerts: list[dict[str, Any]] = []
        self.errors: list[BaseException] = []
        self._args = (daemon.publish, daemon.replay, since)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        publish, replay, since = self._args
        try:
            for alert in subscribe(publish, replay=replay, since=since):
                self.alerts.append(alert)
        except BaseException as error:  # noqa: BLE001 - shown by the test that reads it
            self.errors.append(error)

    def check(self) -> None:
        """Gapless from the first, in order, nothing twice."""
        assert not self.errors, self.errors
        alerts = list(self.alerts)
        seqs = [alert["seq"] for alert in alerts]
        assert seqs == list(range(1, len(seqs) + 1)), seqs
        keys = [(alert["id"], alert["rev"]) for alert in alerts]
        assert len(set(keys)) == len(keys)

    def agrees_with(self, daemon: Daemon) -> int:
        """Exactly what was committed, in order, none twice, and its last seq is the hub's; how many."""
        store = daemon.committed()
        wait_for("the subscriber has caught up", lambda: len(self.alerts) >= len(store), 30)
        self.check()
        assert [a["seq"] for a in store] == list(range(1, len(store) + 1))
        assert [(a["id"], a["rev"]) for a in self.alerts[: len(store)]] == [(a["id"], a["rev"]) for a in store]
        return len(store)


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"

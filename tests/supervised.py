"""A real daemon with small roles, for the supervisor's tests.

``python supervised.py CONFIG`` is ``vedette run CONFIG`` whose children play the roles below. A camera's source says what
its process does: ``/steady`` reports pictures, ``/dark`` connects for ever, ``/ended`` comes to its end, ``/aborts`` dies of
SIGABRT once it streams, ``/deaf`` streams and then reports nothing, ``/stubborn`` ignores SIGTERM, ``/still`` is frozen,
``/while:FILE`` streams while the file exists.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import zmq

from vedette.streamer.errors import EngineError, StoreError
from vedette.streamer.wire import EVENTS, TELEMETRY, decode, encode, ipc
from vedette.streamer.worker import Life

HERE = Path(__file__).resolve().parent
TARGETS = {role: f"supervised:{role}" for role in ("hub", "infer", "capture")}
BEAT_S = 0.05
#: How long the roles may be silent: short, so that a hang is found quickly, long enough for a busy machine.
PATIENCE_S = 2.0


def hub(life: Life) -> int:
    """Acknowledges every event on the real link; what it hears goes to ``<store>/{events,telemetry}.jsonl``."""
    store = Path(life.config.alerts.store)
    if (store / "hopeless").exists():
        raise StoreError("alerts.store: the database is not one, got 'hopeless'")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router, pull = context.socket(zmq.ROUTER), context.socket(zmq.PULL)
    router.bind(ipc(life.run_dir, EVENTS))
    pull.bind(ipc(life.run_dir, TELEMETRY))
    poller = zmq.Poller()
    poller.register(router, zmq.POLLIN)
    poller.register(pull, zmq.POLLIN)
    with (store / "events.jsonl").open("ab", 0) as events, (store / "telemetry.jsonl").open("ab", 0) as told:
        while not life.stopping.is_set():
            life.beat("serving", every_s=BEAT_S, deadline_s=PATIENCE_S)
            ready = dict(poller.poll(int(BEAT_S * 1000)))
            if pull in ready:
                topic, raw = pull.recv_multipart()
                told.write(encode({"topic": topic.decode(), "message": decode(raw)}) + b"\n")
            if router in ready:
                who, kind, raw, *_ = router.recv_multipart()
                message = decode(raw)
                if kind == b"hello":
                    router.send_multipart([who, b"hello", encode({"boot": life.setup.boot})])
                else:
                    events.write(encode(message) + b"\n")
                    router.send_multipart([who, b"ack", encode({"id": message["id"], "rev": message["rev"]})])
    context.destroy(linger=0)
    return 0


def infer(life: Life) -> int:
    """Reports the configured input size and the controls it heard."""
    if life.config.engine.detector == "missing":
        raise EngineError("engine.detector: no model is called 'missing'; `vedette models list` shows what there is")
    heard: list[object] = []
    while not life.stopping.is_set():
        while not life.control.empty():
            message = life.control.get()
            heard.append([message["control"], sorted(message["config"]["cameras"])])
        report = {"input_hw": list(life.config.engine.input_hw), "heard": heard, "site": life.config.site}
        life.beat("idle", every_s=BEAT_S, deadline_s=PATIENCE_S, **report)
        life.stopping.wait(BEAT_S)
    return 0


def capture(life: Life) -> int:
    """Plays what the camera's source says."""
    source = life.config.cameras[life.name].source
    assert life.setup.ring is not None
    assert (life.run_dir / life.setup.ring).stat().st_size > life.setup.input_hw[0] * life.setup.input_hw[1] * 3
    if "stubborn" in source:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    switch = Path(source.partition("while:")[2] or "/")
    born_s, newest_ns, state = time.monotonic(), None, "connecting"
    sees = {"cameras": sorted(life.config.cameras), "input_hw": list(life.setup.input_hw)}
    while not life.stopping.is_set():
        if "ended" in source:
            life.beat("ended", force=True)
            return 0
        if "dark" not in source and switch.exists():
            newest_ns, state = time.monotonic_ns(), "frozen" if "still" in source else "streaming"
        report = {"last_frame_mono_ns": newest_ns, "epoch": 1, "fps": 10.0, **sees}
        life.beat(state, every_s=BEAT_S, deadline_s=PATIENCE_S, **report)
        if time.monotonic() - born_s > 0.2:
            if "deaf" in source:
                time.sleep(3600)
            if "aborts" in source:
                os.abort()
        life.stopping.wait(BEAT_S)
    return 0


class ServiceManager:
    """A real NOTIFY_SOCKET that listens as systemd does. Use as a context; ``said`` is every line heard so far."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "n")
        self.said: list[str] = []
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._link.bind(self.address)
        self._thread = threading.Thread(target=self._listen)

    def environment(self, watchdog_s: float) -> dict[str, str]:
        """What systemd would tell the daemon."""
        return {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": str(round(watchdog_s * 1e6))}

    def __enter__(self) -> ServiceManager:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.sendto(b"", self.address)
        self._thread.join()
        self._link.close()

    def _listen(self) -> None:
        while word := self._link.recv(4096):
            self.said += word.decode().splitlines()


class Daemon:
    """``vedette run`` with the roles above, as a process of its own. Use as a context: nothing is left behind."""

    def __init__(
        self, folder: Path, cameras: str, *, extra: str = "", environment: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.config = folder / "config.yaml"
        # a unix socket's path is short, pytest's folders are not
        self.runtime = Path(tempfile.mkdtemp(prefix="vd-"))
        self._environment = {"XDG_RUNTIME_DIR": str(self.runtime), **(environment or {})}
        self._log = folder / "log.jsonl"
        self.process: subprocess.Popen[bytes] | None = None
        self.write(cameras, extra=extra)

    def write(self, cameras: str, *, extra: str = "") -> None:
        """Write the configuration; ``cameras`` is YAML below ``cameras:``, ``extra`` more of the file."""
        self.config.write_text(
            f"version: 1\ncameras: {cameras}\n"
            f"alerts: {{publish: 'ipc://{self.folder}/p', replay: 'ipc://{self.folder}/r', store: '{self.store}'}}\n"
            f"http: {{listen: null}}\n{extra}"
        )

    def start(self) -> Daemon:
        """Start it; does not wait."""
        environment = {k: v for k, v in os.environ.items() if k not in ("RUNTIME_DIRECTORY", "VEDETTE_LOG")}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "supervised.py"), str(self.config)],
                env={**environment, **self._environment},
                stdout=log,
                stderr=log,
            )
        return self

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(self, *_: object) -> None:
        children = self.descendants()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for child in children:
            if child.is_running():
                child.kill()
        shutil.rmtree(self.runtime)

    def descendants(self) -> list[psutil.Process]:
        """Every process it started that still lives."""
        if self.process is None or self.process.poll() is not None:
            return []
        return psutil.Process(self.process.pid).children(recursive=True)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The complete lines of a JSON-lines file of the store."""
        path = self.store / name
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def log(self) -> list[str]:
        """What it logged."""
        text = self._log.read_text() if self._log.exists() else ""
        return [json.loads(line)["message"] if line.startswith("{") else line for line in text.splitlines()]

    def told(self, topic: str) -> list[dict[str, Any]]:
        """The messages it sent under a topic."""
        return [line["message"] for line in self.lines("telemetry.jsonl") if line["topic"] == topic]

    def table(self) -> dict[str, dict[str, Any]]:
        """Its newest process table, by name; empty before the first."""
        tables = self.told("process")
        return {row["name"]: row for row in tables[-1]["processes"]} if tables else {}

    def until(self, what: Callable[[], Any], within_s: float = 30.0) -> Any:
        """Wait for a condition; its value. Fails with the daemon's log when it does not come."""
        deadline_s = time.monotonic() + within_s
        while not (value := what()):
            assert time.monotonic() < deadline_s, "\n".join(["never happened; the daemon's log:", *self.log()[-40:]])
            time.sleep(0.1)
        return value

    def until_states(self, **states: str) -> dict[str, dict[str, Any]]:
        """Wait until the process table shows these states; the table."""

        def matches() -> dict[str, dict[str, Any]] | None:
            table = self.table()
            return table if all(table.get(name, {}).get("state") == state for name, state in states.items()) else None

        table: dict[str, dict[str, Any]] = self.until(matches)
        return table

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, within_s: float = 20.0) -> int:
        """Its exit status."""
        assert self.process is not None
        return self.process.wait(within_s)

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()


def main() -> int:
    """The daemon."""
    from vedette.streamer import cli
    from vedette.streamer.commands import run

    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    whole = run.run_daemon
    run.run_daemon = lambda loaded, path: whole(loaded, path, TARGETS)  # type: ignore[assignment]
    return cli.main(["run", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

"""Small real roles for the supervisor's tests, and a daemon whose children play them.

``python supervised.py CONFIG`` is ``vedette run CONFIG`` with these roles. A camera's source says what its process does:
``/steady`` reports a picture every beat, ``/ended`` comes to its end, ``/aborts`` dies of SIGABRT once it streams,
``/deaf`` stops reporting, ``/stubborn`` ignores SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import zmq

from vedette.streamer.errors import EngineError, StoreError
from vedette.streamer.wire import EVENTS, decode, encode, ipc
from vedette.streamer.worker import Life

HERE = Path(__file__).resolve().parent
TARGETS = {role: f"supervised:{role}" for role in ("hub", "infer", "capture")}
BEAT_S = 0.05


def hub(life: Life) -> int:
    """Acknowledges every event on the real link and writes it to ``<store>/events.jsonl``."""
    store = Path(life.config.alerts.store)
    if (store / "hopeless").exists():
        raise StoreError("alerts.store: the database is not one, got 'hopeless'")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.LINGER, 0)
    router.bind(ipc(life.run_dir, EVENTS))
    pull = context.socket(zmq.PULL)
    pull.setsockopt(zmq.LINGER, 0)
    pull.bind(ipc(life.run_dir, "telemetry.sock"))
    with (
        (store / "events.jsonl").open("ab", buffering=0) as events,
        (store / "telemetry.jsonl").open("ab", buffering=0) as told,
    ):
        while not life.stopping.is_set():
            life.beat("serving", every_s=BEAT_S)
            while pull.poll(0):
                topic, raw = pull.recv_multipart()
                told.write(encode({"topic": topic.decode(), "message": decode(raw)}) + b"\n")
            if not router.poll(int(BEAT_S * 1000)):
                continue
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
    """Reports the configured input size; says which controls it heard."""
    if life.config.engine.detector == "missing":
        raise EngineError("engine.detector: no model is called 'missing'; `vedette models list` shows what there is")
    heard: list[object] = []
    while not life.stopping.is_set():
        while not life.control.empty():
            heard.append(life.control.get()["control"])
        life.beat("idle", every_s=BEAT_S, input_hw=list(life.config.engine.input_hw), heard=heard)
        life.stopping.wait(BEAT_S)
    return 0


def capture(life: Life) -> int:
    """Plays what the camera's source says."""
    source = life.config.cameras[life.name].source
    assert life.setup.ring is not None
    assert (life.run_dir / life.setup.ring).stat().st_size > life.setup.input_hw[0] * life.setup.input_hw[1] * 3
    if "stubborn" in source:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    born_s = time.monotonic()
    while not life.stopping.is_set():
        if "ended" in source:
            life.beat("ended", force=True)
            return 0
        if "dark" in source:
            life.beat("connecting", every_s=BEAT_S, last_error="connection refused")
        elif "deaf" in source and time.monotonic() - born_s > 0.3:
            life.beat("streaming", force=True, deadline_s=0.5)
            time.sleep(3600)
        else:
            life.beat("streaming", every_s=BEAT_S, last_frame_mono_ns=time.monotonic_ns(), epoch=1, fps=10.0)
        if "aborts" in source and time.monotonic() - born_s > 0.2:
            os.abort()
        life.stopping.wait(BEAT_S)
    return 0


def main() -> int:
    """The daemon."""
    from vedette.streamer import cli
    from vedette.streamer.commands import run

    os.environ["PYTHONPATH"] = str(HERE)
    whole = run.run_daemon
    run.run_daemon = lambda loaded, path: whole(loaded, path, TARGETS)  # type: ignore[assignment]
    return cli.main(["run", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

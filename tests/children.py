"""What the children of ``tests/streamer/supervisor/test_child.py`` do. Each takes a Life, as every role."""

from __future__ import annotations

import logging
import os
import resource
import sys
import threading
import time
from pathlib import Path

from vedette.streamer.errors import EngineError
from vedette.streamer.worker import Life


def echo(life: Life) -> None:
    """Beats what it was told."""
    heard: list[list[object]] = []
    while not life.stopping.wait(0.02):
        while not life.control.empty():
            message = life.control.get()
            heard.append([message["control"], len(message.get("text", ""))])
        life.beat("idle", every_s=0.02, heard=heard)


def announces(life: Life) -> None:
    """A long step, then ordinary work."""
    life.beat("loading", force=True, deadline_s=900.0)
    life.stopping.wait(0.5)
    life.beat("idle", force=True)
    life.stopping.wait()


def refuses(_life: Life) -> None:
    """Cannot do its work."""
    raise EngineError("engine.detector: cannot fetch https://user:pw@host/x")


def stumbles(life: Life) -> None:
    """Has a bug in a thread and another in its loop."""
    (secret,) = life.setup.secrets

    def stumble() -> None:
        raise ValueError(f"thread stumbled over {secret}")

    thread = threading.Thread(target=stumble, name="aide")
    thread.start()
    thread.join()
    raise ValueError(f"main stumbled over {secret}")


def babbles(life: Life) -> None:
    """Writes what no beat may be."""
    good = b'{"state":"done","deadline_s":1e300}\n'
    bad = [b"{", b"[1]", b'{"state":1}', b'{"state":"x","deadline_s":NaN}', b'{"state":"x","deadline_s":-1}']
    os.set_blocking(life.setup.heartbeat_fd, True)
    os.write(life.setup.heartbeat_fd, b"\n".join(bad) + b"\n")
    giant = memoryview(b"x" * 40_000 + b"\n" + good)
    while giant:
        giant = giant[os.write(life.setup.heartbeat_fd, giant) :]
    life.stopping.wait()


def talks_much(life: Life) -> None:
    """Fills the pipe while nobody listens."""
    text = "x" * (32 * 1024 - 1000)
    until_s = time.monotonic() + 1.0
    while time.monotonic() < until_s:
        life.beat("idle", force=True, text=text)
        time.sleep(0.001)


def tells(life: Life) -> None:
    """What it sees of itself."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    umask = os.umask(0)
    os.umask(umask)
    life.beat(
        "idle",
        force=True,
        told={
            "core": list(resource.getrlimit(resource.RLIMIT_CORE)),
            "no_new_privs": status["NoNewPrivs"],
            "comm": Path("/proc/self/comm").read_text().strip(),
            "group": os.getpgrp(),
            "environment": [name for name in os.environ if name.startswith(("NOTIFY_", "WATCHDOG_"))],
            "names": list(os.environ),
            "umask": umask,
            "cwd_imported": os.getcwd() in sys.path or "" in sys.path,
        },
    )
    logging.getLogger("vedette.test").info("told")
    life.stopping.wait()

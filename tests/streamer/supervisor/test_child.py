"""Children are real processes: told by pipe, heard by pipe, confined, and never able to hold the supervisor up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import children
from vedette.streamer.config import Config
from vedette.streamer.supervisor.child import MAX_LINE, Child, status_words
from vedette.streamer.worker import Setup

ENVIRONMENT = {"PYTHONPATH": str(Path(children.__file__).parent)}


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Starts a child that runs a function of ``tests/children.py``; all are dead and closed afterwards."""
    started: list[Child] = []

    def start(role: str, hidden: tuple[str, ...] = (), **fields: Any) -> Child:
        config = Config.model_validate({"version": 1, "cameras": {}})
        setup = Setup(
            role="hub",
            name=role,
            boot="b0",
            run_dir=str(tmp_path),
            config=config.model_dump(mode="json"),
            heartbeat_fd=-1,
            parent_pid=-1,
            target=f"children:{role}",
            **fields,
        )
        started.append(Child.spawn(setup, time.monotonic(), ENVIRONMENT, hidden))
        return started[-1]

    yield start
    for child in started:
        if child.exit_status() is None:
            child.kill()
        child.close()


def until(child: Child, what: Callable[[], Any]) -> Any:
    """Listen until the condition holds; its value."""
    deadline_s = time.monotonic() + 30
    while not (value := what()):
        assert time.monotonic() < deadline_s, f"never happened; last beat {child.beat}"
        child.listen(time.monotonic())
        child.flush()
        time.sleep(0.01)
    return value


def test_a_child_hears_controls_and_answers_in_beats(spawn: Callable[..., Child]) -> None:
    """Control lines arrive in order, however large; it is up once it says more than starting."""
    child = spawn("echo")
    until(child, lambda: child.up)
    big = {"control": "big", "text": "x" * 300_000}  # more than a pipe holds
    child.send({"control": "one"})
    child.send(big)
    child.send({"control": "two"})
    until(child, lambda: child.beat.get("heard") == [["one", 0], ["big", 300_000], ["two", 0]])
    assert not child.pending
    child.terminate()
    until(child, lambda: child.exit_status() is not None)
    assert child.close() == 0


def test_a_child_that_does_not_read_does_not_hold_us_up(spawn: Callable[..., Child]) -> None:
    """Messages to a stopped process are kept, not waited for."""
    child = spawn("echo")
    until(child, lambda: child.up)
    os.kill(child.pid, signal.SIGSTOP)
    child.send({"control": "big", "text": "x" * 1_000_000})
    assert child.pending
    os.kill(child.pid, signal.SIGCONT)
    until(child, lambda: child.beat.get("heard") == [["big", 1_000_000]])


def test_closing_its_input_ends_a_child(spawn: Callable[..., Child]) -> None:
    """End of file on standard input means that the supervisor is gone."""
    child = spawn("echo")
    until(child, lambda: child.up)
    assert child._process.stdin is not None
    child._process.stdin.close()
    until(child, lambda: child.exit_status() is not None)
    assert child.close() == 0


def test_an_announced_pause_is_not_a_hang(spawn: Callable[..., Child]) -> None:
    """deadline_s in a beat is the patience until the next; without one the default counts again."""
    child = spawn("announces")
    until(child, lambda: child.state == "loading")
    now_s = child.last_beat_s
    assert not child.up
    assert not child.overdue(now_s + 899)
    assert child.overdue(now_s + 901)
    until(child, lambda: child.state == "idle")
    assert child.up
    assert child.overdue(child.last_beat_s + 10.1)


def test_the_sentence_of_an_operational_error_is_heard(spawn: Callable[..., Child]) -> None:
    """A VedettError ends the child with its exit code; its sentence is the last beat, without credentials."""
    child = spawn("refuses")
    until(child, lambda: child.exit_status() is not None)
    assert child.close() == 3
    assert child.state == "failed"
    assert child.beat["error"] == "engine.detector: cannot fetch https://***@host/x"
    assert not child.up


def test_a_bug_is_exit_1_and_its_trace_holds_no_secret(
    spawn: Callable[..., Child], capfd: pytest.CaptureFixture[str]
) -> None:
    """An exception that nobody expected is logged through the redacting log, also when a thread dies of it."""
    child = spawn("stumbles", secrets=("hunter2hunter2",))
    until(child, lambda: child.exit_status() is not None)
    assert child.close() == 1
    logged = capfd.readouterr().err
    assert "ValueError" in child.beat["error"]
    assert "thread stumbled over ***" in logged
    assert "main stumbled over ***" in logged
    assert "hunter2" not in logged + str(child.beat)


def test_beats_that_are_not_beats_are_counted(spawn: Callable[..., Child]) -> None:
    """Broken JSON, NaN, a wrong type, a giant line: counted, and the next good beat is heard."""
    child = spawn("babbles")
    until(child, lambda: child.state == "done")
    assert child.malformed == 6
    assert child.beat["deadline_s"] == 1e300
    assert child.deadline_s == 3600.0


def test_a_beat_larger_than_the_pipe_is_not_torn(spawn: Callable[..., Child]) -> None:
    """A long report is finished in later beats, never mixed with them."""
    child = spawn("talks_much")
    time.sleep(0)  # do not listen until it has filled the pipe
    until(child, lambda: child.exit_status() is not None)
    child.listen(time.monotonic())
    assert child.malformed == 0
    assert len(child.beat["text"]) == MAX_LINE - 1000


def test_a_child_is_confined(spawn: Callable[..., Child], monkeypatch: pytest.MonkeyPatch) -> None:
    """No core file, no new privileges, its own process group, no way to speak to systemd, a name to be seen by."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    child = spawn("tells")
    told = until(child, lambda: child.beat.get("told"))
    assert told["core"] == [0, 0]
    assert told["no_new_privs"] == "1"
    assert told["comm"] == "vd-tells"
    assert told["group"] == child.pid
    assert told["environment"] == []
    assert told["umask"] == 0o027
    assert told["cwd_imported"] is False


def test_secrets_do_not_travel_in_the_environment(spawn: Callable[..., Child], monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that decodes what strangers send must not find another camera's password in its environment."""
    monkeypatch.setenv("DOCK_PASSWORD", "hunter2hunter2")
    monkeypatch.setenv("DOCK_URL", "rtsp://me:hunter2hunter2@h/x")
    monkeypatch.setenv("NOTIFY_HARMLESS", "x")
    told = until(child := spawn("tells"), lambda: child.beat.get("told"))
    assert {"DOCK_PASSWORD", "DOCK_URL"} <= set(told["names"])
    hidden = spawn("tells", hidden=("hunter2hunter2",))
    told = until(hidden, lambda: hidden.beat.get("told"))
    assert not {"DOCK_PASSWORD", "DOCK_URL"} & set(told["names"])
    assert "PYTHONPATH" in told["names"]


def test_a_child_is_tied_to_its_parent_before_it_imports_anything_slow() -> None:
    """What runs before PR_SET_PDEATHSIG takes no time: a supervisor that is killed while a child starts leaves nobody."""
    code = "import sys, vedette.streamer.birth; print([m for m in ('numpy', 'pydantic', 'zmq', 'yaml', 'cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_orphan_in_its_first_moment_dies(tmp_path: Path) -> None:
    """The parent is killed right after the spawn: the child, whose setup nobody will finish, is gone within 2 s."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal, time\n"
        "from vedette.streamer.supervisor.child import Child\n"
        "from vedette.streamer.worker import Setup\n"
        "child = Child.spawn(Setup('hub', 'hub', 'b', '/', {}, -1, -1), time.monotonic())\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60)
    assert parent.returncode == -signal.SIGKILL
    orphan = int(parent.stdout)
    deadline_s = time.monotonic() + 2
    while psutil.pid_exists(orphan) and psutil.Process(orphan).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_exit_statuses_have_words() -> None:
    """Signals are named, everything else is a number."""
    assert [status_words(s) for s in (0, 3, -signal.SIGSEGV, -63, None)] == [
        "exit 0",
        "exit 3",
        "SIGSEGV",
        "signal 63",
        "still there",
    ]

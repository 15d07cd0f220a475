"""What systemd hears, on a real datagram socket."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vedette.streamer.supervisor.sdnotify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A listening service manager and its address."""
    address = os.path.relpath(tmp_path / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(address)
        link.settimeout(5)
        yield link, address


def test_each_word_is_one_datagram(manager: tuple[socket.socket, str]) -> None:
    """READY with its status, RELOADING with the monotonic time that notify-reload needs, STOPPING."""
    link, address = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready("2 cameras")
    assert link.recv(4096) == b"READY=1\nSTATUS=2 cameras"
    before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    word, usec = link.recv(4096).decode().splitlines()
    assert word == "RELOADING=1"
    assert before_us <= int(usec.removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.stopping()
    assert link.recv(4096) == b"STOPPING=1"


def test_the_watchdog_is_fed_at_half_its_interval(manager: tuple[socket.socket, str]) -> None:
    """WATCHDOG_USEC of 10 s means a word every 5 s, not every tick."""
    link, address = manager
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())})
    for now_s in (100.0, 101.0, 104.9, 105.0, 105.1):
        notifier.watchdog(now_s)
    assert [link.recv(4096), link.recv(4096)] == [b"WATCHDOG=1", b"WATCHDOG=1"]
    link.setblocking(False)
    with pytest.raises(BlockingIOError):
        link.recv(4096)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": "n", "WATCHDOG_PID": "1", "WATCHDOG_USEC": "5"},
        {"NOTIFY_SOCKET": "n", "WATCHDOG_USEC": "x"},
    ],
    ids=["no manager", "another process's watchdog", "not a number"],
)
def test_no_watchdog_where_none_is_asked_for(environ: dict[str, str]) -> None:
    """Without a manager, with another's WATCHDOG_PID or a broken interval nothing is fed."""
    assert Notifier(environ).watchdog_s is None


def test_an_unchanged_status_is_said_once(manager: tuple[socket.socket, str]) -> None:
    """STATUS goes out on change only."""
    link, address = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    for text in ("a", "a", "b"):
        notifier.status(text)
    assert [link.recv(4096), link.recv(4096)] == [b"STATUS=a", b"STATUS=b"]


def test_a_manager_that_does_not_read_does_not_hold_us_up(manager: tuple[socket.socket, str]) -> None:
    """With its queue full, READY waits for room instead of us, and is heard as soon as there is some."""
    link, address = manager
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2"})
    for now_s in range(5000):
        notifier.watchdog(float(now_s))
    notifier.ready("late")
    heard = []
    link.setblocking(False)
    while not heard or heard[-1] != b"READY=1\nSTATUS=late":
        try:
            heard.append(link.recv(4096))
        except BlockingIOError:
            notifier.status("late")
    assert set(heard[:-1]) == {b"WATCHDOG=1"}
    assert len(heard) < 5000


def test_a_manager_that_is_gone_is_complained_about_once(
    manager: tuple[socket.socket, str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address nobody listens on is one warning, and no error."""
    link, address = manager
    link.close()
    os.unlink(address)
    monkeypatch.setattr(logging.getLogger("vedette"), "propagate", True)
    notifier = Notifier({"NOTIFY_SOCKET": address})
    for _ in range(100):
        notifier.stopping()
    assert len([r for r in caplog.records if "does not take what we say" in r.getMessage()]) == 1


def test_an_abstract_address_works() -> None:
    """Addresses that begin with @ name no file."""
    name = f"vedette-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(f"\0{name}")
        link.settimeout(5)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).stopping()
        assert link.recv(100) == b"STOPPING=1"

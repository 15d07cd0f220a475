"""What systemd wants to hear (sd_notify(3)), over the datagram socket it names; silent where there is none."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

log = logging.getLogger("vedette.supervisor")

#: Words kept for a manager whose queue is full.
MOST_OWED = 16


class Notifier:
    """Speaks to the service manager that started this process.

    watchdog_s: how often the manager wants to hear `watchdog`, already halved, or None when it does not.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._failed = False
        self.watchdog_s = _watchdog_s(environ) if self._address else None
        self._fed_s = float("-inf")
        self._status = ""
        self._owed: list[str] = []

    def ready(self, status: str) -> None:
        """Up (or reloaded): READY=1."""
        self._status = status
        self._insist(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``, sent when it changed. Call it in every turn: it says what is still owed."""
        self._insist()
        if text != self._status and not self._owed and self._send(f"STATUS={text}"):
            self._status = text

    def reloading(self) -> None:
        """RELOADING=1; without MONOTONIC_USEC in the same message Type=notify-reload waits until it times out."""
        self._insist(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """STOPPING=1."""
        self._insist("STOPPING=1")

    def watchdog(self, now_s: float) -> None:
        """WATCHDOG=1, when half of the manager's interval has passed. Call it only when work was done."""
        if self.watchdog_s is not None and now_s - self._fed_s >= self.watchdog_s and self._send("WATCHDOG=1"):
            self._fed_s = now_s

    def _insist(self, *words: str) -> None:
        """Say what must be heard, in order; what a full queue refuses is kept for the next turn."""
        self._owed += words
        while self._owed and self._send(self._owed[0]):
            del self._owed[0]
        del self._owed[:-MOST_OWED]

    def _send(self, text: str) -> bool:
        """Whether it was taken. Never waits: the loop that feeds the cameras' children must not hang on systemd."""
        if not self._address:
            return True
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
                link.setblocking(False)
                link.sendto(text.encode(), address)
        except OSError as error:
            if not self._failed:
                log.warning("NOTIFY_SOCKET %s does not take what we say: %s", self._address, error)
            self._failed = True
            return False
        return True


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) == 0 or (pid.isdigit() and int(pid) != os.getpid()):
        return None
    return int(usec) / 2e6

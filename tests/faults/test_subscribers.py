"""Subscribers that stall, leave and come back, and a webhook that is away: nobody else notices, nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.daemon import wait_for
from tests.faults.proxy import Proxy
from tests.faults.report import tell
from tests.streamer.sinks.sink_ends import Receiver, commit, opened
from vedette.streamer.bench._hub import HubProcess, numbered_event
from vedette.streamer.eventlink import EventLink
from vedette.streamer.sinks.runner import SinkRunner
from vedette.streamer.sinks.webhook import WebhookConfig

#: A subscriber as anybody would write one: it prints what it is given and keeps its cursor.
SUBSCRIBER = """
import sys
from vedette.streamer import subscribe
for alert in subscribe(sys.argv[1], since=int(sys.argv[2])):
    print(alert["seq"], alert["id"], alert["rev"], flush=True)
"""
#: More than a subscriber's and the hub's queues hold together (2,000 and 1,000).
MANY = 12_000


class Subscriber:
    """A process that subscribes; what it was given is in a file. `start` goes on where the last life stopped."""

    def __init__(self, hub: HubProcess, path: Path) -> None:
        self._hub, self._path = hub, path
        self.process: subprocess.Popen[bytes] | None = None

    def given(self) -> list[str]:
        """The whole lines so far."""
        text = self._path.read_text() if self._path.exists() else ""
        return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def start(self) -> None:
        """Begin, or go on after the last whole line."""
        lines = self.given()
        self._path.write_text("".join(lines))  # a torn line was not handled
        since = lines[-1].split()[0] if lines else "0"
        with self._path.open("ab") as file:
            self.process = subprocess.Popen([sys.executable, "-c", SUBSCRIBER, self._hub.publish, since], stdout=file)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    """A running hub."""
    with HubProcess(tmp_path / "store", stderr=subprocess.DEVNULL) as running:
        yield running


def send(link: EventLink, first: int, last: int) -> None:
    """Number on, and wait until all is committed."""
    for number in range(first, last + 1):
        while link.waiting > 2000:
            link.work()
            time.sleep(0.001)
        assert link.send(numbered_event(number))
    assert link.drain(60)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_subscriber_that_stalls_leaves_and_returns_misses_nothing(hub: HubProcess, tmp_path: Path) -> None:
    """SIGSTOP for 12,000 alerts, SIGCONT, kill -9, 12,000 more, back with its cursor: exactly 1..N; the attentive one
    beside it has them all at once, and the hub's memory does not pay for it."""
    stalled, attentive = Subscriber(hub, tmp_path / "stalled"), Subscriber(hub, tmp_path / "attentive")
    with EventLink(hub.events, "infer", "boot-1") as link:
        try:
            for one in (stalled, attentive):
                one.start()
            send(link, 1, 100)
            wait_for("both listen", lambda: len(stalled.given()) == len(attentive.given()) == 100, 30)
            memory = psutil.Process(hub.process.pid).memory_info
            before_mb = memory().rss / 1e6
            assert stalled.process is not None
            os.kill(stalled.process.pid, signal.SIGSTOP)
            send(link, 101, MANY)
            wait_for("the attentive one has all", lambda: len(attentive.given()) == MANY, 60)
            assert len(stalled.given()) == 100
            grown_mb = memory().rss / 1e6 - before_mb
            os.kill(stalled.process.pid, signal.SIGCONT)
            wait_for("caught up", lambda: len(stalled.given()) == MANY, 60)
            stalled.kill()
            send(link, MANY + 1, 2 * MANY)
            began_s = time.monotonic()
            stalled.start()
            wait_for("caught up again", lambda: len(stalled.given()) == 2 * MANY, 60)
            caught_up_s = round(time.monotonic() - began_s, 1)
            wait_for("the other too", lambda: len(attentive.given()) == 2 * MANY, 30)
        finally:
            stalled.kill()
            attentive.kill()
    expected = [f"{n} e{n} 0\n" for n in range(1, 2 * MANY + 1)]
    assert stalled.given() == expected
    assert attentive.given() == expected
    assert grown_mb < 64
    tell(
        "subscriber stalled (SIGSTOP), gone (kill -9), back",
        "1..N exactly, in order; others unaffected; the hub's memory bounded",
        alerts=2 * MANY,
        lost=0,
        doubled=0,
        hub_grew_mb=round(grown_mb, 1),
        caught_up_12000_s=caught_up_s,
    )


def test_a_webhook_away_for_an_hour_gets_everything_in_order(tmp_path: Path) -> None:
    """It hangs up on every connection for 3600 simulated seconds: tried less than once a half minute on average, at
    most a minute and a jitter apart, nothing queues in memory; when it is back it gets all, in order, each once."""
    clock = {"now_s": 0.0}
    pauses: list[float] = []
    receiver = Receiver()
    proxy = Proxy(receiver.server_port)
    proxy.mode = "refuse"
    opening = opened(tmp_path / "store")
    outbox = next(opening)

    def pause(seconds: float) -> bool:
        clock["now_s"] += seconds
        if seconds > 0:
            pauses.append(seconds)
            commit(outbox, 1)  # alerts go on meanwhile
        if clock["now_s"] >= 3600:
            proxy.mode = "pass"
        return False

    config = WebhookConfig(url=f"http://127.0.0.1:{proxy.port}/hook", timeout=5)
    runner = SinkRunner(config, outbox.path.parent, "yard", pause=pause)
    try:
        commit(outbox, 500, runner)
        wait_for("delivered", lambda: clock["now_s"] >= 3600 and len(receiver.got) >= outbox.last_seq, 30)
    finally:
        runner.stop(5)
        proxy.close()
        receiver.end()
        opening.close()
    seqs = [alert["seq"] for alert in receiver.got]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) >= 500
    assert max(pauses) <= 60 * 1.2
    assert len(pauses) < 120
    assert runner.failures == len(pauses)
    tell(
        "webhook down for an hour (simulated clock)",
        "all delivered in order when it is back; tries slow down to one a minute",
        tries=len(pauses),
        longest_pause_s=round(max(pauses), 1),
        delivered=len(seqs),
        lost=0,
        doubled=0,
    )

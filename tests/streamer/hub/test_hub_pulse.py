"""The hub's heartbeat: patient with a slow disk, and with nothing else."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.daemon import wait_for
from vedette.streamer.bench._hub import HubProcess, numbered_event
from vedette.streamer.eventlink import EventLink
from vedette.streamer.hub.pulse import Pulse
from vedette.streamer.hub.role import SLOW_DISK_S
from vedette.streamer.outbox.database import DATABASE, connect
from vedette.streamer.worker import SILENCE_S


class Ear:
    """Hears beats, on a clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.beats: list[tuple[str, dict[str, Any]]] = []

    def beat(self, state: str, **report: Any) -> None:
        """One beat."""
        self.beats.append((state, report))


@pytest.fixture
def ear() -> Ear:
    """Nothing was heard yet."""
    return Ear()


def test_a_wait_for_the_disk_is_vouched_for_with_the_last_words(ear: Ear) -> None:
    """While the loop is inside `disk`, what it last said is repeated in its place; a beat promises no longer silence."""
    pulse = Pulse(ear.beat, 20.0, lambda: ear.now_s)
    pulse.turn("serving", last_seq=7)
    with pulse.disk():
        ear.now_s += 19.9
        pulse.vouch()
    assert ear.beats == [("serving", {"last_seq": 7})] * 2


def test_a_loop_that_hangs_elsewhere_is_not_vouched_for(ear: Ear) -> None:
    """Outside `disk`, before, between and after, silence is silence."""
    pulse = Pulse(ear.beat, 20.0, lambda: ear.now_s)
    with pulse.disk():
        pulse.vouch()  # the loop has not turned yet: it is starting, and has its own patience
    pulse.turn("serving")
    pulse.vouch()
    with pulse.disk():
        pass
    pulse.vouch()
    assert len(ear.beats) == 1


def test_a_disk_that_never_answers_is_vouched_for_so_long_only(ear: Ear) -> None:
    """After the patience the loop counts as hung; an error inside `disk` ends the wait like an answer."""
    pulse = Pulse(ear.beat, 20.0, lambda: ear.now_s)
    pulse.turn("serving")
    with pulse.disk():
        ear.now_s += 20.0
        pulse.vouch()
    with pytest.raises(OSError, match="gone"), pulse.disk():
        raise OSError("gone")
    pulse.vouch()
    assert len(ear.beats) == 1


def test_a_real_hub_beats_on_while_its_disk_keeps_it_waiting(tmp_path: Path) -> None:
    """Its commit waits (another writer holds the database): it goes on saying that it serves, and the event is stored
    afterwards. Stopped by SIGSTOP it is silent. No beat asks for more patience than any other role's."""
    assert 0 < SILENCE_S < SLOW_DISK_S
    with HubProcess(tmp_path / "store") as hub, EventLink(hub.events, "infer", "boot-1") as link:
        with contextlib.closing(connect(hub.store / DATABASE)) as other:
            other.execute("BEGIN IMMEDIATE")
            link.send(numbered_event(1))
            link.work()
            hub.beats()
            heard: list[dict[str, Any]] = []
            wait_for("beats", lambda: heard.extend(hub.beats()) or len(heard) >= 5)
            other.execute("ROLLBACK")
        assert {(beat["state"], beat["last_seq"]) for beat in heard} == {("serving", 0)}
        assert not any("deadline_s" in beat for beat in heard)
        assert link.drain(10)
        hub.process.send_signal(signal.SIGSTOP)
        hub.beats()
        until_s = time.monotonic() + 1.5
        wait_for("the time to beat is over", lambda: time.monotonic() > until_s)
        assert hub.beats() == []
        hub.process.send_signal(signal.SIGCONT)
        hub.wait_for("serving")

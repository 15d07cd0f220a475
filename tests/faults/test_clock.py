"""The wall clock jumps (a wrong RTC, NTP's first answer, somebody's hand): nothing but the times people read may change.

libfaketime moves CLOCK_REALTIME of the whole daemon and leaves the monotonic clock alone, as a real step does.
"""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults.cameras import busy_camera
from tests.faults.daemon import Daemon, wait_for
from tests.faults.frames import ENOUGH
from tests.faults.leaks import as_before, holdings
from tests.faults.load import Cost, kept_under_load
from tests.faults.report import refuse, tell
from tests.faults.running import streaming

pytestmark = [pytest.mark.data, pytest.mark.slow, pytest.mark.timeout(240)]

CAMERAS = ("east", "north", "south", "west")


def library() -> Path:
    """libfaketime, or the test is skipped."""
    found = list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        refuse("needs libfaketime (Debian package libfaketime)")
    return found[0]


def step(clock: Path, offset_s: int) -> None:
    """The daemon's wall clock is ``offset_s`` away from ours from now on."""
    beside = clock.with_suffix(".new")
    beside.write_text(f"{offset_s:+d}\n")
    os.replace(beside, clock)


def shown_s(alert: dict[str, str]) -> float:
    """An alert's time, UNIX seconds."""
    return datetime.fromisoformat(alert["time"]).astimezone(UTC).timestamp()


STEPS = {"back_2_h": -7200, "forward_1_day": 86_400, "forward_1_year": 365 * 86_400}


@pytest.mark.parametrize("offset_s", STEPS.values(), ids=STEPS.keys())
def test_a_clock_step_changes_only_what_people_read(tmp_path: Path, data_dir: Path, cost: Cost, offset_s: int) -> None:
    """Two hours back, a day forward, a year (alerts are kept a month): nobody is killed, cameras keep their rate, no alert
    is lost, doubled or removed, not by the next life of the hub either, and their times follow the clock."""
    clock = tmp_path / "clock"
    step(clock, 0)
    environment = {
        "LD_PRELOAD": str(library()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
    }
    clip, fps = data_dir / "clips" / "vtest.avi", cost.fps(len(CAMERAS))
    daemon = Daemon(tmp_path, {n: busy_camera(clip) | {"fps": fps} for n in CAMERAS}, environment=environment)
    with streaming(daemon, CAMERAS) as (listener, watch):
        before, pids = holdings(daemon), {row["name"]: row["pid"] for row in daemon.processes()}
        step(clock, offset_s)
        seen = len(listener.alerts)
        kept, load = kept_under_load(daemon, watch, CAMERAS, fps)

        def moved() -> bool:
            return any(abs(shown_s(a) - time.time() - offset_s) < 600 for a in listener.alerts[seen:])

        wait_for("alerts in the new time", moved, 60)
        assert {row["name"]: row["pid"] for row in daemon.processes()} == pids
        os.kill(pids["hub"], signal.SIGKILL)
        wait_for("the next hub", lambda: daemon.pid("hub") not in (None, pids["hub"]), 60)
        again = len(listener.alerts)
        wait_for("its alerts", lambda: len(listener.alerts) > again, 60)  # it looked at what is old before
        alerts = listener.agrees_with(daemon)
        as_before(daemon, before)
        assert kept is None or kept >= ENOUGH
    tell(
        f"wall clock stepped {next(name for name in STEPS if STEPS[name] == offset_s).replace('_', ' ')}; then the hub killed",
        "nobody killed, cameras keep their fps, 0 lost, 0 doubled, none removed",
        pictures_kept=kept,
        load=load,
        alerts=alerts,
        lost=0,
        doubled=0,
    )

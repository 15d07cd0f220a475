"""Delivery as a property: whatever is lost, repeated, restarted or removed, the subscriber's account is exact.

Hypothesis decides the order of events on a real store, real replay server and real sockets.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vedette.streamer import Gap, Subscription, subscribe
from vedette.streamer.bench._station import Station
from vedette.streamer.hub.replay import answer
from vedette.streamer.outbox.reader import OutboxReader
from vedette.streamer.outbox.records import Stored

CAMERAS = ("dock", "gate")

#: (camera, whether its message arrives)
MESSAGES = st.lists(st.tuples(st.sampled_from(CAMERAS), st.booleans()), min_size=1, max_size=6)
HOW: dict[str, st.SearchStrategy[Any]] = {
    "happen": MESSAGES,
    "commit": st.lists(st.sampled_from(CAMERAS), min_size=1, max_size=6),
    "publish": st.lists(st.booleans(), min_size=6, max_size=6),
    "repeat": st.integers(0, 100),
    "status": st.none(),
    "read": st.integers(1, 5),
    "resubscribe": st.none(),
    "replay_dies": st.none(),
    "replay_lives": st.none(),
    "retain": st.integers(0, 3),
}
#: Mostly traffic with losses; among it everything else that may befall.
STEP = st.sampled_from(["happen"] * len(HOW) + list(HOW)).flatmap(lambda what: st.tuples(st.just(what), HOW[what]))


class Run:
    """One history: what the store did, and what the subscriber was given and told."""

    def __init__(self, station: Station, camera: str | None) -> None:
        self.station, self.camera = station, camera
        self.committed: list[Stored] = []
        self.unpublished: list[Stored] = []
        self.given: list[dict[str, Any]] = []
        self.gaps: list[Gap] = []
        self.serving = True
        self.subscription = self._subscribe(0, None)

    def _subscribe(self, since: int | None, stream: str | None) -> Subscription:
        made = subscribe(
            self.station.publish,
            replay=self.station.replay,
            since=since,
            stream=stream,
            camera=self.camera,
            new_stream="raise",
            on_gap=self.gaps.append,
        )
        self.station.wait_subscribed()
        return made

    def step(self, what: str, how: Any) -> None:
        """One step of the history."""
        if what == "commit":
            stored = self.station.commit(*how)
            self.committed += stored
            self.unpublished += stored
        elif what == "publish":  # the others are lost for ever
            self.station.say([alert for alert, keep in zip(self.unpublished, how * 100, strict=False) if keep])
            self.unpublished = []
        elif what == "happen":  # committed and published, some lost on the way, and the subscriber looks
            stored = self.station.commit(*(camera for camera, _ in how))
            self.committed += stored
            self.station.say([alert for alert, (_, arrives) in zip(stored, how, strict=True) if arrives])
            self.read(10, 0.03)
        elif what == "repeat" and self.committed:
            self.station.say([self.committed[how % len(self.committed)]])
        elif what == "status":
            self.station.tell_status()
        elif what == "read":
            self.read(how, 0.01)
        elif what == "resubscribe":
            since, stream = self.subscription.cursor, self.subscription.stream
            self.subscription.__exit__()
            while self.station.heard_subscription():
                continue  # the old one's leaving
            self.subscription = self._subscribe(since, stream)
        elif what == "replay_dies" and self.serving:
            self.station.stop_replay()
            self.serving = False
        elif what == "replay_lives":
            self.serve()
        elif what == "retain" and self.committed:
            self.station.outbox.remove_through(max(self.station.outbox.floor, self.committed[-1].seq - how))

    def serve(self) -> None:
        """Replay answers."""
        if not self.serving:
            self.station.start_replay()
            self.serving = True

    def read(self, count: int, wait_s: float) -> None:
        """Take what comes."""
        for _ in range(count):
            alert = self.subscription.next(wait_s)
            if alert is None:
                return
            self.given.append(alert)

    def finish(self) -> None:
        """Everything works again: read until the subscriber is at the end."""
        self.serve()
        deadline = time.monotonic() + 20
        while (self.subscription.cursor or 0) < self.station.outbox.last_seq:
            self.station.tell_status()
            self.read(100, 0.05)
            if self.camera is not None and self._owed() <= len(self.given):
                break
            assert time.monotonic() < deadline, f"stuck at {self.subscription.cursor}"
        self.station.tell_status()
        self.read(5, 0.1)

    def _owed(self) -> int:
        gone = {seq for gap in self.gaps for seq in range(gap.first, gap.last + 1)}
        given = {alert["seq"] for alert in self.given}
        return sum(1 for a in self.committed if a.camera == self.camera and (a.seq not in gone or a.seq in given))

    def check(self) -> None:
        """Given plus told gone is exactly what was committed; in order, once, byte for byte."""
        mine = {a.seq: json.loads(a.body) for a in self.committed if self.camera in (None, a.camera)}
        seqs = [alert["seq"] for alert in self.given]
        assert seqs == sorted(set(seqs))
        assert all(alert == mine[alert["seq"]] for alert in self.given)
        gone = {seq for gap in self.gaps for seq in range(gap.first, gap.last + 1)}
        assert set(mine) - set(seqs) <= gone
        assert all(gap.last <= self.station.outbox.floor for gap in self.gaps)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("camera", [None, "dock"])
def test_the_subscribers_account_is_exact(camera: str | None) -> None:
    """Lost, repeated and late messages, dead replay servers, retention and new subscribers with an old cursor:
    every committed alert is given once and in order, or told to be gone."""

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(STEP, min_size=3, max_size=20))
    def history(steps: list[tuple[str, Any]]) -> None:
        with tempfile.TemporaryDirectory(prefix="v") as folder:
            station = Station(Path(folder) / "store", Path(folder))
            run = Run(station, camera)
            try:
                for what, how in steps:
                    run.step(what, how)
                run.finish()
                run.check()
            finally:
                run.subscription.__exit__()
                station.close()

    history()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A store with a few alerts."""
    folder = tmp_path_factory.mktemp("fuzz")
    station = Station(folder / "store", folder)
    station.commit(*CAMERAS * 5)
    made = OutboxReader(folder / "store")
    yield made
    made.close()
    station.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
REQUEST = st.fixed_dictionaries(
    {}, optional={key: JSON | st.integers(0, 20) for key in ("from", "limit", "camera", "request")}
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=200) | (REQUEST | JSON).map(lambda value: json.dumps(value).encode()))
def test_every_replay_request_gets_a_page_or_an_error(reader: OutboxReader, raw: bytes) -> None:
    """Whatever the bytes are, the answer is JSON: a page of at most what was asked for, or an error."""
    reply, right = answer(reader, raw)
    value = json.loads(reply)
    assert ("alerts" in value) is right
    assert ("error" in value) is not right
    if right:
        asked = json.loads(raw)
        assert len(value["alerts"]) <= asked.get("limit", 1000)
        assert all(alert["seq"] > asked["from"] for alert in value["alerts"])

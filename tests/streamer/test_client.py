"""subscribe(): exactly once and in order, on a real PUB and ROUTER whose losses the test decides."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vedette.streamer import StreamChanged, Subscription, subscribe
from vedette.streamer.bench._station import Station


@pytest.fixture
def sockets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short folder."""
    return tmp_path_factory.mktemp("s")


@pytest.fixture
def station(tmp_path: Path, sockets: Path) -> Iterator[Station]:
    """A station."""
    made = Station(tmp_path / "store", sockets)
    yield made
    made.close()


def seqs(subscription: Subscription, count: int) -> list[int]:
    """The next ``count`` seqs; fails when they do not come."""
    got = []
    for _ in range(count):
        alert = subscription.next(10.0)
        assert alert is not None, f"only {got} came"
        got.append(alert["seq"])
    return got


def nothing_comes(subscription: Subscription, station: Station) -> bool:
    """After a status that tells the truth has been heard there is nothing more to give."""
    station.tell_status()
    return subscription.next(0.3) is None


def test_the_past_then_live_without_a_seam(station: Station) -> None:
    """since=0 gives everything stored, then what is published, each once."""
    station.commit("dock", "dock", "gate")
    with subscribe(station.publish, replay=station.replay) as subscription:
        station.wait_subscribed()
        assert seqs(subscription, 3) == [1, 2, 3]
        station.say(station.commit("dock"))
        assert seqs(subscription, 1) == [4]
        assert nothing_comes(subscription, station)


def test_since_is_exclusive(station: Station) -> None:
    """The cursor is the last one seen."""
    station.commit(*["dock"] * 5)
    with subscribe(station.publish, replay=station.replay, since=3) as subscription:
        assert seqs(subscription, 2) == [4, 5]


def test_live_only_begins_with_the_next_alert(station: Station) -> None:
    """since=None asks for nothing old."""
    station.commit("dock", "dock")
    with subscribe(station.publish, since=None) as subscription:
        station.wait_subscribed()
        station.tell_status()
        assert subscription.next(0.2) is None
        station.say(station.commit("dock"))
        assert seqs(subscription, 1) == [3]
        assert subscription.replays == 0


def test_a_lost_alert_is_fetched_when_the_next_one_shows_the_jump(station: Station) -> None:
    """The subscriber never sees the hole."""
    with subscribe(station.publish, replay=station.replay) as subscription:
        station.wait_subscribed()
        station.say(station.commit("dock"))
        assert seqs(subscription, 1) == [1]
        station.commit("dock", "dock")  # published, but lost on the way
        station.say(station.commit("dock"))
        assert seqs(subscription, 3) == [2, 3, 4]
        assert nothing_comes(subscription, station)


def test_a_lost_tail_is_noticed_by_the_status(station: Station) -> None:
    """Nothing follows the lost alert, yet it comes: status.hub tells last_seq and where to ask."""
    with subscribe(station.publish, since=0) as subscription:
        station.wait_subscribed()
        station.tell_status()
        station.commit("dock", "dock")
        station.tell_status()
        assert seqs(subscription, 2) == [1, 2]
        assert nothing_comes(subscription, station)


def test_repeated_and_reordered_messages_change_nothing(station: Station) -> None:
    """Whatever order the fast road takes, each alert is given once, in order."""
    with subscribe(station.publish, replay=station.replay) as subscription:
        station.wait_subscribed()
        alerts = station.commit(*["dock"] * 4)
        station.say([alerts[1], alerts[0], alerts[0], alerts[3], alerts[2], alerts[3]])
        assert seqs(subscription, 4) == [1, 2, 3, 4]
        assert nothing_comes(subscription, station)


def test_one_camera_knows_its_own_gaps(station: Station) -> None:
    """With a camera filter the numbers jump by nature; prev still tells what was lost, and others are not asked for."""
    with subscribe(station.publish, replay=station.replay, camera="dock") as subscription:
        station.wait_subscribed()
        station.tell_status()
        station.say(station.commit("gate", "dock", "gate", "gate", "dock"))
        assert seqs(subscription, 2) == [2, 5]
        assert nothing_comes(subscription, station)  # the status from before the first alert has been heard
        replays = subscription.replays
        station.say(station.commit("gate", "dock"))
        assert seqs(subscription, 1) == [7]
        assert subscription.replays == replays
        station.commit("dock")  # lost
        station.say(station.commit("gate", "dock"))
        assert seqs(subscription, 2) == [8, 10]
        station.commit("dock")  # lost, and nothing follows
        station.tell_status()
        assert seqs(subscription, 1) == [11]
        assert subscription.cursor == 11


def test_another_cameras_alerts_cost_a_filtered_subscriber_nothing(station: Station) -> None:
    """A status that shows only other cameras' progress asks for no replay."""
    with subscribe(station.publish, replay=station.replay, camera="dock") as subscription:
        station.wait_subscribed()
        station.say(station.commit("dock"))
        assert seqs(subscription, 1) == [1]
        assert nothing_comes(subscription, station)
        replays = subscription.replays
        station.commit(*["gate"] * 5)
        assert nothing_comes(subscription, station)
        assert subscription.replays == replays


def test_a_removed_range_is_told_once(station: Station) -> None:
    """What retention removed is a Gap record, then the rest follows."""
    station.commit(*["dock"] * 6)
    station.outbox.remove_through(4)
    told: list[dict[str, Any]] = []
    with subscribe(station.publish, replay=station.replay, since=1, on_gap=lambda g: told.append(g.to_json())) as s:
        assert seqs(s, 2) == [5, 6]
        assert nothing_comes(s, station)
    assert [(g["schema"], g["first"], g["last"], g["reason"]) for g in told] == [("vedette.gap/1", 2, 4, "retention")]
    assert [(g.first, g.last) for g in s.gaps] == [(2, 4)]


def _move(station: Station, tmp_path: Path, sockets: Path) -> Station:
    station.close()
    return Station(tmp_path / "another", sockets)


def test_a_new_store_is_followed_from_its_first_alert(station: Station, tmp_path: Path, sockets: Path) -> None:
    """Another stream's numbers never pass for the old one's: everything of it is given."""
    station.commit("dock", "dock", "dock")
    with subscribe(station.publish, replay=station.replay) as subscription:
        assert seqs(subscription, 3) == [1, 2, 3]
        other = _move(station, tmp_path, sockets)
        try:
            other.commit("dock", "dock")
            while not other.heard_subscription():
                assert subscription.next(0.05) is None  # ZeroMQ subscribes again only while its owner turns
            other.tell_status()
            assert seqs(subscription, 2) == [1, 2]
            assert subscription.stream == other.outbox.stream
        finally:
            other.close()


def test_a_new_store_is_an_error_for_those_who_want_to_know(station: Station, tmp_path: Path, sockets: Path) -> None:
    """new_stream='raise' gives both UUIDs; a known stream is held from the first answer on."""
    old = station.outbox.stream
    other = _move(station, tmp_path, sockets)
    try:
        other.commit("dock")
        with (
            subscribe(other.publish, replay=other.replay, since=7, stream=old, new_stream="raise") as subscription,
            pytest.raises(StreamChanged) as caught,
        ):
            subscription.next(10)
        assert (caught.value.old, caught.value.stream) == (old, other.outbox.stream)
    finally:
        other.close()


def test_a_store_that_was_set_back_is_said_and_followed(station: Station, caplog: pytest.LogCaptureFixture) -> None:
    """A cursor beyond the end (a restored backup) is no reason to stay silent for ever."""
    logging.getLogger("vedette").propagate = True
    station.commit("dock")
    with subscribe(station.publish, replay=station.replay, since=50) as subscription:
        station.wait_subscribed()
        assert subscription.next(0.3) is None
        station.say(station.commit("dock"))
        assert seqs(subscription, 1) == [2]
    assert "set back" in caplog.text


def test_garbage_on_the_wire_is_counted(station: Station) -> None:
    """Malformed messages are dropped; the alerts around them come."""
    with subscribe(station.publish, replay=station.replay) as subscription:
        station.wait_subscribed()
        station.say(station.commit("dock"))
        for parts in ([b"alert.dock.zone", b"{"], [b"alert.dock.zone"], [b"status.hub", b"[]"], [b"status.hub", b"{}"]):
            station.raw(*parts)
        station.say(station.commit("dock"))
        assert seqs(subscription, 2) == [1, 2]
        assert nothing_comes(subscription, station)
        assert subscription.malformed == 4


def test_a_silent_replay_server_is_asked_again(station: Station) -> None:
    """An answer that never comes is not waited for: a new connection asks, and the stream heals."""
    station.commit("dock", "dock")
    station.stop_replay()
    with subscribe(station.publish, replay=station.replay) as subscription:
        assert subscription.next(0.5) is None
        station.start_replay()
        assert seqs(subscription, 2) == [1, 2]


def test_close_ends_the_iteration_from_another_thread(station: Station) -> None:
    """A for loop in a thread ends when close is called elsewhere."""
    subscription = subscribe(station.publish, replay=station.replay)
    got: list[int] = []
    reader = threading.Thread(target=lambda: got.extend(alert["seq"] for alert in subscription))
    reader.start()
    station.commit("dock")
    station.wait_subscribed()
    station.tell_status()
    subscription.close()
    reader.join(5)
    assert not reader.is_alive()


def test_idle_ends_the_iteration(station: Station) -> None:
    """idle_s turns the endless iterator into one that stops."""
    station.commit("dock", "dock")
    with subscribe(station.publish, replay=station.replay, idle_s=0.5) as subscription:
        assert [alert["seq"] for alert in subscription] == [1, 2]


@pytest.mark.parametrize("wrong", [{"since": -1}, {"camera": "../x"}, {"camera": "a.b"}])
def test_wrong_arguments_are_refused_at_once(wrong: dict[str, Any]) -> None:
    """Before any socket is opened."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        subscribe("ipc:///nowhere", **wrong)

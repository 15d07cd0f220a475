"""The retry policy, with time as an argument: how long to wait, what silence means, when to open."""

from __future__ import annotations

import random
import socket
import threading

from tests.streamer.rtsp import free_port
from vedette.streamer.capture.reconnect import HEALTHY_S, Backoff, Cadence, reachable, wait_to_open


def pauses(backoff: Backoff, count: int, *, refused: bool = False) -> list[float]:
    """The next pauses."""
    return [backoff.next_s(refused=refused) for _ in range(count)]


def test_unreachable_sources_wait_at_most_two_seconds() -> None:
    """The pause doubles from 0.2 s and never exceeds 2 s, however long the outage."""
    waits = pauses(Backoff(random.Random(1)), 200)
    assert waits[0] <= 0.2
    assert max(waits) <= 2.0
    assert min(waits[5:]) >= 1.0


def test_refused_sources_wait_up_to_thirty_seconds() -> None:
    """Wrong credentials or bad data are tried again ever more slowly, at most every 30 s."""
    waits = pauses(Backoff(random.Random(1)), 50, refused=True)
    assert 1.0 <= waits[0] <= 2.0
    assert max(waits) <= 30.0
    assert min(waits[6:]) >= 15.0


def test_pauses_are_jittered() -> None:
    """Two cameras behind one switch do not come back in step."""
    assert pauses(Backoff(random.Random(1)), 5) != pauses(Backoff(random.Random(2)), 5)


def test_only_health_resets_the_pause() -> None:
    """One picture is not health: a flapping camera keeps its long pause; five good seconds forget it."""
    backoff = Backoff(random.Random(1))
    pauses(backoff, 10)
    backoff.healthy(HEALTHY_S - 1)
    assert backoff.next_s(refused=False) >= 1.0
    backoff.healthy(HEALTHY_S)
    assert backoff.next_s(refused=False) <= 0.2


def cadence_at(interval_s: float, count: int = 40) -> Cadence:
    """What is learned from a camera that delivers every ``interval_s``."""
    cadence = Cadence()
    for n in range(count):
        cadence.saw(100 + n * interval_s, n * interval_s)
    return cadence


def test_silence_follows_from_the_cameras_own_interval() -> None:
    """30 a second: dead after 2 s. One a second: not dead after 20 s, but after 30."""
    assert cadence_at(1 / 30).silence_s(20) == 2.0
    assert 20 < cadence_at(1.0).silence_s(20) <= 31
    assert cadence_at(10.0).silence_s(20) == Cadence.CAP_S


def test_silence_is_forgiven_until_something_is_learned() -> None:
    """Before five intervals the default holds; an earlier life's estimate is taken over."""
    assert cadence_at(1 / 30, count=3).silence_s(20) == 20
    assert Cadence(1 / 30).silence_s(20) == 2.0


def test_a_burst_at_the_start_does_not_look_like_a_fast_camera() -> None:
    """Pictures that waited in a buffer arrive at once; a 1 fps camera stays a 1 fps camera."""
    cadence = Cadence()
    for n in range(10):
        cadence.saw(100.0, float(n))
    assert cadence.silence_s(20) > 20


def test_a_stall_that_was_survived_makes_the_next_one_forgivable() -> None:
    """A camera that paused for 3 s and came back is not killed for pausing 3 s again."""
    cadence = cadence_at(1 / 30)
    cadence.saw(100 + 40 / 30 + 3, 40 / 30 + 3)
    assert cadence.silence_s(20) >= 6


def test_the_gap_of_an_outage_is_not_learned() -> None:
    """A reconnect after an hour leaves the estimate as it was."""
    cadence = cadence_at(1 / 30)
    cadence.restart()
    cadence.saw(4000.0, 0.0)
    assert cadence.silence_s(20) == 2.0


class World:
    """Time, and whether somebody answers, as the test says."""

    def __init__(self, up: list[tuple[float, bool]]) -> None:
        self.now = 0.0
        self.probes: list[float] = []
        self.ticks: list[float] = []
        self._up = up

    def pause(self, seconds: float) -> bool:
        self.now += max(seconds, 1e-3)
        return self.now > 1000

    def probe(self, _address: tuple[str, int]) -> bool:
        self.probes.append(self.now)
        return [up for since, up in self._up if since <= self.now][-1]

    def wait(self, delay_s: float, address: tuple[str, int] | None = ("host", 1)) -> float:
        """When the source is opened."""
        assert wait_to_open(
            address,
            delay_s,
            pause=self.pause,
            tick=lambda: self.ticks.append(self.now),
            probe=self.probe,
            clock=lambda: self.now,
        )
        return self.now


def test_what_is_down_is_opened_within_a_second_of_its_return() -> None:
    """Ten minutes away, probed once a second, opened at the first probe that succeeds."""
    world = World([(0, False), (600, True)])
    assert 600 <= world.wait(0.2) <= 601.1
    assert 590 <= len(world.probes) <= 610


def test_what_answers_but_fails_waits_its_turn() -> None:
    """A server that accepts connections and refuses us is not opened before its pause is over."""
    assert 30 <= World([(0, True)]).wait(30.0) <= 30.3


def test_a_refusal_ends_early_when_the_camera_was_restarted() -> None:
    """Down and up again within a long pause: something has changed, try at once."""
    assert World([(0, True), (5, False), (8, True)]).wait(30.0) <= 9.1


def test_waiting_shows_as_progress() -> None:
    """The loop ticks at least every quarter of a second whatever it waits for."""
    world = World([(0, False), (20, True)])
    world.wait(0.2)
    gaps = [b - a for a, b in zip(world.ticks, world.ticks[1:], strict=False)]
    assert max(gaps) <= 0.26


def test_files_wait_without_a_probe() -> None:
    """No address: only the pause counts."""
    world = World([(0, False)])
    assert 2 <= world.wait(2.0, None) <= 2.3
    assert world.probes == []


def test_stopping_interrupts_at_once() -> None:
    """Told to stop, the wait ends without opening."""
    stopping = threading.Event()
    stopping.set()
    assert wait_to_open(None, 1000, pause=stopping.wait, tick=lambda: None) is False


def test_the_probe_is_a_real_connect() -> None:
    """Somebody listening is reachable, nobody is not, and a name that does not exist is not an exception."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert reachable(("127.0.0.1", server.getsockname()[1]))
    assert not reachable(("127.0.0.1", free_port()))
    assert not reachable(("", 0))

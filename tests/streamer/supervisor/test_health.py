"""Camera health: every outage is told once, from its beginning to its end, and nothing else is called one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vedette.streamer.supervisor.health import CameraHealth, Incident, Sight


def told(incidents: list[Incident]) -> list[tuple[str, str]]:
    return [(incident.kind, incident.phase) for incident in incidents]


def test_the_first_connection_is_not_back() -> None:
    """A camera that takes its time at start raises nothing, or offline without camera_back."""
    quick = CameraHealth(5.0, 100.0)
    assert quick.update(Sight(None), 104.9) == []
    assert quick.update(Sight(105.0), 105.0) == []
    slow = CameraHealth(5.0, 100.0)
    assert told(slow.update(Sight(None, error="refused"), 105.0)) == [("camera_offline", "start")]
    assert told(slow.update(Sight(110.0), 110.0)) == [("camera_offline", "end")]


def test_an_outage_is_told_with_its_length_and_then_back() -> None:
    """offline starts after offline_after without a picture; its end and camera_back carry the outage."""
    health = CameraHealth(5.0, 100.0)
    health.update(Sight(101.0), 101.0)
    assert health.update(Sight(101.0), 105.9) == []
    (start,) = health.update(Sight(101.0, error="timed out"), 106.0)
    assert (start.kind, start.phase) == ("camera_offline", "start")
    assert {key: start.explain[key] for key in ("no_picture_s", "ever_seen", "error")} == {
        "no_picture_s": 5.0, "ever_seen": True, "error": "timed out",
    }  # fmt: skip
    (check,) = start.explain["checks"]
    assert (check["value"], check["threshold"], check["met"]) == (5.0, 5.0, True)
    assert health.update(Sight(101.0), 200.0) == []
    end, back, back_end = health.update(Sight(221.0), 221.1)
    assert told([end, back, back_end]) == [("camera_offline", "end"), ("camera_back", "start"), ("camera_back", "end")]
    assert end.number == start.number
    assert back.number == back_end.number != start.number
    assert end.explain["outage_s"] == back.explain["outage_s"] == back_end.explain["outage_s"] == 120.0


def test_a_new_life_of_the_process_keeps_the_clock() -> None:
    """A capture process that was started again has seen nothing yet; the outage counts from the last picture before."""
    health = CameraHealth(5.0, 100.0)
    health.update(Sight(101.0), 101.0)
    assert health.update(Sight(None), 103.0) == []
    assert told(health.update(Sight(None), 106.0)) == [("camera_offline", "start")]


def test_a_process_that_keeps_dying_is_offline_at_once() -> None:
    """When its free restarts are used up nobody waits for offline_after."""
    health = CameraHealth(30.0, 100.0)
    health.update(Sight(101.0), 101.0)
    assert told(health.update(Sight(None, dying=True), 101.5)) == [("camera_offline", "start")]
    assert told(health.update(Sight(103.0), 103.0))[0] == ("camera_offline", "end")


def test_frozen_begins_and_ends() -> None:
    """A picture that stands still is one incident until it moves."""
    health = CameraHealth(5.0, 100.0)
    assert told(health.update(Sight(101.0, frozen=True), 101.0)) == [("camera_frozen", "start")]
    assert health.update(Sight(102.0, frozen=True), 102.0) == []
    assert told(health.update(Sight(103.0), 103.0)) == [("camera_frozen", "end")]


def test_frozen_ends_when_the_picture_is_lost() -> None:
    """Offline takes over from frozen: one thing is wrong at a time."""
    health = CameraHealth(5.0, 100.0)
    health.update(Sight(101.0, frozen=True), 101.0)
    assert told(health.update(Sight(101.0, frozen=True), 107.0)) == [
        ("camera_frozen", "end"),
        ("camera_offline", "start"),
    ]
    assert health.offline
    assert not health.frozen


def test_a_file_that_ended_is_not_offline() -> None:
    """However long ago its last picture was; what was open is ended."""
    health = CameraHealth(5.0, 100.0)
    health.update(Sight(101.0, frozen=True), 101.0)
    assert told(health.update(Sight(101.0, ended=True), 102.0)) == [("camera_frozen", "end")]
    assert health.update(Sight(None, ended=True), 1000.0) == []


def test_a_picture_from_the_future_does_not_silence_the_alarm() -> None:
    """A broken report cannot postpone offline for ever."""
    health = CameraHealth(5.0, 100.0)
    health.update(Sight(1e12), 101.0)
    assert told(health.update(Sight(None), 106.0)) == [("camera_offline", "start")]


def test_closing_ends_what_is_open() -> None:
    """A camera that is removed leaves no open incident."""
    health = CameraHealth(5.0, 100.0)
    health.update(Sight(None), 106.0)
    (end,) = health.close("removed")
    assert (end.kind, end.phase, end.explain) == ("camera_offline", "end", {"reason": "removed"})
    assert health.close("removed") == []


sights = st.builds(
    lambda age, frozen, ended, dying: (age, frozen, ended, dying),
    st.one_of(st.none(), st.floats(0, 20)),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(st.tuples(st.floats(0.01, 10), sights), max_size=80))
def test_every_start_has_one_end_and_numbers_are_unique(
    history: list[tuple[float, tuple[float | None, bool, bool, bool]]],
) -> None:
    """Over any history: starts and ends alternate per kind, an end repeats its start's number, numbers are never reused."""
    now_s = 1000.0
    health = CameraHealth(5.0, now_s)
    found: list[Incident] = []
    for step_s, (age_s, frozen, ended, dying) in history:
        now_s += step_s
        found += health.update(Sight(None if age_s is None else now_s - age_s, frozen, ended, dying), now_s)
        assert not (health.offline and health.frozen)
    found += health.close("stopped")
    numbers = [incident.number for incident in found if incident.phase == "start"]
    assert len(set(numbers)) == len(numbers)
    for number in numbers:
        assert [incident.phase for incident in found if incident.number == number] == ["start", "end"]

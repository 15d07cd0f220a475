"""The abandoned rule: put down by somebody who then leaves; nothing that was there, passes by, or has nobody."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest

from tests.streamer.rules.rule_scenes import HEIGHT, phases, tracks_at
from vedette.streamer.capture.staticscene import StaticScene
from vedette.streamer.picturestats import PictureStats, StaticBlob
from vedette.streamer.rules.abandoned import AbandonedConfig
from vedette.streamer.rules.view import Places, Signal, View
from vedette.streamer.types import Tracks

LABELS = ("person", "bag", "car")
AWAY, BESIDE, SPOT = (0.9, 0.8), (0.52, 0.6), (0.5, 0.6)
DOOR = (0.1, 0.9)
ZONE = [(0.4, 0.4), (0.6, 0.4), (0.6, 0.8), (0.4, 0.8)]


def box_at(foot: tuple[float, float], height: float) -> tuple[float, float, float, float]:
    return foot[0] - height / 4, foot[1] - height, foot[0] + height / 4, foot[1]


class Hall:
    """A hall with people, and a thing that is a bag of the detector or only something still."""

    def __init__(self, *, seen_as: str = "unknown", start_s: float = 0.0, **rule: object) -> None:
        config = AbandonedConfig.model_validate({"kind": "abandoned", "seconds": 5, **rule})
        self.rule = config.rule(Places({"spot": ZONE}))
        self.seen_as, self.now, self.start_s = seen_as, start_s, start_s
        self.since_s: float | None = None
        self.arrived: dict[int, float] = {}

    def places(self, people: Mapping[int, tuple[float, float]], age_s: float) -> Mapping[int, tuple[float, float]]:
        """Where people are: who is new comes in by the door, unless only the track is new."""
        if age_s < 1:
            return people
        return {n: at if self.now - self.arrived.setdefault(n, self.now) >= 1 else DOOR for n, at in people.items()}

    def show(
        self,
        people: Mapping[int, tuple[float, float]],
        seconds: float,
        *,
        thing: bool = False,
        height: float = 0.06,
        added: float = 0.9,
        fps: float = 5.0,
        age_s: float = 100.0,
    ) -> list[Signal]:
        signals = []
        for _ in range(round(seconds * fps)):
            self.now += 1 / fps
            self.since_s = (self.now if self.since_s is None else self.since_s) if thing else None
            tracks, blobs = tracks_at(self.places(people, age_s), age_s=age_s), ()
            if thing and self.seen_as == "bag":
                tracks = _with_bag(tracks, box_at(SPOT, height))
            elif thing and self.since_s is not None and self.now - self.since_s >= 2.0:
                blobs = (StaticBlob(box_at(SPOT, height), self.now - self.since_s, added),)
            picture = PictureStats(0.5, 0.2, 1.0, blobs=blobs)
            signals += self.rule.step(View(tracks, LABELS, self.now, self.start_s, picture=picture))
        return signals


def _with_bag(tracks: Tracks, box: tuple[float, ...]) -> Tracks:
    def add(values: np.ndarray, value: object) -> np.ndarray:
        return np.concatenate([values, np.array([value], values.dtype)])

    return dataclasses.replace(
        tracks, id=add(tracks.id, 50), xyxy=add(tracks.xyxy, box), velocity_per_s=add(tracks.velocity_per_s, (0, 0)),
        score=add(tracks.score, 0.6), label=add(tracks.label, 1), age_s=add(tracks.age_s, 9),
        since_seen_s=add(tracks.since_seen_s, 0), confirmed=add(tracks.confirmed, True),
        detection=add(tracks.detection, len(tracks)),
    )  # fmt: skip


@pytest.mark.parametrize("seen_as", ["bag", "unknown"])
def test_put_down_and_left_is_told_once_and_ends_when_taken_away(seen_as: str) -> None:
    """The clock begins when the owner has gone; the trace names the owner and how long it has been alone."""
    hall = Hall(seen_as=seen_as)
    assert hall.show({1: BESIDE}, 10) == []
    assert hall.show({1: BESIDE}, 8, thing=True) == []
    assert hall.show({1: AWAY}, 4.4, thing=True) == []
    (start,) = hall.show({1: AWAY}, 10, thing=True)
    assert start.phase == "start"
    alone, away, _ = start.explain["checks"]
    assert alone["value"] == pytest.approx(5.0, abs=0.5)
    assert away["met"]
    assert (start.explain["owner"], start.explain["seen_as"]) == (1, seen_as)
    assert 1 in start.tracks
    (end,) = hall.show({1: AWAY}, 10)
    assert (end.phase, end.explain["reason"]) == ("end", "taken away")


def test_the_clock_also_runs_when_the_owner_is_out_of_sight() -> None:
    """Leaving the picture is leaving."""
    hall = Hall()
    hall.show({1: BESIDE}, 8)
    hall.show({1: BESIDE}, 5, thing=True)
    assert phases(hall.show({}, 9, thing=True)) == ["start"]


def test_an_owner_who_stays_or_comes_back_stops_the_clock() -> None:
    """Standing near is no alarm; coming back in time neither; coming back late ends it."""
    hall = Hall()
    hall.show({1: BESIDE}, 8)
    signals = hall.show({1: BESIDE}, 30, thing=True)
    signals += hall.show({1: AWAY}, 4, thing=True) + hall.show({1: BESIDE}, 4, thing=True)
    assert signals == []
    signals = hall.show({1: AWAY}, 8, thing=True) + hall.show({1: BESIDE}, 4, thing=True)
    assert phases(signals) == ["start", "end"]
    assert signals[1].explain["reason"] == "the owner is back"
    assert signals[1].explain["duration_s"] == pytest.approx(8.0, abs=0.5)


def test_what_has_shrunk_to_a_scrap_is_not_told() -> None:
    """A patch of floor that somebody had hidden is learned away bit by bit: what is left of it is no thing that was put down."""
    hall = Hall()
    hall.show({1: BESIDE}, 8)
    hall.show({1: BESIDE}, 5, thing=True, height=0.06)
    assert hall.show({1: AWAY}, 3, thing=True, height=0.06) == []
    assert hall.show({1: AWAY}, 10, thing=True, height=0.1 * HEIGHT) == []
    assert phases(hall.show({1: AWAY}, 2, thing=True, height=0.06)) == ["start"]


def test_the_hole_where_a_thing_was_is_not_the_thing() -> None:
    """The owner takes it along and the place keeps differing from the background, without an outline of its own: nothing is left there."""
    hall = Hall()
    hall.show({1: BESIDE}, 8)
    hall.show({1: BESIDE}, 5, thing=True)
    hall.show({1: AWAY}, 3, thing=True)
    assert hall.show({1: AWAY}, 12, thing=True, added=0.05) == []


def test_passers_by_do_not_stop_the_clock() -> None:
    """Somebody else near the thing is not its owner."""
    hall = Hall()
    hall.show({1: BESIDE, 2: AWAY}, 8)
    hall.show({1: BESIDE, 2: AWAY}, 5, thing=True)
    hall.show({1: AWAY, 2: AWAY}, 2, thing=True)
    assert phases(hall.show({1: AWAY, 2: (0.6, 0.6)}, 5, thing=True)) == ["start"]


def test_an_owner_under_a_new_number_is_still_the_owner() -> None:
    """A change of track number beside the thing abandons nothing."""
    hall = Hall()
    hall.show({1: BESIDE}, 8)
    hall.show({1: BESIDE}, 5, thing=True)
    hall.show({}, 2, thing=True)
    signals = hall.show({7: BESIDE}, 2, thing=True, age_s=0.5)
    assert signals + hall.show({7: BESIDE}, 20, thing=True) == []


@pytest.mark.parametrize("seen_as", ["bag", "unknown"])
def test_what_was_there_from_the_start_is_not_abandoned(seen_as: str) -> None:
    """A bag, or anything parked, that stood there when the rule began is nobody's."""
    hall = Hall(seen_as=seen_as)
    signals = hall.show({1: BESIDE}, 10, thing=True)
    assert signals + hall.show({1: AWAY}, 60, thing=True) == []


def test_what_appears_where_nobody_was_is_not_abandoned() -> None:
    """Light, or a door left open, has no owner."""
    hall = Hall()
    hall.show({1: AWAY}, 15)
    assert hall.show({1: AWAY}, 60, thing=True) == []


def test_holes_large_things_and_other_places_are_not_abandoned() -> None:
    """What was taken away, what is as tall as its owner, and what stands outside of the zone is silent."""
    for how, rule in (({"added": 0.2}, {}), ({"height": HEIGHT}, {}), ({}, {"unknown": False})):
        hall = Hall(**rule)
        hall.show({1: BESIDE}, 8)
        signals = hall.show({1: BESIDE}, 5, thing=True, **how)
        assert signals + hall.show({1: AWAY}, 30, thing=True, **how) == []
    hall = Hall(zone="spot")
    hall.show({1: BESIDE}, 8)
    hall.show({1: BESIDE}, 5, thing=True)
    assert phases(hall.show({1: AWAY}, 9, thing=True)) == ["start"]


def test_dropping_ends_what_is_open_and_the_thing_is_then_there_from_the_start() -> None:
    """After a reconnect the thing is not told again."""
    hall = Hall()
    hall.show({1: BESIDE}, 8)
    hall.show({1: BESIDE}, 5, thing=True)
    hall.show({1: AWAY}, 9, thing=True)
    (end,) = hall.rule.drop(hall.now, "reconnect")
    assert end.explain["reason"] == "reconnect"
    hall.start_s = hall.now
    assert hall.show({1: AWAY}, 30, thing=True) == []


def picture(*boxes: tuple[int, int, int, int, int], level: int = 120) -> np.ndarray:
    found = np.full((90, 160), level, np.uint8)
    found[:, ::8] += 20
    for x, y, w, h, grey in boxes:
        found[y : y + h, x : x + w] = grey
    return found


def test_static_foreground_tells_what_was_added_from_what_was_removed() -> None:
    """A thing put down is a blob with its own outline; one taken away leaves a hole without."""
    thing = (60, 40, 10, 8, 30)
    for before, after, added in (((), (thing,), True), ((thing,), (), False)):
        scene = StaticScene()
        for _ in range(10):
            assert scene.step(picture(*before), 0.5) == []
        for _ in range(10):
            blobs = scene.step(picture(*after), 0.5)
        ((box, since_s, share),) = blobs
        assert box == pytest.approx((60 / 160, 40 / 90, 70 / 160, 48 / 90), abs=0.02)
        assert since_s == pytest.approx(4.5, abs=1.1)
        assert (share > 0.6) == added
        assert (share < 0.4) == (not added)


def test_who_walks_by_stops_the_clock_and_does_not_reset_it() -> None:
    """A thing hidden for a moment is still the same thing; somebody who walks is never one."""
    scene, thing = StaticScene(), (60, 40, 10, 8, 30)
    for _ in range(10):
        scene.step(picture(), 0.5)
    for k in range(8):
        assert scene.step(picture((10 + 12 * k, 20, 10, 40, 220)), 0.5) == []
    for _ in range(10):
        scene.step(picture(thing), 0.5)
    scene.step(picture(thing, (55, 20, 20, 60, 220)), 0.5)
    ((_, since_s, _),) = scene.step(picture(thing), 0.5)
    assert since_s > 4.0


def test_light_that_changes_everywhere_is_no_thing() -> None:
    """When most of the picture changes at once nothing is told, and a while later the new light is the background."""
    scene = StaticScene()
    for _ in range(10):
        scene.step(picture(), 0.5)
    for _ in range(60):
        assert scene.step(picture(level=180), 0.5) == []


def test_somebody_who_never_moved_is_no_owner_and_hides_nothing() -> None:
    """A thing that the detector takes for a person stands where it was first seen; it is told all the same."""
    hall = Hall()
    hall.show({1: BESIDE}, 8)
    hall.show({1: BESIDE}, 4, thing=True)
    hall.show({1: BESIDE, 9: SPOT}, 1, thing=True, age_s=0.5)
    hall.show({1: AWAY, 9: SPOT}, 1, thing=True, age_s=0.5)
    assert phases(hall.show({1: AWAY, 9: SPOT}, 12, thing=True, age_s=0.9)) == ["start"]


def test_an_exposure_that_follows_a_dark_coat_is_no_thing() -> None:
    """The whole picture brighter by 15 levels for a while: nothing; a thing that is put down meanwhile is told."""
    scene = StaticScene()
    for _ in range(10):
        scene.step(picture(), 0.5)
    for _ in range(10):
        assert scene.step(picture(level=135), 0.5) == []
    for _ in range(10):
        blobs = scene.step(picture((60, 40, 10, 8, 30), level=135), 0.5)
    assert len(blobs) == 1


def test_the_hole_of_somebody_who_stood_there_at_first_is_no_thing() -> None:
    """What was learned as background and has gone shows no outline in the picture, even where only a part of it is told."""
    scene = StaticScene()
    for _ in range(10):
        scene.step(picture((60, 20, 12, 40, 30)), 0.5)
    for _ in range(40):
        blobs = scene.step(picture(), 0.5)
        assert all(added < 0.4 for _, _, added in blobs)
    assert blobs == []

"""Drawing: what is told is visible, where it is, at any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vedette.streamer.offline.annotate import ALARM, BANNER_S, COASTING_S, Annotator, colour_of, short_id

TRACK = {"id": "dock/b/17", "label": "person", "box": [0.4, 0.4, 0.6, 0.9], "since_seen_s": 0.0}
ALERT: dict[str, Any] = {
    "id": "x", "phase": "start", "rule": "zone:gate", "label": "person", "track_ids": ["dock/b/17"],
}  # fmt: skip


def canvas(h: int = 480, w: int = 640) -> np.ndarray:
    return np.full((h, w, 3), 90, np.uint8)


def has(picture: np.ndarray, colour: tuple[int, int, int], where: tuple[slice, slice]) -> bool:
    return bool((np.abs(picture[where].astype(int) - colour).max(axis=-1) <= 2).any())


@pytest.mark.parametrize(("h", "w"), [(120, 160), (480, 640), (1080, 1920), (200, 31)])
def test_a_track_is_framed_in_its_own_colour_at_any_size(h: int, w: int) -> None:
    """The box's left edge has the track's colour; a quiet track is not in alarm."""
    picture = canvas(h, w)
    Annotator({}, {}).draw(picture, [TRACK], "dock", 0.0)
    edge = (slice(int(0.5 * h), int(0.8 * h)), slice(max(0, int(0.4 * w) - 3), int(0.4 * w) + 4))
    assert has(picture, colour_of("dock/b/17"), edge)
    assert not has(picture, ALARM, edge)


def test_a_track_is_drawn_while_somebody_has_just_seen_it() -> None:
    """A short gap is bridged; where somebody was seconds ago nothing is framed."""
    edge = (slice(240, 400), slice(250, 262))
    for unseen_s, drawn in ((COASTING_S, True), (COASTING_S + 0.1, False)):
        picture = canvas()
        Annotator({}, {}).draw(picture, [{**TRACK, "since_seen_s": unseen_s}], "dock", 0.0)
        assert bool((picture[edge] != 90).any()) == drawn


def test_an_alarmed_track_is_red_until_its_incident_ends_and_the_banner_fades() -> None:
    """An open incident colours its tracks; the banner tells it for three seconds."""
    annotator, edge = Annotator({}, {}), (slice(240, 400), slice(250, 262))
    annotator.take(ALERT, 10.0)
    during, later, after = canvas(), canvas(), canvas()
    annotator.draw(during, [TRACK], "dock", 10.0)
    annotator.draw(later, [TRACK], "dock", 10.1 + BANNER_S)
    annotator.take({**ALERT, "phase": "end"}, 14.0)
    annotator.draw(after, [TRACK], "dock", 14.0)
    banner = (slice(5, 30), slice(5, 60))
    assert has(during, ALARM, edge)
    assert has(during, ALARM, banner)
    assert has(later, ALARM, edge)
    assert not has(later, ALARM, banner)
    assert not has(after, ALARM, edge)


def test_zones_and_lines_are_visible_and_everything_else_is_left_alone() -> None:
    """A zone tints its inside, a line shows on which side ``in`` is; a far corner keeps its pixels."""
    picture = canvas()
    Annotator({"gate": [(0.5, 0.5), (0.9, 0.5), (0.9, 0.9), (0.5, 0.9)]}, {"door": [(0.1, 0.3), (0.4, 0.3)]}).draw(
        picture, [], "dock", 0.0
    )
    assert tuple(picture[330, 500]) != (90, 90, 90)
    below, above = picture[150:175, 130:190], picture[100:140, 130:190]
    assert (below != 90).any(), "the arrow of `in` points to the right of the walk: down"
    assert (above == 90).all()
    assert tuple(picture[10, 630]) == (90, 90, 90)


def test_a_track_keeps_its_colour_and_people_get_a_short_number() -> None:
    """The colour depends on the id only; the number that is read out is its last part."""
    assert colour_of("a/b/1") == colour_of("a/b/1") != colour_of("a/b/2")
    assert short_id("dock/1f0c/17") == "17"

"""What is drawn into the picture of an alert: warm and cold where it says so, and nothing that it does not say."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from vedette.streamer.drawing import check_lines, draw_reasons, drawn_snapshot, jpeg_size

#: A row of a map: only its last part speaks for the alert, its first against it.
PARTS = [[0.0] * 13 for _ in range(8)]
PARTS[4] = [-0.5] + [0.0] * 11 + [1.0]


def alert(**explain: Any) -> dict[str, Any]:
    return {
        "rule": "fight", "phase": "start", "time": "1970-01-01T00:00:01.000Z", "box": [0.4, 0.4, 0.6, 0.6],
        "explain": {"condition": "looks like a fight", "checks": [], **explain},
    }  # fmt: skip


def jpeg(h: int, w: int) -> bytes:
    return cv2.imencode(".jpg", np.full((h, w, 3), 120, np.uint8))[1].tobytes()


@pytest.mark.parametrize(("h", "w"), [(120, 160), (480, 640), (1080, 1920)])
def test_the_map_is_warm_where_it_speaks_for_the_alert_and_cold_where_against(h: int, w: int) -> None:
    """Red at the part that is above 0, blue at the one below, untouched where it is 0."""
    picture = np.full((h, w, 3), 120, np.uint8)
    draw_reasons(picture, {"attention_map": PARTS})
    blue, _, red = (int(v) for v in picture[round(4.5 / 8 * h), w - 2])
    assert red > blue + 50
    blue, _, red = (int(v) for v in picture[round(4.5 / 8 * h), 1])
    assert blue > red + 30
    assert (picture[: h // 4] == 120).all()


def test_an_alert_that_says_nothing_of_where_and_when_leaves_the_picture_alone() -> None:
    """No key, an empty one, or a map of nothing: not a pixel changes."""
    for explain in ({}, {"attention_s": [], "path": []}, {"attention_map": [[0.0] * 13] * 8}):
        picture = np.full((90, 120, 3), 120, np.uint8)
        draw_reasons(picture, explain)
        assert (picture == 120).all()


def test_half_seconds_stand_up_for_the_alert_and_hang_down_against_it() -> None:
    """In the lower right corner: the newest bar last, red above the line, blue below it."""
    picture = np.full((480, 640, 3), 120, np.uint8)
    draw_reasons(picture, {"attention_s": [[0.5, -1.0], [0.0, 1.0]]})
    corner = picture[400:, 600:].astype(int)
    reds, blues = (np.argwhere(corner[..., a] > corner[..., b] + 100) for a, b in ((2, 0), (0, 2)))
    assert reds[:, 0].mean() < blues[:, 0].mean()
    assert reds[:, 1].mean() > blues[:, 1].mean()


def test_a_path_passes_through_its_points() -> None:
    """The way somebody ran is a line through where they were."""
    picture = np.zeros((240, 320, 3), np.uint8)
    draw_reasons(picture, {"path": [[1.0, 0.25, 0.5], [0.0, 0.75, 0.5]]})
    assert picture[120, 80:240].any(axis=1).all()
    assert not picture[:100].any()


def test_a_snapshot_is_drawn_at_its_size_and_what_is_none_is_refused() -> None:
    """Same width and height; bytes that are no picture, and a head that claims gigabytes, are an error and decode nothing."""
    shown = drawn_snapshot(jpeg(240, 320), alert(attention_map=PARTS, attention_s=[[0.0, 1.0]]))
    assert jpeg_size(shown) == (320, 240)
    with pytest.raises(ValueError, match="no picture"):
        drawn_snapshot(b"\xff\xd8\xff\xd9", alert())
    bomb = jpeg(240, 320)
    at = bomb.index(b"\xff\xc0")
    with pytest.raises(ValueError, match="no picture of at most"):
        drawn_snapshot(bomb[: at + 5] + b"\xff\xff\xff\xff" + bomb[at + 9 :], alert())


def test_checks_are_written_as_a_person_would() -> None:
    """Value, side and threshold, with the unit; an unknown value is unknown."""
    check = {"what": "speed", "value": 2.25, "is": "at least", "threshold": 1.6, "unit": "heights/s", "met": True}
    assert check_lines({"checks": [check, {**check, "value": None, "unit": ""}]}) == [
        "speed 2.25, at least 1.6 heights/s", "speed unknown, at least 1.6",
    ]  # fmt: skip

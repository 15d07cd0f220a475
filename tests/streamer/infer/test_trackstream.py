"""The public track message: clipped, rounded, with public ids and nothing that is out of sight."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from vedette.engines.api import LABELS
from vedette.streamer.infer.incidents import Moment
from vedette.streamer.infer.trackstream import topic_of, track_message
from vedette.streamer.types import Tracks


def tracks(*boxes: tuple[float, float, float, float]) -> Tracks:
    n = len(boxes)
    f, i = np.full(n, 0.123456, np.float32), np.zeros(n, np.int32)
    return Tracks(
        np.arange(1, n + 1), np.array(boxes, np.float32).reshape(n, 4), np.full((n, 2), 0.5, np.float32), f, i, f, f,
        np.ones(n, np.bool_), i,
    )  # fmt: skip


def test_a_message_holds_what_the_contract_says_and_is_json() -> None:
    """Every promised key, with the size of the source and the picture's own time."""
    moment = Moment("dock", 7, 3, 99, 0.3, 1.5)
    message = track_message("yard", "b00t", moment, (768, 576), tracks((0.1, 0.2, 0.3, 0.4)), LABELS)
    assert json.loads(json.dumps(message, allow_nan=False)) == {
        "schema": "vedette.tracks/1", "site": "yard", "camera": "dock", "time": "1970-01-01T00:00:01.500Z",
        "mono_ns": 99, "epoch": 7, "seq": 3, "width": 768, "height": 576,
        "tracks": [{
            "id": "dock/b00t/1", "label": "person", "score": 0.123, "box": [0.1, 0.2, 0.3, 0.4],
            "velocity_per_s": [0.5, 0.5], "age_s": 0.123, "since_seen_s": 0.123,
        }],
    }  # fmt: skip
    assert topic_of("dock") == "track.dock"


def test_boxes_stay_inside_the_picture_and_those_outside_are_not_told() -> None:
    """A box over the border is clipped; one that has coasted out of the picture is left out."""
    found = track_message(
        "yard", "b", Moment("dock", 1, 0, 0, 0.0, 0.0), (10, 10), tracks((-0.1, 0.5, 0.2, 1.3), (1.1, 0.1, 1.4, 0.5)), LABELS
    )  # fmt: skip
    assert [(track["id"], track["box"]) for track in found["tracks"]] == [("dock/b/1", [0.0, 0.5, 0.2, 1.0])]


def test_a_return_is_told_in_its_picture() -> None:
    """An object that took its older id back says how long it was away; its neighbour says nothing."""
    both = replace(tracks((0.1, 0.2, 0.3, 0.4), (0.5, 0.2, 0.7, 0.4)), returned_s=np.array([0.0, 2.5], np.float32))
    found = track_message("yard", "b", Moment("dock", 1, 0, 0, 0.0, 0.0), (10, 10), both, LABELS)
    assert [track.get("returned_after_s") for track in found["tracks"]] == [None, 2.5]

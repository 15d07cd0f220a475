"""A reload restarts what its change touches, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from vedette.streamer.config import CameraSection, Config
from vedette.streamer.supervisor.reload import CAPTURE_KEYS, Changes, capture_view, changes, fixed_faults, infer_view

GATE = {"gate": [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]}


def config(**keys: Any) -> Config:
    """Two cameras, and what is asked for."""
    cameras = keys.pop("cameras", {"a": {}, "b": {}})
    full = {name: {"source": f"rtsp://h/{name}", **camera} for name, camera in cameras.items()}
    return Config.model_validate({"version": 1, "cameras": full, **keys})


def expect(**fields: Any) -> Changes:
    return Changes(**{"added": (), "removed": (), "restarted": (), "infer": "keep", "hub": False, **fields})


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ({}, {}),
        ({"cameras": {"a": {"source": "/x"}, "b": {}}}, {"restarted": ("a",), "infer": "reload"}),
        ({"cameras": {"a": {"privacy": list(GATE.values())}, "b": {}}}, {"restarted": ("a",), "infer": "reload"}),
        ({"cameras": {"a": {"zones": GATE}, "b": {}}}, {"infer": "reload"}),
        (
            {"cameras": {"a": {"zones": GATE, "rules": [{"kind": "zone", "zone": "gate"}]}, "b": {}}},
            {"infer": "reload"},
        ),
        ({"cameras": {"a": {"offline_after": 60}, "b": {}}}, {"infer": "reload"}),
        ({"cameras": {"a": {}}}, {"removed": ("b",), "infer": "reload"}),
        ({"cameras": {"a": {}, "b": {}, "c": {}}}, {"added": ("c",), "infer": "reload"}),
        ({"engine": {"threads": 2}}, {"infer": "restart"}),
        ({"engine": {"size": "320x192"}}, {"infer": "restart", "restarted": ("a", "b")}),
        ({"http": {"listen": None}}, {"hub": True}),
        ({"alerts": {"retention": {"days": 1}}}, {"hub": True}),
        ({"site": "other"}, {"hub": True, "infer": "restart"}),
    ],
)
def test_each_change_has_its_smallest_restart(new: dict[str, Any], expected: dict[str, Any]) -> None:
    """A table of what an operator edits and who must notice."""
    assert changes(config(), config(**new)) == expect(**expected)


def test_a_store_cannot_move_while_running() -> None:
    """It is refused with its key and the fix."""
    ((key, rule, value),) = fixed_faults(config(), config(alerts={"store": "/elsewhere"}))
    assert key == ("alerts", "store")
    assert "restart vedette instead" in rule
    assert value == "/elsewhere"
    assert fixed_faults(config(), config()) == []


def test_every_camera_key_has_somebody_who_notices() -> None:
    """A new key of a camera must be decided: the capture process's, or infer's and the supervisor's."""
    elsewhere = {"classes", "min_score", "offline_after", "zones", "lines", "rules"}
    assert set(CAPTURE_KEYS) | elsewhere == set(CameraSection.model_fields)
    assert not set(CAPTURE_KEYS) & elsewhere


def test_the_infer_process_is_told_no_secret() -> None:
    """No address of a camera, no sink, no token; rules, zones and engine are unchanged; the result is valid."""
    whole = config(
        cameras={"a": {"source": "rtsp://me:pw-a@h/a", "zones": GATE, "fps": 7}},
        alerts={"sinks": [{"kind": "webhook", "url": "https://h/?token=t0ken"}], "store": "/s"},
        http={"tokens": [{"name": "wall", "token": "t0ken-of-the-wall-0123"}]},
    )
    view = infer_view(whole)
    text = str(view.model_dump(mode="json"))
    assert not [secret for secret in ("pw-a", "t0ken", "rtsp") if secret in text]
    assert (view.engine, view.site) == (whole.engine, whole.site)
    assert view.cameras["a"].model_copy(update={"source": whole.cameras["a"].source}) == whole.cameras["a"]
    assert Config.model_validate(view.model_dump(mode="json")) == view
    assert "t0ken" not in str(capture_view(whole, "a").model_dump(mode="json"))


def test_a_capture_process_is_told_only_what_it_needs() -> None:
    """No other camera's password, no sink's token; what it obeys is unchanged; the result is a valid configuration."""
    whole = config(
        cameras={
            "a": {"source": "rtsp://me:pw-a@h/a", "zones": GATE, "privacy": list(GATE.values()), "fps": 7},
            "b": {"source": "rtsp://me:pw-b@h/b"},
        },
        alerts={"sinks": [{"kind": "webhook", "url": "https://h/?token=t0ken"}], "store": "/s"},
    )
    view = capture_view(whole, "a")
    text = str(view.model_dump(mode="json"))
    assert "pw-a" in text
    assert "pw-b" not in text
    assert "t0ken" not in text
    for key in CAPTURE_KEYS:
        assert getattr(view.cameras["a"], key) == getattr(whole.cameras["a"], key)
    assert Config.model_validate(view.model_dump(mode="json")) == view

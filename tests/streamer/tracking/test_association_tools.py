"""What a learned association is trained and judged by: simulated scenes, histories behind the product's tracker, two encoders."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from vedette.engines.api import Detections
from vedette.streamer.tracking.tracker import Tracker

TOOLS = Path(__file__).resolve().parents[3] / "tools"


@pytest.fixture(scope="module")
def tools() -> Iterator[dict[str, ModuleType]]:
    """The tools that need no torch, by name."""
    sys.path.insert(0, str(TOOLS))
    try:
        yield {name: importlib.import_module(name) for name in ("association_scenes", "association_pairs")}
    finally:
        sys.path.remove(str(TOOLS))


def follow(tracker: Tracker, scenes: list, frames: int) -> list[np.ndarray]:
    """Ids and boxes of every picture of some scenes, side by side."""
    out = []
    for k in range(frames):
        detections = [Detections(s.box[k], s.score[k], np.zeros(len(s.score[k]), np.int32)) for s in scenes]
        found = tracker.update([str(i) for i in range(len(scenes))], [s.time_s[k] for s in scenes], detections)
        out.extend(np.column_stack([t.id, t.xyxy, t.detection]) for t in found)
    return out


def test_a_scene_is_the_same_for_the_same_seed(tools: dict[str, ModuleType]) -> None:
    """Training can be repeated: equal seeds draw equal scenes, others draw others."""
    draw = tools["association_scenes"].draw_scene
    one, same, other = draw(3), draw(3), draw(4)
    assert all(np.array_equal(a, b) for a, b in zip(one.box, same.box, strict=True))
    assert not np.array_equal(one.time_s[:10], other.time_s[:10])


def test_histories_change_nothing_by_themselves(tools: dict[str, ModuleType]) -> None:
    """With no worth of its own the tracker with histories answers what the tracker answers, bit for bit."""
    scenes = [tools["association_scenes"].draw_scene(s) for s in range(3)]
    pairs = zip(follow(Tracker(), scenes, 30), follow(tools["association_pairs"].Historian(), scenes, 30), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_a_history_is_what_was_seen_before_and_is_spaced_by_time(tools: dict[str, ModuleType]) -> None:
    """At 25 pictures a second a ring's entries are no nearer than its spacing, none is from the future, all are of their track."""
    lib = tools["association_pairs"]
    ring = lib.Ring()
    for k in range(40):
        fact = np.array([[k, 0.5, 0.1, 0.2, 0.9, k / 25]])
        ring.write(np.array([70]), fact, np.array([5]))
        ring.write(np.array([70]), fact, np.array([6]))
    time_s = ring.fact[70, : ring.count[70], 5]
    assert ring.count[70] == lib.RING
    assert time_s[0] == 39 / 25
    assert (time_s[1:-1] - time_s[2:] >= lib.SPACING_S).all()
    assert (ring.who[70] == 5).all()


@pytest.mark.torch
def test_a_network_chooses_only_among_the_pairs_that_geometry_allows(tools: dict[str, ModuleType]) -> None:
    """An untrained network's worth is 0 exactly where geometry's is, finite elsewhere, whatever it thinks; the encoders cost the same."""
    pytest.importorskip("torch").set_num_threads(1)
    models, lib = importlib.import_module("association_models"), tools["association_pairs"]
    scenes = [tools["association_scenes"].draw_scene(s) for s in range(2)]
    for name in ("attention", "gru"):
        worth = models.worth_of(models.Association(name).eval(), 5.0)
        seen = []

        def told(view: object, worth: object = worth, seen: list = seen) -> np.ndarray:
            seen.append((view.gain, worth(view)))  # type: ignore[attr-defined, operator]
            return seen[-1][1]

        follow(lib.Historian(worth=told), scenes, 8)
        gain, value = (np.concatenate(part) for part in zip(*seen, strict=True))
        assert np.array_equal(gain > 0, value > 0)
        assert np.isfinite(value).all()
        assert not np.allclose(gain, value)
    assert models.cost_of("gru") == pytest.approx(models.cost_of("attention"), rel=0.05)

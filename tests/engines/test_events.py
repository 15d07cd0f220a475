"""The events model: exact under drops, unknown before history, one stream never another's, refusals in a sentence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from vedette.engines.api import EngineFault
from vedette.engines.events import CARRIER, EventEvidence, EventsSpec, schema_of, track_numbers
from vedette.engines.temporal_load import open_evidence
from vedette.engines.temporal_spec import sidecar_path
from vedette.engines.temporal_tracks import TrackFrame

MOTION, WIDTH = 5, 128


def write(folder: Path) -> Path:
    """A small model with random weights."""
    from vedette.engines.models.event_graph import export_events

    r = np.random.default_rng(3)
    scene = {
        "mean": r.normal(size=MOTION),
        "std": np.full(MOTION, 2.0),
        "w": r.normal(size=(1, 2 * MOTION)),
        "b": np.zeros(1),
    }
    track = {
        "mean": np.zeros(6), "std": np.ones(6), "w1": r.normal(size=(8, 18)), "b1": r.normal(size=8),
        "w2": r.normal(size=(1, 8)), "b2": np.zeros(1),
    }  # fmt: skip
    path = folder / "m.onnx"
    path.write_bytes(export_events(scene, track))
    linear = tuple(tuple(scene[k].ravel().tolist()) for k in ("w", "mean", "std"))
    spec = EventsSpec(MOTION, (0.5, 4.0), (0.5, 2.0), 0.075, hashlib.sha256(path.read_bytes()).hexdigest(), linear)
    sidecar_path(path).write_text(spec.to_json())
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    return write(tmp_path_factory.mktemp("events"))


def token(numbers: np.ndarray) -> np.ndarray:
    out = np.full((1, WIDTH), CARRIER, np.float32)
    out[0, 1::2] = -CARRIER
    out[0, :MOTION], out[0, MOTION] = numbers, 1.5
    return out


def frame(time_s: float, seed: int, *, slot: int = 0, people: int = 2, **how: object) -> TrackFrame:
    r = np.random.default_rng([seed, slot])
    low = r.uniform(0, 0.4, (people, 2))
    fields: dict[str, object] = {
        "id": np.arange(1, people + 1), "xyxy": np.concatenate([low, low + r.uniform(0.1, 0.5, (people, 2))], 1).astype(np.float32),
        "velocity_per_s": r.normal(size=(people, 2)).astype(np.float32), "score": np.full(people, 0.8, np.float32),
        "age_s": np.ones(people, np.float32), "label": np.zeros(people, np.int32), "seen": np.ones(people, np.bool_),
        "embedding": np.zeros((people, 64), np.float32), "scene": token(r.normal(size=MOTION)),
    }  # fmt: skip
    return TrackFrame(slot, time_s, **{**fields, **how})  # type: ignore[arg-type]


def test_a_step_is_the_weighted_mean_of_the_past(model: Path) -> None:
    """The fight logit equals the regression on exponentially weighted means of all inputs, at irregular times."""
    engine, spec = EventEvidence(model), EventEvidence(model).spec
    times = np.cumsum(np.random.default_rng(0).uniform(0.08, 0.4, 20))
    frames = [frame(float(t), k) for k, t in enumerate(times)]
    last = [engine.step([f])[0] for f in frames][-1]
    weight, mean, std = (np.array(v) for v in spec.linear)
    x = np.clip((np.stack([f.scene[-1, :MOTION] for f in frames]) - mean) / std, -5, 5)
    fade = np.exp2(-(times[-1] - times)[:, None] / np.array(spec.scene_half_lives_s))
    folds = (fade[:, :, None] * x[:, None]).sum(0) / fade.sum(0)[:, None]
    logit = float(weight @ folds.ravel())
    assert last.scene[0] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)
    shares = engine.explain(0)
    assert len(shares) == 20
    assert sum(s for _, s in shares) == pytest.approx(logit, abs=1e-4)
    assert [age for age, _ in shares] == sorted((age for age, _ in shares), reverse=True)


def test_a_picture_is_weighed_as_the_next_step_would_weigh_it(model: Path) -> None:
    """What other motion numbers would have added to the latest step is what a step with them really adds."""
    r, times = np.random.default_rng(1), 0.1 * np.arange(12)
    past = [frame(float(t), k) for k, t in enumerate(times[:-1])]
    tokens = [token(r.normal(size=MOTION)) for _ in range(2)]

    def logit_after(scene: np.ndarray) -> tuple[float, EventEvidence]:
        engine = EventEvidence(model)
        last = [engine.step([f])[0] for f in [*past, frame(float(times[-1]), 99, scene=scene)]][-1]
        p = float(last.scene[0])
        return float(np.log(p / (1 - p))), engine

    (first, engine), (second, _) = (logit_after(scene) for scene in tokens)
    added = engine.weigh(0, np.concatenate([scene[:, :MOTION] for scene in tokens]))
    assert added is not None
    assert second - first == pytest.approx(added[1] - added[0], abs=1e-3)
    assert EventEvidence(model).weigh(0, tokens[0][:, :MOTION]) is None


def test_what_a_fall_loses_without_a_step_is_what_a_life_without_it_says(model: Path) -> None:
    """Leaving a step out of the memory equals never having made it, and asking changes nothing."""
    times = 0.1 * np.arange(10)
    frames = [frame(float(t), k, people=1) for k, t in enumerate(times)]

    def logit_of(shown: list[TrackFrame]) -> tuple[float, EventEvidence]:
        engine = EventEvidence(model)
        p = float([engine.step([f])[0] for f in shown][-1].evidence[0, 0])
        return float(np.log(p / (1 - p))), engine

    whole, engine = logit_of(frames)
    told = engine.explain_track(0, 1)
    assert [ago_s for ago_s, _ in told] == pytest.approx(list(times[::-1]))
    assert told[-1][1] == 0
    for k in (1, 5, 8):
        without, _ = logit_of(frames[:k] + frames[k + 1 :])
        assert told[k][1] == pytest.approx(whole - without, abs=2e-3)
    assert engine.explain_track(0, 1) == told
    assert engine.explain_track(0, 7) == []


def test_unknown_before_half_a_second(model: Path) -> None:
    """Neither a camera nor a track has a probability before half a second; a newcomer has none while others do."""
    engine = EventEvidence(model)
    early = [engine.step([frame(0.1 * k, k, people=1)])[0] for k in range(5)]
    assert all(np.isnan(j.scene[0]) and np.isnan(j.evidence[0, 0]) for j in early)
    later = engine.step([frame(0.5, 9, people=2)])[0]
    assert not np.isnan(later.scene[0])
    assert np.isnan(later.evidence[:, 0]).tolist() == [False, True]


def test_pictures_in_between_change_nothing(model: Path) -> None:
    """At 50 a second the answers at tenths are those of 10 a second: steps are paced, and held in between."""
    slow, fast = EventEvidence(model), EventEvidence(model)
    want = [slow.step([frame(0.1 * k, k)])[0] for k in range(12)]
    got = []
    for k in range(12):
        got.append(fast.step([frame(0.1 * k, k)])[0])
        held = fast.step([frame(0.1 * k + 0.04, 99)])[0]
        np.testing.assert_array_equal(held.scene, got[-1].scene)
    for a, b in zip(want, got, strict=True):
        np.testing.assert_array_equal(a.scene, b.scene)
        np.testing.assert_array_equal(a.evidence, b.evidence)


def test_cameras_and_tracks_never_touch_each_other(model: Path) -> None:
    """Two cameras in one call answer bitwise as each alone."""
    both, alone = EventEvidence(model), [EventEvidence(model), EventEvidence(model)]
    for k in range(10):
        pair = [frame(0.1 * k, k, slot=0), frame(0.1 * k, k, slot=1)]
        for got, engine, f in zip(both.step(pair), alone, pair, strict=True):
            want = engine.step([f])[0]
            np.testing.assert_allclose(got.scene, want.scene, rtol=1e-6)
            np.testing.assert_allclose(got.evidence, want.evidence, rtol=1e-6)


def test_a_new_epoch_starts_from_nothing(model: Path) -> None:
    """After a reset the clock may fall, and nothing of before counts."""
    engine, other = EventEvidence(model), EventEvidence(model)
    for k in range(10):
        engine.step([frame(5 + 0.1 * k, k)])
    for k in range(8):
        got = engine.step([frame(0.1 * k, 50 + k, reset=k == 0)])[0]
        want = other.step([frame(0.1 * k, 50 + k)])[0]
    np.testing.assert_array_equal(got.scene, want.scene)


def test_bad_input_is_refused_in_a_sentence(model: Path) -> None:
    """A falling clock and a broken token: said, unknown, and nothing remembered."""
    engine = EventEvidence(model)
    for k in range(10):
        good = engine.step([frame(0.1 * k, k)])[0]
    bad = engine.step([frame(1.0, 1, scene=token(np.full(MOTION, np.nan)))])[0]
    assert "motion token" in bad.refused[0]
    assert np.isnan(bad.scene[0])
    back = engine.step([frame(0.3, 1)])[0]
    assert "time_s" in back.refused[0]
    np.testing.assert_array_equal(engine.step([frame(0.92, 9)])[0].scene, good.scene)


def test_scene_tokens_are_not_taken_for_motion(model: Path) -> None:
    """Without a motion token a fight is unknown, whatever else the detector says; falls are still judged."""
    engine = EventEvidence(model)
    scene = np.random.default_rng(0).normal(size=(49, WIDTH)).astype(np.float32)
    for k in range(10):
        answer = engine.step([frame(0.1 * k, k, scene=scene)])[0]
    assert np.isnan(answer.scene[0])
    assert not np.isnan(answer.evidence).any()


def test_a_sidecar_of_another_graph_is_refused(model: Path, tmp_path: Path) -> None:
    """Graph and sidecar belong together; garbage is named."""
    other = tmp_path / "x.onnx"
    other.write_bytes(model.read_bytes() + b"\0")
    sidecar_path(other).write_text(sidecar_path(model).read_text())
    with pytest.raises(EngineFault, match="does not belong to its sidecar"):
        EventEvidence(other)
    sidecar_path(other).write_text("{}")
    with pytest.raises(EngineFault, match="no sidecar"):
        schema_of(other)


def test_track_numbers_know_the_pictures_shape() -> None:
    """A square in pixels has shape 1 in any picture."""
    f = frame(0.0, 0, people=1, xyxy=np.array([[0.1, 0.2, 0.1 + 0.2 / 1.5, 0.4]], np.float32))
    assert track_numbers(f, 1.5)[0, 1] == pytest.approx(0.0, abs=1e-6)


def test_the_shipped_model_opens_and_says_what_it_gives() -> None:
    """Weights, sidecar and card come with the package; its evidence is what the rules read."""
    weights = Path(__file__).parents[2] / "engines" / "weights" / "vedette-events.onnx"
    engine = open_evidence(weights, 2)
    assert (engine.names, engine.scene_names) == (("fall",), ("fight",))
    assert json.loads(sidecar_path(weights).read_text())["motion"] == 47
    assert "Known failures" in weights.with_suffix(".md").read_text()

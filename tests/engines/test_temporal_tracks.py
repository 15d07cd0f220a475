"""Tracks become slots and tokens, evidence goes back to its track, and an untrained model stays silent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
from tests.engines.rift_streams import SMALL, random_model  # noqa: E402
from vedette.engines.models.rift_export import export_rift  # noqa: E402
from vedette.engines.runtimes.ringstate import RingSession  # noqa: E402
from vedette.engines.temporal import TemporalEngine  # noqa: E402
from vedette.engines.temporal_spec import TOKEN_DIM  # noqa: E402
from vedette.engines.temporal_tracks import (  # noqa: E402
    NOVELTY_WARM_UP_S,
    Novelty,
    TrackEvidence,
    TrackFrame,
    TrackSlots,
    track_tokens,
)

pytestmark = pytest.mark.torch

CONFIG = replace(SMALL, token_dim=TOKEN_DIM, tracks=3)


@pytest.fixture(scope="module")
def exported() -> Any:
    return export_rift(CONFIG, random_model(CONFIG).weights())


def frame(ids: list[int], t: float, slot: int = 0, seed: int = 0, **changes: Any) -> TrackFrame:
    """Tracks whose looks and places depend on id, time and seed only."""
    rows = [np.random.default_rng([i, round(t * 10), seed]) for i in ids]
    n = len(ids)
    corner = np.array([g.random(2) * 0.5 for g in rows], np.float32).reshape(n, 2)
    base = TrackFrame(
        slot=slot,
        time_s=t,
        id=np.array(ids, np.int64),
        xyxy=np.concatenate((corner, corner + 0.2), 1),
        velocity_per_s=np.zeros((n, 2), np.float32),
        score=np.full(n, 0.9, np.float32),
        age_s=np.full(n, t, np.float32),
        label=np.zeros(n, np.int32),
        seen=np.ones(n, np.bool_),
        embedding=np.array([g.normal(size=64) for g in rows], np.float32).reshape(n, 64),
        scene=np.random.default_rng([round(t * 10), seed]).normal(size=(4, CONFIG.context_dim)).astype(np.float32),
    )
    return replace(base, **changes)


def test_a_token_says_what_the_layout_says() -> None:
    """Appearance, centre, size, velocity, score, log age and label stand where the layout puts them."""
    f = frame([4], 1.0, label=np.array([2], np.int32), velocity_per_s=np.array([[0.1, -0.2]], np.float32))
    token = track_tokens(f)[0]
    assert np.array_equal(token[:64], f.embedding[0])
    np.testing.assert_allclose(token[64:68], [*(f.xyxy[0, :2] + 0.1), 0.2, 0.2], atol=1e-6)
    np.testing.assert_allclose(token[68:72], [0.1, -0.2, 0.9, np.log(2)], atol=1e-6)
    assert token[72:].tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"needs \[N,64\], got \[1, 32\]"):
        track_tokens(replace(f, embedding=np.zeros((1, 32), np.float32)))


def test_slots_are_kept_for_life_and_reused_after_death() -> None:
    """A track keeps its slot, a newcomer takes a free one and is born, a full camera leaves the newest out."""
    slots = TrackSlots(2)
    ids = lambda *x: np.array(x, np.int64)  # noqa: E731
    where, born = slots.assign(ids(7, 9))
    assert (where.tolist(), born.tolist()) == ([0, 1], [True, True])
    where, born = slots.assign(ids(11, 9, 7))
    assert (where.tolist(), born.tolist()) == ([-1, 1, 0], [False, False])
    where, born = slots.assign(ids(11, 9))
    assert (where.tolist(), born.tolist()) == ([0, 1], [True, False])
    assert slots.assign(ids())[0].tolist() == []


def test_less_than_half_a_second_of_history_is_unknown(exported: Any) -> None:
    """Evidence of a track is NaN until 0.5 s after it was first seen, of the scene until 0.5 s after the epoch began."""
    speaking = TrackEvidence(TemporalEngine(RingSession(*exported, 1)), untrained=True)
    for t in range(16):
        late = [2] if t >= 4 else []
        seen = np.array([True, t >= 6][: 1 + len(late)])  # the second track coasts for its first two frames
        out = speaking.step([frame([1, *late], t * 0.1, seen=seen, reset=t == 0)])[0]
        assert np.isnan(out.evidence[0]).any() == (t < 5)
        assert np.isnan(out.scene).any() == (t < 5)
        if late:
            assert np.isnan(out.evidence[1]).any() == (t < 11)
    again = speaking.step([frame([1], 1.6, reset=True)])[0]
    assert np.isnan(again.scene).all()
    assert np.isnan(again.evidence).all()
    blind = speaking.step([frame([1], 9.0, scene=None)])[0]
    assert np.isnan(blind.scene).all()


def test_evidence_follows_the_track_not_the_row(exported: Any) -> None:
    """Rows in another order, other tracks coming and going: each track's evidence is that of its own life."""
    a, b = (TrackEvidence(TemporalEngine(RingSession(*exported, 1)), untrained=True) for _ in range(2))
    for t in range(12):
        f, g = frame([1, 2], t * 0.1), frame([2, 1], t * 0.1)
        one, two = a.step([f])[0].evidence, b.step([g])[0].evidence
        np.testing.assert_allclose(one, two[::-1], atol=1e-5)
        if t >= 5:
            assert ((one > 0) & (one < 1)).all()


def test_a_reused_slot_remembers_nothing(exported: Any) -> None:
    """A track that inherits a dead track's slot is judged as if the slot were new; the survivor is not disturbed."""
    a, b = (TrackEvidence(TemporalEngine(RingSession(*exported, 1)), untrained=True) for _ in range(2))
    for t in range(10):
        a.step([frame([1, 5], t * 0.1)])
        b.step([frame([1, 6], t * 0.1, seed=0)])
    first, second = (x.step([frame([1, 8], 1.0)])[0].evidence for x in (a, b))
    np.testing.assert_allclose(first[1:], second[1:], atol=5e-2)  # nearly: they see a survivor with another past
    own_a = a.engine.runner.state["K0"]  # type: ignore[attr-defined]
    own_b = b.engine.runner.state["K0"]  # type: ignore[attr-defined]
    slot = CONFIG.latents + 1
    assert np.array_equal(own_a[slot], own_b[slot])
    assert (own_a[slot][..., -1] == 1.0).sum() == CONFIG.kv_heads


def test_coasting_overflow_and_silence_are_nan(exported: Any) -> None:
    """A coasting track, one beyond the slots, and every track of an untrained model: NaN, not a guess."""
    speaking = TrackEvidence(TemporalEngine(RingSession(*exported, 1)), untrained=True)
    for t in range(6):
        speaking.step([frame([1, 2, 3, 4], t * 0.1)])
    out = speaking.step([frame([1, 2, 3, 4], 0.6, seen=np.array([True, False, True, True]))])[0].evidence
    assert np.isnan(out).all(1).tolist() == [False, True, False, True]
    silent = TrackEvidence(TemporalEngine(RingSession(*exported, 1)))
    judged = silent.step([frame([1], 0.0)])[0]
    assert np.isnan(judged.evidence).all()
    assert judged.novelty is None


def test_a_camera_without_tracks_or_scene_is_fine(exported: Any) -> None:
    """Nothing to see gives empty evidence; a scene of the wrong width is refused with both shapes."""
    evidence = TrackEvidence(TemporalEngine(RingSession(*exported, 2)), untrained=True)
    assert evidence.step([frame([], 0.0, slot=1, scene=None)])[0].evidence.shape == (0, 2)
    with pytest.raises(ValueError, match=r"tokens of 12, got \[4, 7\]"):
        evidence.step([frame([], 0.1, scene=np.zeros((4, 7), np.float32))])


def test_novelty_is_high_when_the_scene_breaks_the_expectation() -> None:
    """After warm-up the usual is near 0 and a broken scene many deviations; before, there is no number."""
    novelty, g = Novelty(), np.random.default_rng(0)
    usual = []
    for i in range(600):
        scene = g.normal(size=(4, 8)).astype(np.float32)
        score = novelty.update(i * 0.1, scene, np.zeros(8, np.float32))
        assert (score is None) is (i * 0.1 < NOVELTY_WARM_UP_S + 0.1)
        usual += [score] if score is not None else []
    assert abs(np.median(usual)) < 1
    assert novelty.update(60.1, np.full((4, 8), 9.0, np.float32), None) > 10

"""TemporalEngine: slots by camera, births, epochs, and faults that stay where they happened."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
from tests.engines.rift_streams import SMALL, offline, part, random_clip, random_model, worst  # noqa: E402
from vedette.engines.api import EngineFault  # noqa: E402
from vedette.engines.models.rift import RIFT  # noqa: E402
from vedette.engines.models.rift_export import export_rift  # noqa: E402
from vedette.engines.runtimes.ringstate import RingSession  # noqa: E402
from vedette.engines.temporal import TemporalAnswer, TemporalEngine, TemporalFrame, runs_of  # noqa: E402

pytestmark = pytest.mark.torch

CAMERAS = 4


@pytest.fixture(scope="module")
def exported() -> Any:
    return export_rift(SMALL, random_model(SMALL).weights())


@pytest.fixture
def engine(exported: Any) -> TemporalEngine:
    return TemporalEngine(RingSession(*exported, CAMERAS))


def frames_of(clip: Any, t: int, **changes: Any) -> list[TemporalFrame]:
    return [
        TemporalFrame(
            slot=c,
            time_s=float(clip.time_s[c, t]),
            tokens=clip.tokens[c, t].numpy().astype(np.float32),
            present=clip.present[c, t, SMALL.latents :].numpy(),
            context=clip.context[c, t].numpy().astype(np.float32),
            context_valid=clip.context_valid[c, t].numpy(),
            **changes,
        )
        for c in range(len(clip.tokens))
    ]


def same(a: TemporalAnswer, b: TemporalAnswer) -> bool:
    return all(
        np.array_equal(getattr(a, k), getattr(b, k)) for k in ("latents", "evidence", "identity", "forecast", "scene")
    )


def test_the_engine_obeys_the_law(engine: TemporalEngine) -> None:
    """Frames through the engine equal the offline pass; evidence is its probability, zero where a track is absent."""
    clip = random_clip(SMALL, 20, cameras=CAMERAS)
    model = random_model(SMALL)
    with torch.no_grad():
        want = model(clip)
    for t in range(20):
        for c, answer in enumerate(engine.step(frames_of(clip, t))):
            streams = clip.present[c, t].numpy()
            assert worst(answer.latents[streams], want.y[c, t].numpy()[streams]) < 2e-5
            here = streams[SMALL.latents :]
            probability = torch.sigmoid(want.evidence[c, t]).numpy() * here[:, None]
            assert worst(answer.evidence, probability) < 1e-5
            assert worst(answer.scene, torch.sigmoid(want.scene[c, t]).numpy()) < 1e-5
            assert answer.refused == ()


@pytest.mark.parametrize("gap", [0, 1, 3])
def test_cameras_may_come_in_any_subset(exported: Any, gap: int) -> None:
    """Cameras arriving in random subsets each equal their own clip, whatever idle cameras are stepped along."""
    engine = TemporalEngine(RingSession(*exported, CAMERAS), gap=gap)
    clip, g = random_clip(SMALL, 30, cameras=CAMERAS), np.random.default_rng(0)
    arrived: list[list[int]] = [[] for _ in range(CAMERAS)]
    got: list[list[np.ndarray]] = [[] for _ in range(CAMERAS)]
    for t in range(30):
        batch = [f for f in frames_of(clip, t) if g.random() < 0.5]
        for answer in engine.step(batch[::-1]):
            arrived[answer.slot].append(t)
            got[answer.slot].append(answer.latents)
    for c in range(CAMERAS):
        index = torch.tensor(arrived[c])
        own = part(clip, slice(None), slice(c, c + 1))
        own = replace(
            own, **{k: getattr(own, k)[:, index] for k in ("tokens", "present", "time_s", "context", "context_valid")}
        )
        seen = own.present[0].numpy()
        assert worst(np.stack(got[c])[seen], offline(random_model(SMALL), own)[0][seen]) < 2e-5


def test_birth_and_death_touch_one_slot_only(engine: TemporalEngine, exported: Any) -> None:
    """A reborn track slot forgets; every other stream's memory, and other cameras' answers, stay bitwise as they were."""
    clip = random_clip(SMALL, 13, cameras=CAMERAS, drop=0.0)
    twin = TemporalEngine(RingSession(*exported, CAMERAS))
    for t in range(12):
        engine.step(frames_of(clip, t))
        twin.step(frames_of(clip, t))
    frames = frames_of(clip, 12)
    frames[1] = replace(frames[1], born=np.array([False, True, False]))
    a, b = engine.step(frames), twin.step(frames_of(clip, 12))
    assert all(same(a[c], b[c]) for c in (0, 2, 3))
    assert worst(a[1].latents[SMALL.latents + 1], b[1].latents[SMALL.latents + 1]) > 1e-3
    others = np.ones(CAMERAS * SMALL.streams, bool)
    others[SMALL.streams + SMALL.latents + 1] = False
    for name, state in engine.runner.state.items():  # type: ignore[attr-defined]
        if name.endswith("0"):
            assert np.array_equal(state[others], twin.runner.state[name][others])  # type: ignore[attr-defined]


def test_a_new_epoch_is_a_new_camera(engine: TemporalEngine, exported: Any) -> None:
    """After reset a camera answers bitwise as one that has just started, clock included; the others go on."""
    clip = random_clip(SMALL, 12, cameras=CAMERAS)
    for t in range(8):
        engine.step(frames_of(clip, t))
    fresh = TemporalEngine(RingSession(*exported, CAMERAS))
    first = replace(frames_of(clip, 3)[2], reset=True)  # its clock is behind: only a new epoch may do that
    assert same(engine.step([first])[0], fresh.step([first])[0])
    for t in range(8, 12):
        later = frames_of(clip, t)[2]
        assert same(engine.step([later])[0], fresh.step([later])[0])


BAD_TOKENS = [np.nan, np.inf, -np.inf, 3e4]


@pytest.mark.parametrize("value", BAD_TOKENS)
def test_a_bad_track_is_refused_alone(exported: Any, value: float) -> None:
    """NaN, infinite or absurd tokens take out their track for that frame, by a sentence; all else is bitwise the same."""
    clip = random_clip(SMALL, 16, cameras=CAMERAS, drop=0.0)
    bad, absent, good = (TemporalEngine(RingSession(*exported, CAMERAS)) for _ in range(3))
    for t in range(16):
        frames = frames_of(clip, t)
        spoilt, without = list(frames), list(frames)
        if t == 7:
            tokens = frames[1].tokens.copy()
            tokens[2, 4] = value
            spoilt[1] = replace(frames[1], tokens=tokens)
            without[1] = replace(frames[1], present=np.array([True, True, False]))
        a, b, c = bad.step(spoilt), absent.step(without), good.step(frames)
        assert all(same(x, y) for x, y in zip(a, b, strict=True))
        assert all(same(a[i], c[i]) for i in (0, 2, 3))
        assert bool(a[1].refused) is (t == 7)
        if t == 7:
            assert "camera slot 1: track 2: token must be finite and within 10000, got" in a[1].refused[0]
            assert a[1].evidence is not None
            assert not a[1].evidence[2].any()
        assert all(np.isfinite(x.latents).all() for x in a)


def test_a_bad_scene_token_is_hidden(engine: TemporalEngine) -> None:
    """A NaN context token is hidden for that frame and named; the answer stays finite."""
    frame = frames_of(random_clip(SMALL, 1, drop=0.0), 0)[0]
    context = frame.context.copy()
    context[3] = np.nan
    answer = engine.step([replace(frame, context=context, context_valid=None)])[0]
    assert "context: token must be finite" in answer.refused[0]
    assert "1 of 6" in answer.refused[0]
    assert np.isfinite(answer.latents).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"time_s": 0.0}, "must not fall within an epoch, got 0.000000 after"),
        ({"time_s": float("nan")}, "time_s: must be finite, got nan"),
        ({"tokens": np.zeros((2, 10), np.float32)}, r"tokens: needs \[3, 10\], got \[2, 10\]"),
        ({"present": np.ones(4, bool)}, r"present: needs \[3\], got \[4\]"),
        ({"born": np.ones(1, bool)}, r"born: needs \[3\], got \[1\]"),
        ({"context": np.zeros((6, 11), np.float32)}, r"context: needs \[6, 12\], got \[6, 11\]"),
    ],
)
def test_a_bad_frame_is_skipped_alone(exported: Any, change: dict[str, Any], said: str) -> None:
    """A frame with a falling clock or wrong shapes changes nothing: its camera goes on as if it had never come."""
    clip = random_clip(SMALL, 12, cameras=CAMERAS)
    bad, good = (TemporalEngine(RingSession(*exported, CAMERAS)) for _ in range(2))
    for t in range(12):
        frames = frames_of(clip, t)
        if t == 6:
            frames[1] = replace(frames[1], **change)
        a, b = bad.step(frames), good.step(frames_of(clip, t))
        assert all(same(a[i], b[i]) for i in (0, 2, 3))
        if t == 6:
            assert a[1].skipped
            assert pytest.importorskip("re").search(said, a[1].refused[0])
    own = part(clip, slice(None), slice(1, 2))
    keep = torch.tensor([t for t in range(12) if t != 6])
    own = replace(
        own, **{k: getattr(own, k)[:, keep] for k in ("tokens", "present", "time_s", "context", "context_valid")}
    )
    assert worst(a[1].latents, offline(random_model(SMALL), own)[0, -1]) < 2e-5


def test_a_refused_frame_still_starts_its_epoch(engine: TemporalEngine, exported: Any) -> None:
    """The first frame of a new epoch is bad; the epoch has begun all the same, so its earlier clock is not refused for ever."""
    clip = random_clip(SMALL, 9, cameras=CAMERAS)
    for t in range(5):
        engine.step(frames_of(clip, t))
    bad = replace(frames_of(clip, 0)[1], reset=True, tokens=np.zeros((1, 1), np.float32))
    assert engine.step([bad])[0].skipped
    fresh = TemporalEngine(RingSession(*exported, CAMERAS))
    for t in range(4):
        answer, want = engine.step([frames_of(clip, t)[1]])[0], fresh.step([frames_of(clip, t)[1]])[0]
        assert not answer.refused
        here = clip.present[1, t].numpy()
        assert worst(answer.latents[here], want.latents[here]) < 1e-5


@pytest.mark.parametrize("slots", [[4], [-1], [1, 1]])
def test_wrong_slots_are_a_fault(engine: TemporalEngine, slots: list[int]) -> None:
    """A slot out of range, or twice in one call, is nobody's camera: EngineFault with the slots."""
    frame = frames_of(random_clip(SMALL, 1), 0)[0]
    with pytest.raises(EngineFault, match=r"slots must be distinct and in 0\.\.3, got"):
        engine.step([replace(frame, slot=s) for s in slots])


def test_more_cameras_than_the_session_holds_are_refused(exported: Any) -> None:
    """A runner opened for fewer cameras than are stepped says so."""
    session = RingSession(*exported, 2)
    with pytest.raises(EngineFault, match=r"cameras 1\.\.2 of 2"):
        session.run(1, 2, {})


def test_a_window_longer_than_the_plans_is_refused(exported: Any) -> None:
    """Raising ``engine.window`` beyond the ring of the graph, or to nothing, is refused with what it may be."""
    for window in (SMALL.window + 1, 0, -1):
        with pytest.raises(EngineFault, match=rf"engine.window: needs 1\.\.{SMALL.window}, .*got {window}; lower it"):
            TemporalEngine(RingSession(*exported, 1), window=window)


def stepped(runner: RingSession, clip: Any, upto: int) -> TemporalEngine:
    """An engine that has seen the first frames of every camera of a clip."""
    engine = TemporalEngine(runner)
    for t in range(upto):
        engine.step(frames_of(clip, t))
    return engine


def test_memory_moves_between_sessions_of_one_graph(exported: Any) -> None:
    """A snapshot restored elsewhere goes on bitwise as the camera it was taken of."""
    clip = random_clip(SMALL, 12, cameras=CAMERAS)
    there = stepped(RingSession(*exported, CAMERAS), clip, 8)
    here = TemporalEngine(RingSession(*exported, CAMERAS))
    for camera in range(CAMERAS):
        here.runner.restore(camera, there.runner.snapshot(camera))
    here.timeline.written[:], here.timeline.last_s[:] = there.timeline.written, there.timeline.last_s
    for t in range(8, 12):
        for a, b in zip(here.step(frames_of(clip, t)), there.step(frames_of(clip, t)), strict=True):
            np.testing.assert_array_equal(a.latents, b.latents)


@pytest.mark.parametrize("other", ["model", "precision", "shape", "camera"])
def test_state_of_another_model_or_precision_is_refused(exported: Any, other: str) -> None:
    """A sentence with both keys, or with the tensor; no byte of any camera changes."""
    session = stepped(RingSession(*exported, CAMERAS), random_clip(SMALL, 6, cameras=CAMERAS), 6).runner
    before = {k: v.copy() for k, v in session.state.items()}
    own, camera, said = session.snapshot(1), 0, "state must come from this model at this precision"
    if other == "model":
        foreign = RingSession(*export_rift(SMALL, random_model(SMALL, 5).weights()), 1).snapshot(0)
    elif other == "precision":
        foreign = RingSession(*export_rift(SMALL, random_model(SMALL).weights(), "kvu", "int8"), 1).snapshot(0)
    elif other == "shape":
        foreign, said = replace(own, arrays={**own.arrays, "K0": own.arrays["K0"][:, :, :2]}), "K0 must be float32"
    else:
        foreign, camera, said = own, CAMERAS, rf"camera must be in 0\.\.{CAMERAS - 1}, got {CAMERAS}"
    with pytest.raises(EngineFault, match=said):
        session.restore(camera, foreign)
    for name, array in session.state.items():
        np.testing.assert_array_equal(array, before[name])


def test_fewer_slots_than_the_ring_holds_are_exact_too(exported: Any) -> None:
    """``engine.window`` below the graph's: the answer is that of a model with the shorter window and the same weights."""
    short = replace(SMALL, window=3)
    model = RIFT(short).double().eval()
    model.load_state_dict(random_model(SMALL).state_dict())
    clip, engine = random_clip(SMALL, 14), TemporalEngine(RingSession(*exported, 2), window=3)
    want = offline(model, clip)
    for t in range(14):
        for c, answer in enumerate(engine.step(frames_of(clip, t))):
            here = clip.present[c, t].numpy()
            assert worst(answer.latents[here], want[c, t][here]) < 2e-5
    with pytest.raises(EngineFault, match=r"engine.window: needs 1\.\.5, the slots of this model's ring, got 6"):
        TemporalEngine(RingSession(*exported, 2), window=6)


def test_nothing_to_do_is_no_error(engine: TemporalEngine) -> None:
    """An empty batch answers an empty list."""
    assert engine.step([]) == []


@pytest.mark.parametrize(
    ("slots", "gap", "want"),
    [
        ([], 1, []),
        ([3], 1, [(3, 1)]),
        ([0, 1, 2], 0, [(0, 3)]),
        ([0, 2, 3, 7], 0, [(0, 1), (2, 2), (7, 1)]),
        ([0, 2, 3, 7], 1, [(0, 4), (7, 1)]),
        ([0, 2, 3, 7], 3, [(0, 8)]),
    ],
)
def test_runs_bridge_small_holes(slots: list[int], gap: int, want: list[tuple[int, int]]) -> None:
    """Slots become blocks, holes of at most ``gap`` are bridged."""
    assert runs_of(slots, gap) == want


def test_long_streams_do_not_drift() -> None:
    """After 4000 steps a float32 stream still equals the offline pass over the frames that can matter."""
    config = replace(SMALL, half_lives_s=(0.5,), context=0, latents=0, evidence=(), scene_evidence=(), identity_dim=0)
    model = random_model(config)
    engine = TemporalEngine(RingSession(*export_rift(config, model.weights()), 1))
    g, tail = np.random.default_rng(1), 200
    tokens = g.normal(size=(4000, config.tracks, config.token_dim)).astype(np.float32)
    time_s = np.arange(4000) * 0.1 + 1e6
    present = np.ones(config.tracks, bool)
    for t in range(4000):
        answer = engine.step([TemporalFrame(0, float(time_s[t]), tokens[t], present)])[0]
    clip = random_clip(config, tail, cameras=1, drop=0.0)
    clip.tokens[0], clip.time_s[0] = torch.from_numpy(tokens[-tail:]).double(), torch.from_numpy(time_s[-tail:])
    assert worst(answer.latents, offline(model, clip)[0, -1]) < 2e-5

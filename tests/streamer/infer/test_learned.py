"""Learned evidence between tracker and rules: slots follow cameras, epochs and tracks; unknown is never 0."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.streamer.infer.test_pipeline import INSIDE, Show, section, seen
from vedette.engines.api import LABELS, Detections
from vedette.engines.temporal_tracks import Evidence, Judgement, TrackFrame
from vedette.streamer.config import EngineSection
from vedette.streamer.errors import EngineError
from vedette.streamer.infer.engine import open_stage
from vedette.streamer.infer.learned import EvidenceStage, Sight
from vedette.streamer.infer.pipeline import Pipeline
from vedette.streamer.rules.base import RuleConfig
from vedette.streamer.rules.view import Places, Signal, View
from vedette.streamer.types import Tracks


@dataclass
class Echo:
    """Evidence that says which slot and id it was asked about, and keeps every frame."""

    names: tuple[str, ...] = ("fall", "run")
    scene_names: tuple[str, ...] = ("fight",)
    frames: list[TrackFrame] = field(default_factory=list)
    refuse: tuple[str, ...] = ()

    def step(self, frames: Sequence[TrackFrame]) -> list[Judgement]:
        self.frames += frames
        return [
            Judgement(
                np.stack([f.id / 1000, np.where(f.seen, f.slot / 10, np.nan)], 1).astype(np.float32),
                np.array([0.25 if f.scene is not None else np.nan], np.float32),
                1.5 if f.scene is not None else None,
                self.refuse,
            )
            for f in frames
        ]


def stage_of(echo: Echo | None = None, cameras: int = 4, *, everywhere: bool = True) -> EvidenceStage:
    return EvidenceStage(lambda _n: echo or Echo(), cameras, everywhere=everywhere)


def tracks(*numbers: int, confirmed: bool = True, seen: bool = True) -> Tracks:
    n = len(numbers)
    ones = np.ones(n, np.float32)
    return Tracks(
        np.array(numbers, np.int64), np.tile(np.array([0.1, 0.1, 0.2, 0.4], np.float32), (n, 1)),
        np.zeros((n, 2), np.float32), ones, np.zeros(n, np.int32), ones, ones * 0,
        np.full(n, confirmed), np.where(seen, np.arange(n), -1).astype(np.int32),
    )  # fmt: skip


def sight(camera: str, found: Tracks, *, fresh: bool = False, scene: bool = True) -> Sight:
    n = len(found)
    detections = Detections(
        found.xyxy, found.score, found.label, np.arange(64 * n, dtype=np.float32).reshape(n, 64)
    )  # fmt: skip
    return Sight(camera, 1.0, fresh, found, detections, np.ones((49, 128), np.float32) if scene else None)


class KeepingConfig(RuleConfig):
    """Asks for ``fall`` and ``fight``; its rule keeps what it is shown."""

    kind: str = "keeping"

    def learned(self) -> tuple[str, ...]:
        return ("fall", "fight")

    def rule(self, _places: Places) -> Keeping:
        return Keeping()


class Keeping:
    """A rule that raises nothing and keeps its views for the test."""

    seen: list[View] = []  # noqa: RUF012 - the pipeline makes the rule, the test reads it

    def step(self, view: View) -> list[Signal]:
        Keeping.seen.append(view)
        return []

    def drop(self, _time_s: float, _reason: str) -> list[Signal]:
        return []


@pytest.fixture
def views() -> list[View]:
    Keeping.seen.clear()
    return Keeping.seen


def asking() -> Any:
    """A camera whose one rule reads learned evidence."""
    return section(rules=[]).model_copy(update={"rules": [KeepingConfig()]})


def embedded(*feet: tuple[float, float]) -> Detections:
    plain = seen(*feet)
    looks = np.ones((len(plain), 64), np.float32)
    return Detections(plain.xyxy, plain.score, plain.label, looks)


def test_evidence_goes_to_its_row_whatever_the_order() -> None:
    """Rows out of order, unconfirmed and coasting tracks: every row has its own track's answer, the rest NaN."""
    echo = Echo()
    (found,) = stage_of(echo).step([sight("a", tracks(7, 3, 5))])
    assert echo.frames[0].id.tolist() == [3, 5, 7]  # the oldest first
    assert echo.frames[0].embedding[:, 0].tolist() == [64.0, 128.0, 0.0]  # each with its own detection's looks
    assert found.tracks.evidence is not None
    np.testing.assert_allclose(found.tracks.evidence[:, 0], [0.007, 0.003, 0.005])
    (found,) = stage_of().step([sight("a", tracks(7, 3, confirmed=False))])
    assert found.tracks.evidence is not None
    assert np.isnan(found.tracks.evidence).all()
    (found,) = stage_of().step([sight("a", tracks(2, seen=False), scene=False)])
    assert np.isnan(found.tracks.evidence[0, 1])  # type: ignore[index]
    assert found.scene == {}


def test_slots_follow_cameras_and_epochs() -> None:
    """A camera keeps its slot, a new epoch resets only its own, a forgotten camera's slot starts empty for the next."""
    echo = Echo()
    stage = stage_of(echo, 2)
    stage.step([sight("a", tracks(1)), sight("b", tracks(1))])
    stage.step([sight("a", tracks(1)), sight("b", tracks(1), fresh=True)])
    stage.forget("a")
    stage.step([sight("c", tracks(1)), sight("b", tracks(1))])
    assert [(f.slot, f.reset) for f in echo.frames] == [
        (0, True), (1, True), (0, False), (1, True), (0, True), (1, False),
    ]  # fmt: skip


def test_more_cameras_than_slots_open_a_larger_engine() -> None:
    """The third camera of an engine for two opens one for four; all memories start over once, nobody is refused."""
    opened: list[int] = []
    echo = Echo()

    def open_for(count: int) -> Evidence:
        opened.append(count)
        return echo

    stage = EvidenceStage(open_for, 2)
    stage.step([sight("a", tracks(1)), sight("b", tracks(1))])
    stage.step([sight(c, tracks(1)) for c in "abc"])
    stage.step([sight(c, tracks(1)) for c in "abc"])
    assert opened == [2, 4]
    assert [f.reset for f in echo.frames] == [True, True, True, True, True, False, False, False]
    assert sorted({f.slot for f in echo.frames}) == [0, 1, 2]


def test_refusals_are_counted_and_told_a_few_times(caplog: pytest.LogCaptureFixture) -> None:
    """Every refused input is counted; the log holds three sentences an epoch, not ten a second."""
    stage = stage_of(Echo(refuse=("track 3: token must be finite",)))
    for _ in range(20):
        stage.step([sight("a", tracks(1))])
    assert stage.refused == 20
    assert [r.getMessage() for r in caplog.records] == ["a: temporal engine: track 3: token must be finite"] * 3
    stage.step([sight("a", tracks(1), fresh=True)])
    assert len(caplog.records) == 4


def test_a_rule_reads_evidence_and_scene_of_its_picture(views: list[View]) -> None:
    """What the engine says of a picture is in the view of that picture; without tokens or engine it is unknown, not 0."""
    echo = Echo()
    pipeline = Pipeline("site", "boot", LABELS, evidence=stage_of(echo, everywhere=False))
    pipeline.configure("dock", asking())
    pipeline.configure("yard", section())
    dock, yard = Show(pipeline), Show(pipeline, "yard")
    for _ in range(20):
        both = [embedded(INSIDE), embedded(INSIDE)]
        pipeline.step([dock.moment(), yard.moment()], both, np.ones((2, 49, 128), np.float32))
        dock.advance()
        yard.advance()
    assert {f.slot for f in echo.frames} == {0}  # the yard has no rule that asks
    assert views[-1].evidence("fall") == pytest.approx(views[-1].tracks.id / 1000)
    assert np.isnan(views[-1].evidence("smoke")).all()
    assert views[-1].scene == {"fight": 0.25, "novelty": 1.5}
    pipeline.step([dock.moment()], [embedded(INSIDE)])
    assert views[-1].scene.get("fight") is None
    dock.reconnect()
    pipeline.step([dock.moment()], [embedded(INSIDE)])
    assert [f.reset for f in echo.frames[-2:]] == [False, True]
    pipeline.evidence = None
    dock.advance()
    pipeline.step([dock.moment()], [embedded(INSIDE)])
    assert np.isnan(views[-1].evidence("fall")).all()


def test_evidence_is_off_until_a_rule_or_the_configuration_asks(detector_spec: Any) -> None:
    """No rule, no key: no engine is opened, not even a broken one's file is read."""
    assert open_stage(EngineSection(), detector_spec, [section()], 1) is None


def test_what_cannot_be_had_is_refused_with_the_fix(detector_spec: Any, tmp_path: Path) -> None:
    """No such model, no sidecar, another detector, evidence the model lacks, random weights, too long a window: a sentence each."""
    pytest.importorskip("torch")
    from dataclasses import replace

    for temporal, sentence in (
        ("nosuch", "no model of learned evidence is called 'nosuch'"),
        ("./x.onnx", "is no sidecar of a temporal model"),
    ):
        with pytest.raises(EngineError, match=sentence):
            open_stage(EngineSection(temporal=temporal), detector_spec, [], 1)
    plain = replace(detector_spec, embedding_dim=None, name="yolox")
    with pytest.raises(EngineError, match="got yolox with None; use vedette-nano"):
        open_stage(EngineSection(temporal="x"), plain, [asking()], 1)
    random = str(export_model(tmp_path / "random.onnx", trained=False))
    with pytest.raises(EngineError, match="heads were not trained"):
        open_stage(EngineSection(temporal=random), detector_spec, [], 1)
    lacking = str(export_model(tmp_path / "lacking.onnx", evidence=("run",)))
    with pytest.raises(EngineError, match=r"need the learned evidence \['fall'\], got a model of"):
        open_stage(EngineSection(temporal=lacking), detector_spec, [asking()], 1)
    with pytest.raises(EngineError, match=r"engine.window: needs 1..8, the slots of this model's ring, got 64"):
        open_stage(EngineSection(temporal=lacking, window=64), detector_spec, [], 1)


@pytest.fixture
def detector_spec() -> Any:
    from vedette.engines.api import EngineSpec

    return EngineSpec("vedette-nano", (256, 416), LABELS, 64, "onnxruntime", "fp32")


def export_model(path: Path, *, trained: bool = True, evidence: tuple[str, ...] = ("fall", "run")) -> Path:
    """A small temporal model of random weights with the shipped shapes of its input, marked as told."""
    import torch

    from vedette.engines.models.rift import RIFT
    from vedette.engines.models.rift_export import export_rift
    from vedette.engines.temporal_spec import RiftConfig, save_graph

    torch.manual_seed(0)
    config = RiftConfig(
        d_model=32, heads=4, kv_heads=2, window=8, ffn=32, context=49, evidence=evidence, scene_evidence=("fight",)
    )
    graph, spec = export_rift(config, RIFT(config).weights(), trained=trained)
    save_graph(path, graph, spec)
    return path


def test_process_with_learned_evidence_is_the_same_every_time(tmp_path: Path, data_dir: Path) -> None:
    """The real engines over real pictures, twice: byte-identical alerts and tracks, and evidence of persons after 0.5 s."""
    pytest.importorskip("torch")
    import cv2

    from vedette.streamer.cli import main

    model = export_model(tmp_path / "m.onnx")
    (tmp_path / "c.yaml").write_text(
        f"version: 1\ncameras: {{}}\nengine: {{temporal: {model}}}\ndefaults:\n  zones: {{all: [[0,0],[1,0],[1,1],[0,1]]}}\n"
        "  rules: [{kind: zone, zone: all, classes: [person]}]\n"
    )
    capture = cv2.VideoCapture(str(data_dir / "clips" / "vtest.avi"))
    writer = cv2.VideoWriter(str(tmp_path / "people.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (768, 576))
    for _ in range(25):
        writer.write(capture.read()[1])
    writer.release()
    results = []
    for out in ("one", "two"):
        words = [
            "process",
            str(tmp_path / "people.mp4"),
            "--config",
            str(tmp_path / "c.yaml"),
            "--out",
            str(tmp_path / out),
        ]
        assert main(words) == 0
        folder = tmp_path / out / "people"
        results.append([(folder / name).read_bytes() for name in ("tracks.txt", "alerts.jsonl")])
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["learned"]["frames"] > 0
        results[-1].append(json.dumps(summary["learned"]).encode())
    assert results[0] == results[1]
    assert summary["learned"]["peak"]["fight"] > 0
    assert summary["learned"]["peak"]["fall"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clip", "kind"), [("fights/fight/fi144.mp4", "fight"), ("falls/subject1/Fall/13.mp4", "fall")]
)
def test_a_real_alert_says_when_and_where(tmp_path: Path, data_dir: Path, clip: str, kind: str) -> None:
    """The shipped model on a real clip: half seconds up to now and a map of 8 x 13 parts, some of which speak for the alert and
    most of which nothing moved in; the schema knows both."""
    from vedette.streamer.alert import alert_schema
    from vedette.streamer.cli import main

    (tmp_path / "c.yaml").write_text(f"version: 1\ncameras: {{}}\ndefaults: {{rules: [{{kind: {kind}}}]}}\n")
    words = ["process", str(data_dir / clip), "--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path)]
    assert main(words) == 0
    (alerts,) = tmp_path.glob("*/alerts.jsonl")
    explain = json.loads(alerts.read_text().splitlines()[0])["explain"]
    assert explain["attention_s"][-1][0] == 0.0
    parts = np.array(explain["attention_map"])
    assert parts.shape == (8, 13)
    assert parts.max() > 0
    assert (parts == 0).mean() > 0.3
    assert {"attention_s", "attention_map"} <= alert_schema()["properties"]["explain"]["properties"].keys()

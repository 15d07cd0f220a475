"""Plans, their cache, and `vedette engine`: exported, verified, shown and measured for real; built where TensorRT is installed."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
from tests.engines.rift_streams import SMALL, random_model  # noqa: E402
from tests.engines.tensorrt_here import need_rtx  # noqa: E402
from vedette.engines import build, temporal_verify, temporal_weights  # noqa: E402
from vedette.engines.api import EngineFault  # noqa: E402
from vedette.engines.build import PlanCache, PlanKey  # noqa: E402
from vedette.engines.models.rift_export import export_rift  # noqa: E402
from vedette.streamer.cli import main  # noqa: E402

pytestmark = pytest.mark.torch

KEY = PlanKey("a" * 64, "tensorrt_rtx", "1.7", ("SM89",), "{}")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "rift.onnx"
    config = {"d_model": 32, "heads": 4, "window": 5, "ffn": 24, "tracks": 3, "half_lives_s": [0.5, 4]}
    temporal_weights.export_file(out, None, config, "kvu", "fp32")
    return out


def test_a_plan_is_cached_under_everything_it_depends_on(tmp_path: Path) -> None:
    """A plan comes back under its own key only; one changed field, a torn file or a foreign sidecar is a miss."""
    cache = PlanCache(tmp_path)
    assert cache.get(KEY) is None
    path = cache.put(KEY, b"plan")
    assert cache.get(KEY) == b"plan"
    for change in (
        {"onnx_sha256": "b" * 64},
        {"tensorrt": "1.8"},
        {"targets": ("SM86",)},
        {"shapes": "{1}"},
        {"driver": "1"},
    ):
        fields = {f: getattr(KEY, f) for f in KEY.__slots__} | change
        assert cache.get(PlanKey(**fields)) is None
    path.write_bytes(b"pla")
    assert cache.get(KEY) is None
    assert not list(tmp_path.glob(".*"))


def test_plans_are_built_in_the_background_once(tmp_path: Path) -> None:
    """Two requests make one build; its end is announced; a fault is kept as a sentence and the caller never sees it."""
    cache, gate, calls, done = PlanCache(tmp_path), threading.Event(), [], []

    def slow() -> bytes:
        calls.append(1)
        gate.wait(10)
        return b"plan"

    for _ in range(2):
        cache.build_in_background(KEY, slow, done.append)
    assert cache.get(KEY) is None
    gate.set()
    cache.join(10)
    assert (len(calls), done, cache.get(KEY)) == (1, [cache.path(KEY)], b"plan")
    other = PlanKey("c" * 64, "tensorrt", "10", (), "{}")
    cache.build_in_background(other, lambda: (_ for _ in ()).throw(EngineFault("no such layer")), done.append)
    cache.join(10)
    assert cache.faults == {other.digest(): "no such layer"}


def test_an_unused_input_fails_the_build() -> None:
    """The parser's only hint that it dropped an input, or the input's absence, is an error."""
    build.refuse_unused(["harmless"], ["x", "len"], ["x"])
    with pytest.raises(EngineFault, match=r"unused, got .*Unused Input: len"):
        build.refuse_unused(["[TRT] Unused Input: len"], ["x", "len"], ["x", "len"])
    with pytest.raises(EngineFault, match=r"unused, got \['len'\]"):
        build.refuse_unused([], ["x"], ["x", "len"])


@pytest.mark.parametrize(("flavour", "precision"), [("kvu", "fp16"), ("portable", "fp32")])
def test_what_ships_for_tensorrt_builds_for_rtx(flavour: str, precision: str) -> None:
    """TensorRT-RTX builds these ahead of time for RTX 30, 40 and 50, with every input in use.

    kvu in fp32 is for ONNX Runtime: TensorRT-RTX 1.7.1 fails on some of its shapes ("uses before defs", 2026-11).
    """
    need_rtx()
    graph, spec = export_rift(SMALL, random_model(SMALL).weights(), flavour, precision)
    assert len(build.build_plan(graph, build.temporal_profile(spec, 4))) > 10_000
    with pytest.raises(EngineFault, match="no target SM87"):
        build.build_plan(graph, build.temporal_profile(spec, 4), ("SM87",))


def test_export_show_verify_bench_work_on_a_file(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The verbs answer JSON: what was exported is shown, is within its limits, and takes measurable time."""
    assert main(["engine", "show", str(exported)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["aliases"]["n_K0"] == "K0"
    assert shown["operators"]["TensorScatter"] == 4
    assert shown["trained"] is False
    assert main(["engine", "verify", str(exported)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["state"] for r in rows] == ["in place", "copied"]
    assert all(r["ok"] and r["rel_l2"] < 1e-5 for r in rows)
    assert main(["engine", "bench", str(exported), "--cameras", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["wall_ms"] > 0


def test_verify_sees_a_graph_that_lies(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters that are not the graph's are beyond the limits: exit 1 and ok false."""
    copy = tmp_path / "rift.onnx"
    for suffix in (".onnx", ".json"):
        copy.with_suffix(suffix).write_bytes(exported.with_suffix(suffix).read_bytes())
    weights = temporal_weights.weights_of(exported)
    temporal_weights.save_weights(copy.with_suffix(".npz"), weights | {"norm.weight": weights["norm.weight"] * 1.01})
    assert main(["engine", "verify", str(copy)]) == 1
    assert not json.loads(capsys.readouterr().out)[0]["ok"]


def test_trained_parameters_go_into_the_graph(exported: Path, tmp_path: Path) -> None:
    """Given parameters are used and marked trained; ones of another shape, or pickled ones, are refused."""
    config = {"d_model": 32, "heads": 4, "window": 5, "ffn": 24, "tracks": 3, "half_lives_s": [0.5, 4]}
    npz = exported.with_suffix(".npz")
    spec = temporal_weights.export_file(tmp_path / "b.onnx", npz, config, "portable", "fp32")
    assert spec.trained
    with pytest.raises(EngineFault, match="parameters do not fit the config"):
        temporal_weights.export_file(tmp_path / "c.onnx", npz, config | {"ffn": 25}, "kvu", "fp32")
    np.savez(tmp_path / "evil.npz", x=np.array([object()], dtype=object))
    with pytest.raises(EngineFault, match=r"evil\.npz: not readable"):
        temporal_weights.load_weights(tmp_path / "evil.npz")


def test_errors_are_what_they_say() -> None:
    """max_abs, relative L2 and cosine of known vectors."""
    found = temporal_verify.errors(np.array([3.0, 4.0]), np.array([3.0, 0.0]))
    assert found == {"max_abs": 4.0, "rel_l2": pytest.approx(4 / 3), "cosine": pytest.approx(0.6)}


@pytest.mark.parametrize("arguments", [["show", "nowhere.onnx"], ["bench", "nowhere.onnx"]])
def test_a_missing_file_is_a_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Exit 3 and one line, no traceback."""
    assert main(["engine", arguments[0], str(tmp_path / arguments[1])]) == 3
    assert "nowhere.onnx" in capsys.readouterr().err


def test_bench_rows_hold_every_rival() -> None:
    """The comparison answers one row a rival with our step as the unit; a stream stays equal to its offline twin."""
    from vedette.engines import temporal_bench

    rows: Any = temporal_bench.compare([4], [2], [1], 1)
    names = [r["case"] for r in rows]
    for wanted in ("in place, fp32", "int8 weights", "prototype", "torch SDPA", "recompute, ONNX Runtime, fp32", "GRU"):
        assert any(wanted in n for n in names), wanted
    assert rows[0]["times_ours"] == 1.0
    equal = {r["case"]: r["times_equal_precision"] for r in rows}
    assert equal[temporal_bench.OURS["int8"]] == 1.0, "int8 is compared with int8"


def test_a_stream_of_many_steps_is_judged() -> None:
    """The offline twin agrees with the stream at every check, and every slice is reported."""
    from vedette.engines import temporal_stream

    found = temporal_stream.stream(80, slices=8)
    assert [r["steps"] for r in found["slices"]] == [20, 30, 40, 50, 60, 70, 80, 90]
    assert sum("error" in r for r in found["slices"]) == 2
    assert found["error"]["verdict"] == "equal"
    assert found["memory_mib"]["verdict"] in ("flat", "grows", "undecided")


def test_a_trend_is_found_through_outliers() -> None:
    """Theil-Sen: one slice in six disturbed a hundredfold hides neither a drift nor its absence."""
    from vedette.engines.temporal_stream import trend

    disturbed = [100.0 if i % 6 == 2 else 1.0 + 1e-3 * (i * 7 % 5) for i in range(40)]
    assert trend(disturbed).verdict(0.05) == "flat"
    drifting = [v + 0.1 * i for i, v in enumerate(disturbed)]
    assert trend(drifting).gain == pytest.approx(3.9, rel=0.05)
    assert trend(drifting).verdict(0.05) == "grows"


def test_the_prototype_peer_is_the_plain_ring_step() -> None:
    """It writes its slot in place, touches no other, and answers from the filled length of its ring only."""
    from vedette.engines.models.window import prototype_feeds, prototype_graph
    from vedette.engines.temporal_bench import ort_case

    graph, feeds = prototype_graph(16, 2, 2, 5, 24), prototype_feeds(16, 2, 2, 5, 3)
    feeds["slot"][:], feeds["length"][:] = 1, 2
    before = {k: v.copy() for k, v in feeds.items()}
    case = ort_case("prototype", graph, feeds, 1)
    case.call()
    for name in ("K0", "V1"):
        changed = (feeds[name] != before[name]).any((0, 1, 3))
        assert changed.tolist() == [False, True, False, False, False]


def test_the_recompute_peer_is_the_same_in_torch_and_onnx() -> None:
    """The rival is not handicapped: its ONNX graph equals its PyTorch module, and equals attending with every query."""
    import onnxruntime as ort

    from vedette.engines.models.window import WindowEncoder, gru_hidden_for, window_graph

    torch.manual_seed(0)
    model = WindowEncoder(16, 2, 2, 5, 24).eval()
    x = torch.randn(3, 5, 16)
    session = ort.InferenceSession(window_graph(model).SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        y = model(x)
        every = x + model.place
        for layer in model.layers:
            every = layer(every, False)
        torch.testing.assert_close(model.norm(every[:, -1]), y)
    np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], y.numpy(), atol=1e-5)
    h = gru_hidden_for(1e6, 256, 2)
    assert 6 * (256 * h + h * h) + 12 * h * h == pytest.approx(1e6, rel=0.01)

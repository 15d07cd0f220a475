"""Exports are exact in place and copied (T8), hold nothing a runtime misreads, and travel with a true sidecar."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

from tests.engines.rift_streams import RING_ONLY, SMALL, offline, random_clip, random_model, streamed, worst  # noqa: E402
from vedette.engines.api import EngineFault  # noqa: E402
from vedette.engines.models.rift_export import export_rift, refuse_misread  # noqa: E402
from vedette.engines.runtimes.ringstate import RingSession  # noqa: E402
from vedette.engines.temporal import Timeline  # noqa: E402
from vedette.engines.temporal_spec import load_graph, save_graph, sidecar_path, spec_from_json  # noqa: E402

pytestmark = pytest.mark.torch


def _run(session: RingSession, clip: Any) -> tuple[list[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    timeline, answers = Timeline(session.spec.config, session.cameras), []
    for t in range(clip.present.shape[1]):
        present, time_s = clip.present[:, t].numpy(), clip.time_s[:, t].numpy()
        feeds = timeline.feeds(0, present, time_s, clip.context_valid[:, t].numpy())
        feeds |= {"det": clip.tokens[:, t].numpy(), "ctx": clip.context[:, t].numpy()}
        answers.append({k: v.copy() for k, v in session.run(0, session.cameras, feeds).items()})
        timeline.advance(0, present, time_s)
    return answers, session.state


def test_t8_in_place_equals_copying_bitwise() -> None:
    """T8: the same graph with its state aliased and with its state copied gives bitwise the same answers and memory."""
    model, clip = random_model(SMALL), random_clip(SMALL, 24)
    graph, spec = export_rift(SMALL, model.weights())
    (a, a_state), (b, b_state) = (_run(RingSession(graph, spec, 2, in_place=x), clip) for x in (True, False))
    for left, right in zip(a, b, strict=True):
        assert all(np.array_equal(left[k], right[k]) for k in left)
    assert all(np.array_equal(a_state[k], b_state[k]) for k in a_state)


@pytest.mark.parametrize("flavour", ["kvu", "portable"])
def test_heads_equal_pytorch(flavour: str) -> None:
    """Every head of the graph equals the module's: evidence, identity, forecast, scene."""
    model, clip = random_model(SMALL), random_clip(SMALL, 11)
    with torch.no_grad():
        want = model(clip)
    answers, _ = _run(RingSession(*export_rift(SMALL, model.weights(), flavour), 2), clip)
    for name in ("evidence", "identity", "forecast", "scene"):
        got = np.stack([a[name] for a in answers], 1)
        assert worst(got, getattr(want, name).numpy()) < 1e-5, name


@pytest.mark.parametrize(
    "config",
    [
        replace(SMALL, latents=0, scene_evidence=()),
        replace(SMALL, context=0),
        replace(SMALL, tracks=1, latents=0, context=0, scene_evidence=()),
        replace(SMALL, window=1),
        replace(SMALL, heads=2, kv_heads=1, d_model=24, window=7),
        replace(SMALL, half_lives_s=(3.0,)),
        replace(SMALL, kv_heads=4),
        replace(SMALL, token_dim=0),
        RING_ONLY,
    ],
    ids=[
        "no latents",
        "no scene",
        "one stream",
        "window 1",
        "other heads",
        "one fold",
        "no groups",
        "no projection",
        "ring only",
    ],
)
@pytest.mark.parametrize("flavour", ["kvu", "portable"])
def test_every_shape_of_config_exports_exactly(config: Any, flavour: str) -> None:
    """Parts that are switched off leave a graph that still obeys the law and has no unused input."""
    model, clip = random_model(config), random_clip(config, 12)
    here = clip.present.numpy()  # with one slot an absent stream has nothing left to look at: its answer means nothing
    assert worst(streamed(flavour, model, clip).y[here], offline(model, clip)[here]) < 2e-5


def test_half_precision_stays_close() -> None:
    """fp16: cosine above 0.9995 and relative L2 below 1e-2 against float64, with fold sums still in float32."""
    model, clip = random_model(SMALL), random_clip(SMALL, 30)
    graph, spec = export_rift(SMALL, model.weights(), "kvu", "fp16")
    assert {t.dtype for t in spec.state if t.name[0] in "MD"} == {"float32"}
    answers, _ = _run(RingSession(graph, spec, 2), clip)
    got, want = np.stack([a["y"] for a in answers], 1).astype(np.float64), offline(model, clip)
    cosine = (got * want).sum() / np.linalg.norm(got) / np.linalg.norm(want)
    assert cosine > 0.9995
    assert np.linalg.norm(got - want) / np.linalg.norm(want) < 1e-2


@pytest.mark.parametrize("flavour", ["kvu", "portable"])
def test_int8_weights_stay_near(flavour: str) -> None:
    """INT8 weights: relative L2 below 6 % even with weights that are large on purpose, and smaller than the float graph."""
    config = replace(SMALL, d_model=64, ffn=128)
    model, clip = random_model(config), random_clip(config, 20)
    graph, spec = export_rift(config, model.weights(), flavour, "int8")
    answers, _ = _run(RingSession(graph, spec, 2), clip)
    got, want = np.stack([a["y"] for a in answers], 1), offline(model, clip)
    assert np.linalg.norm(got - want) / np.linalg.norm(want) < 0.06
    assert len(graph) < 0.6 * len(export_rift(config, model.weights(), flavour)[0])


def _model(*nodes: Any, inputs: tuple[str, ...] = ("x",)) -> Any:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in inputs]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])]
    return helper.make_model(helper.make_graph(list(nodes), "g", values, out))


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (helper.make_node("Attention", ["x", "x", "x", "", "", "", "x"], ["y"]), "nonpad_kv_seqlen is ignored"),
        (helper.make_node("Attention", ["x", "x", "x"], ["y"], is_causal=1), "is_causal"),
        (helper.make_node("Attention", ["x", "x", "x"], ["y", "p", "q"]), "only the first output"),
        (helper.make_node("TensorScatter", ["x", "x", "x"], ["y"], mode="circular"), "only mode linear"),
        (helper.make_node("NonMaxSuppression", ["x", "x"], ["y"]), "no TensorRT-RTX implementation"),
        (helper.make_node("NonZero", ["x"], ["y"]), "no TensorRT-RTX implementation"),
    ],
)
def test_what_runtimes_misread_is_refused(node: Any, said: str) -> None:
    """The exporter refuses what TensorRT-RTX drops, misreads or cannot run, and says what to do instead."""
    with pytest.raises(ValueError, match=said):
        refuse_misread(_model(node))


def test_an_unused_input_is_refused() -> None:
    """An input that no node reads is an error, not a warning."""
    with pytest.raises(ValueError, match=r"unused \['length'\]"):
        refuse_misread(_model(helper.make_node("Relu", ["x"], ["y"]), inputs=("x", "length")))


def test_unknown_flavours_and_precisions_are_refused() -> None:
    """Names outside the table are refused with the table."""
    weights = random_model(SMALL).weights()
    with pytest.raises(ValueError, match="flavour must be one of"):
        export_rift(SMALL, weights, "fast")
    with pytest.raises(ValueError, match="precision must be one of"):
        export_rift(SMALL, weights, "kvu", "fp8")


def test_the_sidecar_tells_the_graph_truly(tmp_path: Path) -> None:
    """Names, shapes, dtypes and aliases in the sidecar are those of the graph file, and survive the round trip."""
    graph, spec = export_rift(SMALL, random_model(SMALL).weights())
    save_graph(tmp_path / "rift.onnx", graph, spec)
    loaded, again = load_graph(tmp_path / "rift.onnx")
    assert (loaded, again) == (graph, spec)
    model = onnx.load_from_string(graph)
    assert [i.name for i in model.graph.input] == [t.name for t in spec.inputs]
    assert [o.name for o in model.graph.output] == [t.name for t in spec.outputs]
    assert spec.aliases == {f"n_{n}{i}": f"{n}{i}" for i in range(2) for n in ("K", "V", "MK", "MV", "D")}
    assert spec.inputs[0].concrete(3) == (3, SMALL.tracks, SMALL.token_dim)
    assert not list(tmp_path.glob(".*"))


def test_a_foreign_or_broken_sidecar_is_refused(tmp_path: Path) -> None:
    """A sidecar of another graph, of another schema, or no JSON at all is refused with the file's name."""
    graph, spec = export_rift(SMALL, random_model(SMALL).weights())
    path = tmp_path / "rift.onnx"
    save_graph(path, graph, replace(spec, sha256="0" * 64))
    with pytest.raises(EngineFault, match="does not belong to its sidecar"):
        load_graph(path)
    for text in ("{", "[]", json.dumps({"schema": "other"}), spec.to_json().replace('"window"', '"windows"')):
        with pytest.raises(EngineFault, match=r"x\.json: not a temporal sidecar"):
            spec_from_json(text, "x.json")
    sidecar_path(path).unlink()
    with pytest.raises(EngineFault, match=r"rift\.json: cannot be read"):
        load_graph(path)


def test_a_graph_that_is_none_is_refused() -> None:
    """Bytes that are no ONNX graph are refused by an EngineFault, not by the backend's own error."""
    _, spec = export_rift(SMALL, random_model(SMALL).weights())
    with pytest.raises(EngineFault, match="onnxruntime refused"):
        RingSession(b"not a graph", spec, 1)


def test_the_state_key_changes_with_model_and_precision() -> None:
    """State of another model or precision has another key; the same export has the same."""
    a, b = random_model(SMALL), random_model(SMALL, 5)
    keys = [
        export_rift(SMALL, m.weights(), "kvu", p)[1].state_key()
        for m, p in ((a, "fp32"), (a, "fp32"), (b, "fp32"), (a, "fp16"))
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3

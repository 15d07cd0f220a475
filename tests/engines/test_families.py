"""Foreign detectors: decoding inside the graph equals decoding by hand, and what does not fit is refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vedette.engines.api import LABELS, Batch, EngineFault, Letterbox
from vedette.engines.load import load
from vedette.engines.runtimes.onnxruntime import OrtRuntime
from vedette.engines.zoo import shipped

onnx = pytest.importorskip("onnx", reason="needs the models extra")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from vedette.engines.adapt import adapt  # noqa: E402
from vedette.engines.coco import COCO_CLASSES  # noqa: E402

HW = (64, 96)
POINTS = sum((HW[0] // s) * (HW[1] // s) for s in (8, 16, 32))


def network(
    path: Path,
    outputs: dict[str, np.ndarray],
    hw: tuple[object, object] = HW,
    rank: int = 4,
    opset: int = 13,
    extra: dict[str, np.ndarray] | None = None,
) -> Path:
    """A network that answers constants, whatever it sees: the picture is multiplied by zero and added."""
    nodes = [helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0)]
    weights = [numpy_helper.from_array(np.zeros((), np.float32), "zero")]
    nodes.append(helper.make_node("Mul", ["mean", "zero"], ["nothing"]))
    infos = []
    for name, value in {**outputs, **(extra or {})}.items():
        weights.append(numpy_helper.from_array(value.astype(np.float32), f"{name}.weight"))
        if name in outputs:
            nodes.append(helper.make_node("Add", [f"{name}.weight", "nothing"], [name]))
            infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(value.shape)))
    shape = [1, 3, *hw][:rank] if rank <= 4 else [1, 3, *hw, 1]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "net", [image], infos, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, str(path))
    return path


def batch(n: int, hw: tuple[int, int] = HW) -> Batch:
    boxes = tuple(Letterbox.fit(hw, hw) for _ in range(n))
    pixels = np.full((n, *hw, 3), 77, np.uint8)
    return Batch(pixels, boxes, np.arange(n, dtype=np.int32), np.zeros(n, np.bool_), np.zeros(n))


def answers(path: Path, family: str, labels: list[str] | None = None) -> dict[str, np.ndarray]:
    runtime = OrtRuntime(adapt(path, family, labels), name=path.name, threads=1)
    return runtime.run({"pixels": batch(1).pixels})


def test_yolox_is_decoded_by_grid_stride_and_objectness(tmp_path: Path) -> None:
    """A cell's box is (offset + cell) * stride, exp(size) * stride, and its score objectness times class."""
    raw = np.full((1, POINTS, 7), -9.0)
    raw[..., 4:] = 0
    cell = 8 * 12 + 2 * 6 + 4  # stride 16: row 2, column 4
    raw[0, cell] = [0.25, 0.5, np.log(2), np.log(1), 0.5, 0.2, 0.8]
    out = answers(network(tmp_path / "x.onnx", {"output": raw}), "yolox", ["cat", "person"])
    assert out["scores"][0, 0] == pytest.approx(0.4)
    assert out["labels"][0, 0] == 1
    x, y = (4 + 0.25) * 16, (2 + 0.5) * 16
    want = np.array([x - 16, y - 8, x + 16, y + 8]) / [96, 64, 96, 64]
    assert np.allclose(out["boxes"][0, 0], want, atol=1e-6)


def test_nanodet_is_decoded_by_expected_distances(tmp_path: Path) -> None:
    """Distances are softmax expectations in strides from the NanoDet grid point, scores are taken as they are."""
    r = np.random.default_rng(0)
    outputs, boxes, scores = {}, [], []
    for s in (8, 16, 32):
        h, w = HW[0] // s, HW[1] // s
        cls, dis = r.uniform(0, 0.2, (1, h * w, 3)), r.normal(0, 2, (1, h * w, 32))
        outputs[f"cls_pred_stride_{s}"], outputs[f"dis_pred_stride_{s}"] = cls, dis
        for i in range(h * w):
            d = dis[0, i].reshape(4, 8)
            e = np.exp(d) / np.exp(d).sum(1, keepdims=True)
            far = (e * np.arange(8)).sum(1) * s
            px, py = i % w * s + (s - 1) / 2, i // w * s + (s - 1) / 2
            boxes.append([px - far[0], py - far[1], px + far[2], py + far[3]])
            scores.append(cls[0, i])
    out = answers(network(tmp_path / "n.onnx", outputs), "nanodet", ["a", "b", "c"])
    order = np.argsort(-np.max(scores, 1), kind="stable")
    want = np.clip(np.array(boxes)[order] / [96, 64, 96, 64], 0, 1)
    assert np.allclose(out["scores"][0], np.max(scores, 1)[order], atol=1e-6)
    assert np.array_equal(out["labels"][0], np.argmax(scores, 1)[order])
    assert np.allclose(out["boxes"][0], want, atol=1e-5)


def test_detr_is_decoded_from_centres_and_logits(tmp_path: Path) -> None:
    """Boxes come as centre and size in 0..1, scores as the sigmoid of the logits."""
    logits, boxes = np.full((1, 5, 3), -6.0), np.tile([0.5, 0.5, 0.2, 0.4], (1, 5, 1))
    logits[0, 3, 2] = 1.0
    boxes[0, 3] = [0.3, 0.6, 0.2, 0.4]
    path = network(tmp_path / "d.onnx", {"logits": logits, "pred_boxes": boxes})
    out = answers(path, "detr", ["a", "b", "person"])
    assert out["scores"][0, 0] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)
    assert out["labels"][0, 0] == 2
    assert np.allclose(out["boxes"][0, 0], [0.2, 0.4, 0.4, 0.8], atol=1e-6)


def test_yolo_end_to_end_rows_are_taken_as_they_are(tmp_path: Path) -> None:
    """Rows of corners in px, score and class need only normalising."""
    rows = np.zeros((1, 4, 6))
    rows[0, 2] = [24, 16, 48, 32, 0.9, 1]
    out = answers(network(tmp_path / "e.onnx", {"output0": rows}), "yolo-e2e", ["a", "person"])
    assert out["scores"][0, 0] == pytest.approx(0.9)
    assert out["labels"][0, 0] == 1
    assert np.allclose(out["boxes"][0, 0], [0.25, 0.25, 0.5, 0.5], atol=1e-6)


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_a_coco_network_speaks_our_labels(tmp_path: Path, opset: int) -> None:
    """80 classes without labels become our eight, whatever the opset: any animal is an animal, a train is nothing."""
    raw = np.zeros((1, POINTS, 85))
    raw[0, :, 4] = 1.0
    raw[0, 0, 5 + 17] = 0.9  # horse
    raw[0, 1, 5 + 28] = 0.8  # suitcase
    raw[0, 2, 5 + 6] = 0.99  # train
    path = network(tmp_path / "coco.onnx", {"output": raw}, opset=opset)
    out = answers(path, "yolox")
    assert [LABELS[i] for i in out["labels"][0, :2]] == ["animal", "bag"]
    assert out["scores"][0, :3] == pytest.approx([0.9, 0.8, 0.0], abs=1e-6)
    assert sorted(COCO_CLASSES) == sorted(LABELS)


def test_a_foreign_network_is_an_engine(tmp_path: Path) -> None:
    """`load` with a family gives an Engine: fixed canvas, own labels, no embedding, batches of any size."""
    raw = np.zeros((1, POINTS, 7))
    raw[0, 40] = [0.5, 0.5, 1.0, 1.0, 1.0, 0.7, 0.1]
    engine = load(str(network(tmp_path / "mine.onnx", {"output": raw})), family="yolox", labels=["person", "forklift"])
    assert engine.spec.input_hw == HW
    assert engine.spec.labels == ("person", "forklift")
    assert engine.spec.embedding_dim is None
    seen = engine.infer(batch(3))
    assert seen.scene is None
    assert [len(d) for d in seen.detections] == [1, 1, 1]
    assert seen.detections[2].score[0] == pytest.approx(0.7)
    assert seen.detections[0].embedding is None


@pytest.mark.parametrize(
    ("family", "outputs", "labels", "said"),
    [
        ("yolox", {"o": np.zeros((1, 99, 85))}, None, r"yolox at 96x64 answers one output \[B,126,5\+classes\]"),
        ("yolox", {"o": np.zeros((1, POINTS, 9))}, None, r"it has 4 classes; give engine.labels"),
        ("yolox", {"o": np.zeros((1, POINTS, 9))}, ["a"], r"needs one name a class \(4\), got 1"),
        ("nanodet", {"a": np.zeros((1, 9, 9)), "b": np.zeros((1, 9, 9))}, None, r"nanodet at 96x64 answers"),
        ("detr", {"o": np.zeros((1, 9, 9))}, None, r"detr answers class logits"),
        ("yolo-e2e", {"o": np.zeros((1, 9, 9))}, None, r"yolo-e2e answers one output"),
        ("yolo-e2e", {"o": np.zeros((1, POINTS, 6))}, ["a"], r"yolo-e2e answers one output .*its best M alone"),
        ("yolo-e2e", {"o": np.full((1, 9, 6), 3.0)}, ["a"], r"needs a name for every class, at least 2, got 1"),
        (
            "detr",
            {"a": np.zeros((1, 9)), "b": np.zeros((1, 9, 4)), "c": np.zeros((1, 9))},
            None,
            r"a decoded detr answers",
        ),
        ("detr-softmax", {"a": np.zeros((1, 9, 4)), "b": np.zeros((1, 9, 4))}, None, r"detr answers class logits"),
        ("yolov99", {"o": np.zeros((1, 9, 9))}, None, r"engine.family: needs one of .*got 'yolov99'"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, family: str, outputs: dict, labels: list | None, said: str
) -> None:
    """A wrong family, shape or label count is a sentence that names the file, what was found and what was expected."""
    path = network(tmp_path / "odd.onnx", outputs)
    with pytest.raises(EngineFault, match=said) as fault:
        load(str(path), family=family, labels=labels)
    assert family == "yolov99" or "odd.onnx" in str(fault.value)


def test_a_wrong_input_rank_or_size_is_refused(tmp_path: Path) -> None:
    """A network that takes no picture, and a canvas that a fixed network cannot take, are named."""
    raw = {"output": np.zeros((1, POINTS, 85))}
    with pytest.raises(EngineFault, match=r"sound\.onnx: a detector has one image input \[B,3,H,W\], got"):
        load(str(network(tmp_path / "sound.onnx", raw, rank=3)), family="yolox")
    with pytest.raises(EngineFault, match=r"canvas is fixed at 96x64, got engine.size '416x256'"):
        load(str(network(tmp_path / "fix.onnx", raw)), family="yolox", size="416x256")


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT64])
def test_a_network_that_takes_whole_numbers_is_refused(tmp_path: Path, kind: int) -> None:
    """It prepares its picture itself, in a way nobody has told us; the sentence names its type."""
    model = onnx.load(str(network(tmp_path / "whole.onnx", {"output": np.zeros((1, POINTS, 85))})))
    model.graph.input[0].type.tensor_type.elem_type = kind
    onnx.save(model, str(tmp_path / "whole.onnx"))
    with pytest.raises(
        EngineFault, match=r"whole\.onnx: a detector takes its picture as float32 or float16, got (UINT8|INT64)"
    ):
        load(str(tmp_path / "whole.onnx"), family="yolox")


def test_weights_may_lie_beside_the_file(tmp_path: Path) -> None:
    """Exports with external data are read whole; without the other file the sentence says what to do."""
    raw = np.zeros((1, POINTS, 85))
    raw[0, 40, 4:6] = 0.9
    path, beside = network(tmp_path / "two.onnx", {"output": raw}), tmp_path / "two.onnx.data"
    onnx.save(onnx.load(str(path)), str(path), save_as_external_data=True, location=beside.name, size_threshold=0)
    assert answers(path, "yolox")["scores"][0, 0] == pytest.approx(0.81)
    beside.unlink()
    with pytest.raises(
        EngineFault, match=r"two\.onnx: its weights lie in another file: .*two\.onnx\.data.*external_data=False"
    ):
        load(str(path), family="yolox")


def test_a_flipped_bit_ends_in_a_sentence(tmp_path: Path) -> None:
    """Whatever bit of a file is wrong, it is an engine or an EngineFault with the file's name, never another error."""
    whole = network(tmp_path / "whole.onnx", {"output": np.zeros((1, POINTS, 85))}, opset=11).read_bytes()
    r, path, refused = np.random.default_rng(0), tmp_path / "flipped.onnx", []
    head = [*range(120), *range(len(whole) - 120, len(whole))]
    for at in r.choice(head, 40, replace=False).tolist():
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << int(r.integers(8))]) + whole[at + 1 :])
        try:
            load(str(path), family="yolox", threads=1).close()
        except EngineFault as fault:
            refused.append(str(fault))
    assert len(refused) > 10
    assert all("flipped.onnx: " in sentence for sentence in refused)


def test_a_fixed_batch_is_filled(tmp_path: Path) -> None:
    """A network that takes three pictures, no more and no fewer, answers one, three and five."""
    raw = np.zeros((3, POINTS, 7))
    raw[:, 40] = [0.5, 0.5, 1.0, 1.0, 1.0, 0.7, 0.1]
    path = network(tmp_path / "three.onnx", {"output": raw})
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, str(path))
    engine = load(str(path), family="yolox", labels=["person", "forklift"])
    for n in (1, 3, 5):
        assert [len(d) for d in engine.infer(batch(n)).detections] == [1] * n


def test_every_family_can_be_configured() -> None:
    """What the configuration accepts is what can be decoded."""
    from vedette.engines.families import FAMILIES
    from vedette.streamer.config.schema import EngineSection

    for family in FAMILIES:
        assert EngineSection(detector="mine.onnx", family=family, labels=["person"]).family == family


def test_a_foreign_graph_without_family_is_refused(tmp_path: Path) -> None:
    """Without a family a foreign graph is not guessed at: the error names the way."""
    path = network(tmp_path / "plain.onnx", {"output": np.zeros((1, POINTS, 85))})
    with pytest.raises(EngineFault, match=r"plain\.onnx: .*family"):
        load(str(path))


@pytest.mark.parametrize("weight", ["stem.0.weight", "heads.1.out.weight", "embed.project.weight"])
def test_nan_in_a_graph_of_ours_is_found_when_it_is_loaded(tmp_path: Path, weight: str) -> None:
    """Wherever it stands, the sentence names the file and NaN."""
    model = onnx.load(str(shipped()[-1]))
    tensor = next(t for t in model.graph.initializer if t.name == weight)
    value = numpy_helper.to_array(tensor).copy()
    value.reshape(-1)[70] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(value, weight))
    onnx.save(model, str(tmp_path / "rotten.onnx"))
    with pytest.raises(EngineFault, match=r"rotten\.onnx: .*NaN"):
        load(str(tmp_path / "rotten.onnx"), threads=1)


def test_nan_weights_are_found_before_they_run(tmp_path: Path) -> None:
    """A NaN anywhere in the weights is named with its tensor."""
    bad = np.zeros(7)
    bad[3] = np.nan
    path = network(tmp_path / "nan.onnx", {"output": np.zeros((1, POINTS, 85))}, extra={"conv": bad})
    with pytest.raises(EngineFault, match=r"nan\.onnx: weight conv\.weight holds NaN"):
        load(str(path), family="yolox")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "got 0 bytes"),
        (b"\x08\x07" * 10, "got 20 bytes"),
        (b"<html>404</html>" * 20, "not an ONNX file"),
    ],
)
def test_files_that_are_no_models_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    """Empty, tiny and foreign files are refused by name, with and without a family."""
    path = tmp_path / "junk.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineFault, match=rf"junk\.onnx: .*{said}"):
        load(str(path), family="yolox")
    with pytest.raises(EngineFault, match=r"junk\.onnx: "):
        load(str(path))


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    """A path that is not there says so."""
    with pytest.raises(EngineFault, match=r"none\.onnx: the model cannot be read: No such file"):
        load(str(tmp_path / "none.onnx"))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    """Half a model never becomes an engine, whichever half is missing."""
    whole = network(tmp_path / "whole.onnx", {"output": np.zeros((1, POINTS, 85))}).read_bytes()
    for cut in (100, len(whole) // 2, len(whole) - 40):
        path = tmp_path / f"cut{cut}.onnx"
        path.write_bytes(whole[:cut])
        with pytest.raises(EngineFault, match=rf"cut{cut}\.onnx"):
            load(str(path), family="yolox")


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "family", "labels", "size"),
    [
        ("yolox_nano_416", "yolox", None, None),
        ("light_person_192", "yolox", ["person"], None),
        ("nanodet_m_416", "nanodet", None, None),
        ("nanodet_g_coco", "nanodet", None, "640x384"),
    ],
)
def test_a_published_detector_finds_people(
    data_dir: Path, file: str, family: str, labels: list[str] | None, size: str | None
) -> None:
    """A real network of each raw family, imported as it is published, finds the people of a real street."""
    import cv2

    model = data_dir.parent / "models" / f"{file}.onnx"
    if not model.is_file():
        pytest.skip(f"needs {model}")
    engine = load(str(model), family=family, labels=labels, size=size)
    capture = cv2.VideoCapture(str(data_dir / "clips" / "vtest.avi"))
    ok, picture = capture.read()
    capture.release()
    assert ok
    box = Letterbox.fit(picture.shape[:2], engine.spec.input_hw)
    h, w = box.inner_hw
    canvas = np.zeros((1, *engine.spec.input_hw, 3), np.uint8)
    canvas[0, box.pad_y : box.pad_y + h, box.pad_x : box.pad_x + w] = cv2.resize(picture, (w, h))
    one = Batch(canvas, (box,), np.zeros(1, np.int32), np.zeros(1, np.bool_), np.zeros(1))
    found = engine.infer(one).detections[0]
    assert ((found.label == 0) & (found.score > 0.35)).sum() >= 4

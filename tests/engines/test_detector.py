"""The shipped detector through `load`, on real pictures and on bad input."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vedette.engines.api import LABELS, Batch, EngineFault, Letterbox
from vedette.engines.load import load


def batch_of(pictures: list[np.ndarray], canvas_hw: tuple[int, int]) -> Batch:
    boxes, canvases = [], []
    for picture in pictures:
        box = Letterbox.fit(picture.shape[:2], canvas_hw)
        h, w = box.inner_hw
        canvas = np.zeros((*canvas_hw, 3), np.uint8)
        canvas[box.pad_y : box.pad_y + h, box.pad_x : box.pad_x + w] = cv2.resize(
            picture, (w, h), interpolation=cv2.INTER_AREA
        )
        boxes.append(box)
        canvases.append(canvas)
    n = len(pictures)
    pixels = np.stack(canvases) if n else np.zeros((0, *canvas_hw, 3), np.uint8)
    return Batch(pixels, tuple(boxes), np.arange(n, dtype=np.int32), np.zeros(n, np.bool_), np.zeros(n))


@pytest.fixture(scope="module")
def engine():
    made = load("vedette-nano", threads=1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def street(data_dir: Path) -> np.ndarray:
    capture = cv2.VideoCapture(str(data_dir / "clips" / "vtest.avi"))
    for _ in range(100):
        ok, picture = capture.read()
        assert ok
    capture.release()
    return picture


def test_spec_says_what_a_caller_needs(engine) -> None:
    """The spec names canvas, labels, embedding size, backend and the hash of the file."""
    spec = engine.spec
    assert (spec.input_hw, spec.labels, spec.embedding_dim) == ((256, 416), LABELS, 64)
    assert spec.backend == "onnxruntime"
    assert len(spec.sha256) == 64
    assert spec.reason


@pytest.mark.data
def test_people_of_a_real_street_are_found(engine, street) -> None:
    """On a campus picture most of the people that anyone would count are found, in the right places."""
    found = engine.infer(batch_of([street], (256, 416))).detections[0]
    people = found[(found.label == 0) & (found.score > 0.3)]
    centres = (people.xyxy[:, :2] + people.xyxy[:, 2:]) / 2 * [768, 576]
    for x, y in ((232, 77), (357, 237), (394, 216), (502, 187), (527, 187), (601, 197)):
        assert np.abs(centres - [x, y]).max(1).min() < 15, f"nobody found near {x},{y}"
    assert np.allclose(np.linalg.norm(found.embedding, axis=1), 1, atol=1e-3)
    assert (np.diff(found.score) <= 0).all()


@pytest.mark.data
def test_a_picture_means_the_same_in_any_batch(engine, street) -> None:
    """Boxes and scores do not depend on which other pictures share the batch."""
    alone = engine.infer(batch_of([street], (256, 416)))
    third = engine.infer(batch_of([street[:, ::-1], street[::2, ::2], street], (256, 416)))
    a, b = alone.detections[0], third.detections[2]
    assert len(a) == len(b)
    assert np.allclose(a.xyxy, b.xyxy, atol=1e-4)
    assert np.allclose(a.embedding, b.embedding, atol=1e-3)
    assert np.allclose(alone.scene[0], third.scene[2], atol=1e-3)


@pytest.mark.data
@pytest.mark.parametrize(("size", "hw"), [("fast", (192, 320)), ("quality", (384, 640)), ("320x320", (320, 320))])
def test_other_canvases_see_the_same_street(street, size: str, hw: tuple[int, int]) -> None:
    """Every canvas size runs on the same file and finds the nearest people."""
    engine = load("vedette-nano", size=size, threads=1)
    assert engine.spec.input_hw == hw
    found = engine.infer(batch_of([street], hw)).detections[0]
    assert ((found.label == 0) & (found.score > 0.3)).sum() >= 4
    engine.close()


def test_a_black_picture_is_empty_and_an_empty_batch_is_fine(engine) -> None:
    """Nothing is seen in the dark with any confidence, and no pictures give no answers."""
    dark = engine.infer(batch_of([np.zeros((256, 416, 3), np.uint8)], (256, 416)))
    assert (dark.detections[0].score < 0.3).all()
    assert engine.infer(batch_of([], (256, 416))).detections == ()


def test_a_wrong_canvas_is_refused(engine) -> None:
    """Pixels of another size are an EngineFault that names both sizes."""
    with pytest.raises(EngineFault, match=r"needs pictures of 416x256, got 320x192"):
        engine.infer(batch_of([np.zeros((9, 9, 3), np.uint8)], (192, 320)))


@pytest.mark.parametrize(
    ("size", "said"),
    [("416", "WIDTHxHEIGHT"), ("416x250", "multiples of 32"), ("0x0", "multiples of 32"), ("big", "WIDTHxHEIGHT")],
)
def test_a_wrong_size_is_refused(size: str, said: str) -> None:
    """A canvas the network cannot take is refused with the rule."""
    with pytest.raises(EngineFault, match=said):
        load("vedette-nano", size=size)


def test_an_unknown_name_lists_what_there_is() -> None:
    """A misspelt model name is answered with the names that exist."""
    with pytest.raises(EngineFault, match=r"'vedette-nono'.*vedette-nano"):
        load("vedette-nono")


def test_an_unknown_backend_lists_what_there_is() -> None:
    """A backend we do not have is answered with those we know."""
    with pytest.raises(EngineFault, match=r"auto.*onnxruntime.*got 'abacus'"):
        load("vedette-nano", backend="abacus")


def test_a_closed_engine_says_so() -> None:
    """Inference after close is an EngineFault, not a crash."""
    engine = load("vedette-nano", threads=1)
    engine.close()
    with pytest.raises(EngineFault, match="closed"):
        engine.infer(batch_of([np.zeros((256, 416, 3), np.uint8)], (256, 416)))

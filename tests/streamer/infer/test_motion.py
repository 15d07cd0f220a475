"""Motion tokens: zero when nothing moves, the same at any frame rate, nobody else's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vedette.engines.api import Batch, Detections, Letterbox, Perception
from vedette.streamer.infer.motion import CARRIER, NUMBERS, TOKEN_WIDTH, MotionEye, covered, small_grey

HW = (256, 416)
BOX = Letterbox.fit((256, 416), HW)
#: Where the speed of people, and the cells that move, stand among the numbers.
SPEED, CELLS = 9, 27


@pytest.fixture(scope="module")
def scenery() -> np.ndarray:
    r = np.random.default_rng(1)
    return cv2.resize(r.integers(0, 255, (64, 104, 3), np.uint8), HW[::-1], interpolation=cv2.INTER_CUBIC)


def walker(scenery: np.ndarray, x: float) -> tuple[np.ndarray, Detections]:
    """Somebody of 40x120 px at x on the scenery."""
    picture, r = scenery.copy(), np.random.default_rng(2)
    look = cv2.resize(r.integers(0, 255, (15, 5, 3), np.uint8), (40, 120), interpolation=cv2.INTER_LINEAR)
    left = round(x)
    picture[100:220, left : left + 40] = look
    box = np.array([[left / 416, 100 / 256, (left + 40) / 416, 220 / 256]], np.float32)
    return picture, Detections(box, np.array([0.9], np.float32), np.zeros(1, np.int32))


def test_a_still_picture_has_no_motion(scenery: np.ndarray) -> None:
    """The same picture again: every speed and every changed cell is nought; the wave says it is a motion token."""
    eye = MotionEye()
    picture, found = walker(scenery, 100)
    eye.token(0, picture, BOX, found, 0.0, fresh=True)
    token = eye.token(0, picture, BOX, found, 0.1)
    assert not token[SPEED:NUMBERS].any()
    assert token[NUMBERS] == pytest.approx(416 / 256, rel=0.02)
    assert (np.abs(token[NUMBERS + 1 :]) == CARRIER).all()


def test_who_moves_is_seen_moving_where_a_moving_camera_is_not(scenery: np.ndarray) -> None:
    """A walker has speed; the whole picture shifted by as much has far less."""
    eye = MotionEye()
    for k in range(3):
        token = eye.token(0, *(walker(scenery, 100 + 8 * k)[0], BOX), walker(scenery, 100 + 8 * k)[1], 0.1 * k)
    assert token[SPEED] > 0.2
    pan = MotionEye()
    for k in range(3):
        shifted = np.roll(walker(scenery, 100)[0], 8 * k, axis=1)
        panned = pan.token(0, shifted, BOX, walker(scenery, 100 + 8 * k)[1], 0.1 * k)
    assert panned[SPEED] < 0.5 * token[SPEED]


def test_pictures_in_between_repeat_the_token(scenery: np.ndarray) -> None:
    """At 30 a second every third picture is measured, and the tokens are those of 10 a second."""
    slow, fast = MotionEye(), MotionEye()
    for k in range(9):
        picture, found = walker(scenery, 100 + 2 * k)
        token = fast.token(0, picture, BOX, found, k / 30)
        if k % 3 == 0:
            expected = slow.token(0, picture, BOX, found, k / 30)
        np.testing.assert_array_equal(token, expected)


def test_only_the_parts_that_somebody_moves_in_have_something_to_lose(scenery: np.ndarray) -> None:
    """Without the part the walker is in he is slower; parts at the other end change nothing, and asking leaves no trace."""
    eye = MotionEye()
    for k in range(3):
        picture, found = walker(scenery, 100 + 8 * k)
        token = eye.token(0, picture, BOX, found, 0.1 * k)
    assert eye.fields([7]) == [None]
    (field,) = eye.fields([0])
    assert field is not None
    np.testing.assert_array_equal(field.numbers(), token[:NUMBERS])
    lost = {(row, column): field.numbers()[SPEED] - numbers[SPEED] for row, column, numbers in field.numbers_without()}
    # the walker stands at x .24 to .38 and y .4 to .86: columns 3 and 4, rows 3 to 6
    assert max(lost, key=lambda part: lost[part]) in {(row, column) for row in range(3, 7) for column in (3, 4)}
    assert all(value == 0 for (_, column), value in lost.items() if column > 7)
    np.testing.assert_array_equal(field.numbers(), token[:NUMBERS])


def test_a_reset_or_a_gap_says_nothing(scenery: np.ndarray) -> None:
    """After a new epoch, or half a second of silence, there is nothing to compare with."""
    for second, fresh in ((0.1, True), (2.0, False)):
        eye = MotionEye()
        eye.token(0, *(walker(scenery, 100)[0], BOX), walker(scenery, 100)[1], 0.0)
        picture, found = walker(scenery, 130)
        assert not eye.token(0, picture, BOX, found, second, fresh=fresh)[:NUMBERS].any()


def test_cameras_do_not_mix_and_scene_tokens_come_first(scenery: np.ndarray) -> None:
    """Two cameras of one batch; the motion token stands after the detector's own."""
    eye, still = MotionEye(), walker(scenery, 100)
    scene = np.ones((2, 49, TOKEN_WIDTH), np.float32)
    for k in range(2):
        moving = walker(scenery, 100 + 10 * k)
        batch = Batch(
            np.stack([still[0], moving[0]]),
            (BOX, BOX),
            np.array([0, 1], np.int32),
            np.zeros(2, np.bool_),
            np.full(2, 0.1 * k),
        )
        out = eye.scene(batch, Perception((still[1], moving[1]), scene))
    assert out.shape == (2, 50, TOKEN_WIDTH)
    assert (out[:, :49] == 1).all()
    assert not out[0, -1, SPEED:NUMBERS].any()
    assert out[1, -1, SPEED] > 0
    assert eye.scene(batch, Perception((still[1], moving[1]), None)).shape == (2, 1, TOKEN_WIDTH)


def test_only_what_the_picture_covers_is_looked_at() -> None:
    """The black border of a letterbox is cut away."""
    box = Letterbox.fit((240, 320), HW)
    grey = covered(small_grey(np.zeros((*HW, 3), np.uint8)), box)
    assert grey.shape == (128, round(341 / 2))

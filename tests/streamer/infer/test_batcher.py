"""Leases to batches: every credit goes back, every camera keeps its slot, every epoch resets."""

from __future__ import annotations

import numpy as np
import pytest

from vedette.streamer.bus.mailbox import Lease, Slot
from vedette.streamer.infer.batcher import Batcher
from vedette.streamer.wire import FrameHeader

HW = (64, 96)


class Bank:
    """Makes leases and remembers which came back."""

    def __init__(self) -> None:
        self.back: list[Slot] = []

    def lease(self, camera: str, seq: int, *, epoch: int = 1, hw: tuple[int, int] = HW, value: int = 7) -> Lease:
        h, w = hw
        header = FrameHeader(
            camera=camera, incarnation="i", epoch=epoch, seq=seq, mono_ns=seq, source_s=seq / 10, wall_s=0.0,
            height=h, width=w, letterbox=(192, 128, 0.5, 0, 0), boot="b", ring="r", slot=seq % 5,
        )  # fmt: skip
        return Lease(header, np.full((h, w, 3), value, np.uint8), self.back.append)


def test_pictures_lie_side_by_side_with_what_they_are() -> None:
    """Pixels, letterboxes, times and moments are in the order of the leases, and every credit is back."""
    bank = Bank()
    batch, moments, headers = Batcher(HW, 4).batch([bank.lease("a", 3, value=1), bank.lease("b", 4, value=2)])
    assert batch.pixels[:, 0, 0, 0].tolist() == [1, 2]
    assert batch.time_s.tolist() == pytest.approx([0.3, 0.4])
    assert [m.camera for m in moments] == ["a", "b"] == [h.camera for h in headers]
    assert moments[0].aspect == pytest.approx(1.5)
    assert len(bank.back) == 2


def test_a_camera_keeps_its_slot_and_resets_once_an_epoch() -> None:
    """The first picture of an epoch resets the slot, the next ones do not, and a dropped one does not either."""
    bank, batcher = Bank(), Batcher(HW, 4)
    told = []
    for camera, epoch, seq in [("a", 1, 0), ("b", 1, 0), ("a", 1, 1), ("b", 1, 5), ("a", 2, 0), ("a", 2, 1)]:
        batch, _, _ = batcher.batch([bank.lease(camera, seq, epoch=epoch)])
        told.append((int(batch.slots[0]), bool(batch.reset[0])))
    assert told == [(0, True), (1, True), (0, False), (1, False), (0, True), (0, False)]


def test_a_slot_that_changes_hands_is_reset() -> None:
    """A camera that is forgotten frees its slot; the next owner starts with a reset, and so does a returning one."""
    bank, batcher = Bank(), Batcher(HW, 4)
    batcher.batch([bank.lease("a", 0), bank.lease("b", 0)])
    batcher.forget("a")
    batch, _, _ = batcher.batch([bank.lease("c", 0), bank.lease("b", 1)])
    assert batch.slots.tolist() == [0, 1]
    assert batch.reset.tolist() == [True, False]
    batch, _, _ = batcher.batch([bank.lease("a", 1)])
    assert (batch.slots.tolist(), batch.reset.tolist()) == ([2], [True])


def test_unusable_pictures_are_counted_and_their_credit_returns() -> None:
    """A wrong size, a repeated picture and one of an older connection never reach the engine."""
    bank, batcher = Bank(), Batcher(HW, 4)
    batcher.batch([bank.lease("a", 5, epoch=2)])
    for lease in (bank.lease("a", 6, epoch=2, hw=(32, 32)), bank.lease("a", 5, epoch=2), bank.lease("a", 9, epoch=1)):
        batch, moments, _ = batcher.batch([lease])
        assert len(batch) == len(moments) == 0
    assert dict(batcher.dropped) == {("a", "wrong_size"): 1, ("a", "out_of_order"): 2}
    assert len(bank.back) == 4

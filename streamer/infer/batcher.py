"""Leases become a `Batch`: one slot of the engine's memory a camera, a reset where a new epoch begins."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import Batch
from vedette.streamer.bus.mailbox import Lease
from vedette.streamer.infer.incidents import Moment
from vedette.streamer.wire import FrameHeader

log = logging.getLogger("vedette.batcher")


class Batcher:
    """Copies pictures side by side and gives their credits back at once.

    input_hw: the engine's canvas. most: pictures in one call. dropped: pictures that could not be used, by (camera,
    reason): ``wrong_size`` (the engine was changed and this picture is for the old one), ``out_of_order``.
    """

    def __init__(self, input_hw: tuple[int, int], most: int) -> None:
        self.most = most
        self.dropped: Counter[tuple[str, str]] = Counter()
        self._pixels: NDArray[np.uint8] = np.zeros((most, *input_hw, 3), np.uint8)
        self._slots: dict[str, int] = {}
        self._last: dict[str, tuple[int, int]] = {}

    def batch(self, leases: Sequence[Lease]) -> tuple[Batch, list[Moment], list[FrameHeader]]:
        """The usable pictures of at most ``most`` leases as a Batch, which is valid until the next call, and what
        each of them is. Every lease is released."""
        headers: list[FrameHeader] = []
        resets: list[bool] = []
        for lease in leases:
            header = lease.header
            try:
                reason = self._unfit(header)
                if reason is not None:
                    self.dropped[header.camera, reason] += 1
                    continue
                self._pixels[len(headers)] = lease.pixels
            finally:
                lease.release()
            resets.append(self._last.get(header.camera, (-1, 0))[0] != header.epoch)
            self._last[header.camera] = header.epoch, header.seq
            headers.append(header)
        batch = Batch(
            self._pixels[: len(headers)],
            tuple(header.to_letterbox() for header in headers),
            np.array([self._slot(header.camera) for header in headers], np.int32),
            np.array(resets, np.bool_),
            np.array([header.source_s for header in headers], np.float64),
        )
        return batch, [moment_of(header) for header in headers], headers

    def forget(self, camera: str) -> None:
        """The camera was removed: its slot is free for the next one."""
        self._slots.pop(camera, None)
        self._last.pop(camera, None)

    def _unfit(self, header: FrameHeader) -> str | None:
        if (header.height, header.width) != self._pixels.shape[1:3]:
            return "wrong_size"
        epoch, seq = self._last.get(header.camera, (-1, -1))
        # a frame of the last connection that comes after one of the new must not bring the old one back
        return "out_of_order" if (header.epoch, header.seq) <= (epoch, seq) else None

    def _slot(self, camera: str) -> int:
        """The lowest free slot, kept until the camera is forgotten. A slot that changes hands starts with a reset,
        because its new camera has no last epoch."""
        if camera not in self._slots:
            taken = set(self._slots.values())
            self._slots[camera] = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        return self._slots[camera]


def moment_of(header: FrameHeader) -> Moment:
    """When and where a picture was taken."""
    source_w, source_h = header.letterbox[:2]
    return Moment(
        header.camera,
        header.epoch,
        header.seq,
        header.mono_ns,
        header.source_s,
        header.wall_s,
        source_w / source_h,
        header.stats,
    )

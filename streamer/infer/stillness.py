"""An engine that does not look twice at the same picture: where nothing moved, its last answer stands.

What moved is measured against the picture the engine last looked at, not against the one before, so that slow motion
adds up and is seen. An answer is repeated only while nothing is open: no track is new, none is coasting (`settle`),
and for a bounded time, unless the picture is the very same one (a camera that rests sends its last one again). What the repeats cannot do is confirm a ghost or bury somebody whom the engine overlooked once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import Batch, Detections, Engine, EngineSpec, Perception
from vedette.streamer.cells import MOVED_MOST, U8, moved, shrink

#: How long an answer may stand unless configured, seconds; see `SkipStill`.
SKIP_STILL_S = 1.0


@dataclass(slots=True)
class _Look:
    """What the engine saw of a camera when it last looked. settled: nothing was left open by it."""

    cells: U8
    time_s: float
    detections: Detections
    scene: NDArray[np.float32] | None
    settled: bool = False


class SkipStill:
    """``engine`` behind the same interface, which repeats its answer for a picture in which nothing moved.

    most_s: how long one answer stands, seconds of the camera's own clock; 0 asks the engine every time. Raising it
    saves work in still scenes (a camera at 10 pictures a second asks the engine for one in ``10 * most_s``) and delays
    by at most ``most_s`` the sight of what appears without moving more than noise does. looked, skipped: pictures so
    far. The caller tells with `settle` what the trackers made of an answer; untold, nothing is repeated.
    """

    def __init__(self, engine: Engine, most_s: float) -> None:
        self.engine = engine
        self.most_s = most_s
        self.looked = self.skipped = 0
        self._last: dict[int, _Look] = {}

    @property
    def spec(self) -> EngineSpec:
        """The engine's."""
        return self.engine.spec

    def infer(self, batch: Batch) -> Perception:
        """The engine's answer to every picture of the batch, fresh or repeated. Raises EngineFault as it does."""
        if self.most_s <= 0:
            self.looked += len(batch)
            return self.engine.infer(batch)
        cells = [shrink(pixels) for pixels in batch.pixels]
        busy = [i for i in range(len(batch)) if not self._is_still(batch, i, cells[i])]
        if busy:
            fresh = self.engine.infer(batch if len(busy) == len(batch) else rows_of(batch, busy))
            for row, i in enumerate(busy):
                scene = None if fresh.scene is None else fresh.scene[row].copy()
                slot, time_s = int(batch.slots[i]), float(batch.time_s[i])
                self._last[slot] = _Look(cells[i], time_s, fresh.detections[row], scene)
        self.looked += len(busy)
        self.skipped += len(batch) - len(busy)
        looks = [self._last[int(slot)] for slot in batch.slots]
        scenes = [look.scene for look in looks if look.scene is not None]
        scene = np.stack(scenes) if scenes and len(scenes) == len(looks) else None
        return Perception(tuple(look.detections for look in looks), scene)

    def settle(self, slot: int, *, settled: bool) -> None:
        """What the tracker made of the last answer: settled when every track is confirmed and was just seen."""
        look = self._last.get(slot)
        if look is not None:
            look.settled = settled

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()

    def _is_still(self, batch: Batch, i: int, cells: U8) -> bool:
        look = self._last.get(int(batch.slots[i]))
        if look is None or not look.settled or batch.reset[i] or look.cells.shape != cells.shape:
            return False
        age_s = batch.time_s[i] - look.time_s
        if 0 <= age_s < self.most_s - 1e-6:
            return moved(cells, look.cells) <= MOVED_MOST
        return bool(age_s >= 0 and (cells == look.cells).all())


def rows_of(batch: Batch, rows: Sequence[int]) -> Batch:
    """The pictures ``rows`` of a batch."""
    keep = np.array(rows)
    return Batch(
        batch.pixels[keep], tuple(batch.letterboxes[i] for i in rows), batch.slots[keep], batch.reset[keep],
        batch.time_s[keep],
    )  # fmt: skip

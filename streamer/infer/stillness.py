"""An engine that does not look twice at the same picture: where nothing moved, its last answer stands.

What moved is measured against the picture the engine last looked at, not against the one before, so that slow motion
adds up and is seen. An answer is repeated only while nothing is open: no track is new, none is coasting (`settle`),
and for a bounded time, unless the picture is the very same one (a camera that rests sends its last one again). The bound
doubles with every further look that changes nothing. What the repeats cannot do is confirm a ghost or bury somebody whom
the engine overlooked once.
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
#: How long it may stand at most after looks that changed nothing, seconds, or as long as is configured when that is longer.
LONGEST_S = 8.0


@dataclass(slots=True)
class _Look:
    """What the engine saw of a camera when it last looked. stands_s: for how long that may be repeated. settled: nothing
    was left open by it."""

    cells: U8
    time_s: float
    detections: Detections
    scene: NDArray[np.float32] | None
    stands_s: float
    settled: bool = False


class SkipStill:
    """``engine`` behind the same interface, which repeats its answer for a picture in which nothing moved.

    most_s: how long the first answer after a movement stands, seconds of the camera's own clock; 0 asks the engine every
    time. A look that only time has asked for and that leaves nothing open lets the next answer stand twice as long, up to
    `LONGEST_S`. Raising ``most_s`` saves work where something moves now and then, and delays by at most what an answer
    stands the sight of what appears without moving more than noise does. looked, skipped: pictures so far. The caller
    tells with `settle` what the trackers made of an answer; untold, nothing is repeated.
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
        asks = {i: s for i in range(len(batch)) if (s := self._stands_s(batch, i, cells[i])) is not None}
        busy = list(asks)
        if busy:
            fresh = self.engine.infer(batch if len(busy) == len(batch) else rows_of(batch, busy))
            for row, i in enumerate(busy):
                scene = None if fresh.scene is None else fresh.scene[row].copy()
                slot, time_s = int(batch.slots[i]), float(batch.time_s[i])
                self._last[slot] = _Look(cells[i], time_s, fresh.detections[row], scene, asks[i])
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

    def _stands_s(self, batch: Batch, i: int, cells: U8) -> float | None:
        """None when the last answer stands for this picture; else how long the engine's new one may, seconds."""
        look = self._last.get(int(batch.slots[i]))
        if look is None or not look.settled or batch.reset[i] or look.cells.shape != cells.shape:
            return self.most_s
        age_s = batch.time_s[i] - look.time_s
        if not age_s >= 0 or moved(cells, look.cells) > MOVED_MOST:
            return self.most_s
        if age_s < look.stands_s - 1e-6 or bool((cells == look.cells).all()):
            return None
        return min(2 * look.stands_s, max(self.most_s, LONGEST_S))


def rows_of(batch: Batch, rows: Sequence[int]) -> Batch:
    """The pictures ``rows`` of a batch."""
    keep = np.array(rows)
    return Batch(
        batch.pixels[keep], tuple(batch.letterboxes[i] for i in rows), batch.slots[keep], batch.reset[keep],
        batch.time_s[keep],
    )  # fmt: skip

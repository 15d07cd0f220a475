"""When a camera may rest: nothing in its picture has moved for a while, and nobody needs to look closer.

Judged on the pictures that the engine gets, as `vedette.streamer.infer.stillness` judges them. While the reader rests, the last
picture is sent again now and then, so that rules, tracks and subscribers see time pass.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vedette.streamer.cells import MOVED_MOST, moved, shrink
from vedette.streamer.sources.base import Resting

U8 = NDArray[np.uint8]

#: Nothing has moved for so long before the reader may rest, seconds. More saves less and learns better what is usual.
STILL_S = 2.0
#: How often the last picture is sent again, seconds.
AGAIN_S = 0.45


class Rest:
    """The decision for one connection. Time is the source's own, seconds.

    wanted: whether the camera may rest at all. canvas: a copy of the picture that was sent last before it rested.
    """

    def __init__(self, reader: object, *, wanted: bool) -> None:
        self._reader = reader if wanted and isinstance(reader, Resting) else None
        self._cells: U8 | None = None
        self._moved_s = 0.0
        self._again_s = 0.0
        self.canvas: U8 | None = None

    @property
    def fresh(self) -> bool:
        """Whether the last grab made a picture."""
        return self._reader is None or self._reader.fresh

    def saw(self, canvas: U8, time_s: float, *, calm: bool) -> None:
        """A picture u8 [H,W,3] was sent. calm: nothing is in doubt about the pictures before it."""
        if self._reader is None:
            return
        self._again_s = time_s + AGAIN_S
        cells = shrink(canvas)
        if self._cells is None or self._cells.shape != cells.shape or moved(cells, self._cells) > MOVED_MOST:
            self._cells, self._moved_s, self.canvas = cells, time_s, None
            self._reader.rest(False)
        elif not calm:
            self.canvas = None
            self._reader.rest(False)
        elif time_s - self._moved_s >= STILL_S:
            self._reader.rest(True)
            self.canvas = np.array(canvas)

    def again(self, time_s: float, *, calm: bool) -> U8 | None:
        """A packet was kept and not looked at: the last picture, when it is to be sent again."""
        if self._reader is not None and not calm:
            self._reader.rest(False)
        if time_s < self._again_s:
            return None
        self._again_s = time_s + AGAIN_S
        return self.canvas

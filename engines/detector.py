"""A detector graph made an `Engine`: pixels in, detections after NMS out.

The graph, whatever family it came from, answers ``boxes`` [B,K,4] normalised to the canvas, ``scores`` [B,K],
``labels`` i32 [B,K], and may answer ``embeddings`` [B,K,D] and ``scene`` [B,S,E]. Everything model-specific has
happened inside the graph by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import Batch, Detections, EngineFault, EngineSpec, Perception, group_of
from vedette.kernels.nms import nms

#: candidates under this are noise; the tracker makes use of weak ones above it
SCORE_FLOOR = 0.08
#: overlap above which the weaker box of a group goes
NMS_IOU = 0.55
REQUIRED_OUTPUTS = ("boxes", "scores", "labels")


class Runtime(Protocol):
    """What a backend must offer: named arrays in, named arrays out."""

    @property
    def inputs(self) -> Mapping[str, Any]: ...
    @property
    def outputs(self) -> Mapping[str, Any]: ...
    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]: ...
    def close(self) -> None: ...


class Detector:
    """Implements `vedette.engines.api.Engine` over any runtime.

    score_floor: raising it gives fewer weak detections (fewer false ones, more lost tracks). iou: see
    `vedette.kernels.nms.nms`. max_batch: how many pictures the graph takes at once, no more and no fewer, None for any number.
    """

    def __init__(
        self,
        runtime: Runtime,
        spec: EngineSpec,
        *,
        score_floor: float = SCORE_FLOOR,
        iou: float = NMS_IOU,
        max_batch: int | None = None,
    ) -> None:
        missing = [o for o in REQUIRED_OUTPUTS if o not in runtime.outputs]
        if missing or list(runtime.inputs) != ["pixels"]:
            raise EngineFault(
                f"{spec.name}: a detector graph has the input pixels and the outputs {list(REQUIRED_OUTPUTS)}, got "
                f"inputs {list(runtime.inputs)} and outputs {list(runtime.outputs)}; name its `family`, so that "
                "decoding is added"
            )
        self._runtime, self._spec = runtime, spec
        self.score_floor, self.iou, self._max_batch = score_floor, iou, max_batch
        names = [group_of(label) for label in spec.labels]
        self._group = np.array([names.index(n) for n in names], np.int32)

    @property
    def spec(self) -> EngineSpec:
        return self._spec

    def infer(self, batch: Batch) -> Perception:
        """Detections after NMS, best first, for every picture. Raises EngineFault on a wrong canvas or NaN."""
        if batch.pixels.shape[1:3] != self._spec.input_hw:
            raise EngineFault(
                f"{self._spec.name}: needs pictures of {_wh(self._spec.input_hw)}, got {_wh(batch.pixels.shape[1:3])}; "
                "letterbox them to spec.input_hw"
            )
        if len(batch) == 0:
            return Perception(())
        step = self._max_batch or len(batch)
        parts = [self._run(batch.pixels[i : i + step]) for i in range(0, len(batch), step)]
        out = parts[0] if len(parts) == 1 else {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
        self._refuse_nan(out)
        detections = tuple(self._picture(out, i, batch) for i in range(len(batch)))
        return Perception(detections, out.get("scene"))

    def warm_up(self) -> None:
        """One grey picture through the network: damaged weights and wrong labels show now, not in the night."""
        try:
            out = self._run(np.full((1, *self._spec.input_hw, 3), 114, np.uint8))
        except EngineFault as e:
            raise EngineFault(
                f"{e}; so it ends on a plain grey picture: its weights are damaged or hold NaN, check the SHA-256 or export it again"
            ) from e
        self._refuse_nan(out)
        n = 0 if not out["labels"].size else int(out["labels"].max()) + 1
        if n > len(self._spec.labels):
            raise EngineFault(
                f"{self._spec.name}: needs a name for every class, at least {n}, got {len(self._spec.labels)}; "
                "set engine.labels, in the network's order"
            )

    def _run(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """The graph's answers; a graph of a fixed batch gets black pictures beside those that are asked for."""
        n = len(pixels)
        if self._max_batch and n < self._max_batch:
            pixels = np.concatenate([pixels, np.zeros((self._max_batch - n, *pixels.shape[1:]), np.uint8)])
        return {name: value[:n] for name, value in self._runtime.run({"pixels": pixels}).items()}

    def _refuse_nan(self, out: Mapping[str, NDArray[Any]]) -> None:
        for key, value in out.items():
            if value.dtype.kind == "f" and np.isnan(value).any():
                raise EngineFault(
                    f"{self._spec.name}: the network's {key} hold NaN; its weights are damaged or overflow in "
                    f"{self._spec.precision}: check the SHA-256, or run `vedette engine verify`"
                )

    def _picture(self, out: dict[str, NDArray[Any]], i: int, batch: Batch) -> Detections:
        """The detections of picture ``i``, normalised to the full picture."""
        boxes, scores, labels = out["boxes"][i], out["scores"][i], out["labels"][i]
        strong = np.flatnonzero((scores >= self.score_floor) & (labels >= 0) & (labels < len(self._spec.labels)))
        keep = strong[nms(boxes[strong], scores[strong], self._group[labels[strong]], self.iou)]
        xyxy = batch.letterboxes[i].to_source(boxes[keep])
        solid = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])  # a box may lie in the letterbox border
        keep, xyxy = keep[solid], xyxy[solid]
        embedding = out["embeddings"][i][keep].astype(np.float32) if "embeddings" in out else None
        return Detections(xyxy, scores[keep].astype(np.float32), labels[keep].astype(np.int32), embedding)

    def close(self) -> None:
        self._runtime.close()


def _wh(hw: tuple[int, ...]) -> str:
    return f"{hw[1]}x{hw[0]}"

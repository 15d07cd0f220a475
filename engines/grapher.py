"""Nodes are appended to an ONNX graph one operation at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from vedette.engines.api import EngineFault


def opset_of(model: Any) -> int:
    """Version of the standard operators the model was exported for."""
    return max((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)


class Grapher:
    """Appends nodes to a graph; every method returns the name of what it made."""

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.graph, self.name = model, model.graph, name
        self.nodes: list[Any] = []
        #: classes, where only the labels can tell
        self.classes = 80
        self._n = 0

    def const(self, value: Any, dtype: type = np.float32) -> str:
        from onnx import numpy_helper

        self._n += 1
        name = f"vedette_const_{self._n}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        from onnx import helper

        names = [f"vedette_{kind}_{self._n + 1 + i}" for i in range(outputs)]
        self._n += outputs
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def reduce_max(self, x: str, axis: int, keepdims: int) -> str:
        """The largest along an axis; the axis became an input in opset 18."""
        if opset_of(self.model) >= 18:
            return self.op("ReduceMax", x, self.const([axis], np.int64), keepdims=keepdims)
        return self.op("ReduceMax", x, axes=[axis], keepdims=keepdims)

    def cut(self, x: str, start: int, stop: int, axis: int = 2) -> str:
        """x[..., start:stop, ...] along an axis."""
        i = [self.const([v], np.int64) for v in (start, stop, axis)]
        return self.op("Slice", x, *i)

    def fault(self, wanted: str, got: object) -> EngineFault:
        return EngineFault(f"{self.name}: {wanted}, got {got}; is the family right, and is it the publisher's export?")

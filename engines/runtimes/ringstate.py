"""ONNX Runtime over rings: the state stays where it is, a step writes into it, and any run of neighbouring cameras is a view.

State arrays hold every camera's streams, camera after camera, so that cameras a..b are one contiguous block: binding a pointer into the
middle steps just those, with no copy. Graphs whose writes are not specified as in-place answer into scratch
buffers that are copied back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import EngineFault
from vedette.engines.temporal_spec import INVALID, TemporalSpec

Array = NDArray[Any]


def init_state(spec: TemporalSpec, cameras: int) -> dict[str, Array]:
    """Empty memory for that many cameras, by input name: no valid key, no fold."""
    state = {t.name: np.zeros(t.concrete(cameras), t.dtype) for t in spec.state}
    for name, array in state.items():
        if name.startswith("K"):
            array[..., -1] = INVALID
    return state


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One camera's memory. key: the ``TemporalSpec.state_key`` of the graph that wrote it; arrays by the names of its state."""

    key: str
    arrays: Mapping[str, Array]


class RingSession:
    """A temporal graph in ONNX Runtime with the memory of ``cameras`` cameras.

    ``threads`` above 2 pays only for many cameras at once. ``in_place=None`` follows the spec; False always copies (what
    tests compare with).
    """

    backend = "onnxruntime"
    whole = False

    def __init__(
        self, graph: bytes, spec: TemporalSpec, cameras: int, *, threads: int = 1, in_place: bool | None = None
    ) -> None:
        import onnxruntime as ort

        if cameras < 1:
            raise EngineFault(f"RingSession: needs at least one camera, got {cameras}; raise it")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # TensorScatter warns on every step that was not made in place
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as e:
            raise EngineFault(f"RingSession: onnxruntime refused the temporal graph, got {e}; export it again") from e
        self.spec, self.cameras = spec, cameras
        self.in_place = spec.in_place if in_place is None else in_place
        self.state = init_state(spec, cameras)
        carried = {t.name for t in spec.state}
        self._steps = [t for t in spec.inputs if t.name not in carried]
        self._answers = [t for t in spec.outputs if t.name not in spec.aliases]
        self._empty = init_state(spec, 1)
        self._bindings: dict[tuple[int, int], tuple[Any, dict[str, Array], dict[str, Array], dict[str, Array]]] = {}

    def rows(self, name: str, start: int, count: int) -> Array:
        """The view of a state array that belongs to cameras start .. start + count - 1."""
        streams = self.spec.config.streams
        return self.state[name][start * streams : (start + count) * streams]

    def clear(self, camera: int, streams: NDArray[np.bool_] | None = None) -> None:
        """Forget a camera, or only those of its streams that the mask [E] selects; no other stream is touched."""
        for name, empty in self._empty.items():
            view = self.rows(name, camera, 1)
            if streams is None:
                view[...] = empty
            else:
                view[streams] = empty[streams]

    def snapshot(self, camera: int) -> Snapshot:
        """A copy of a camera's memory, to go on from later or in another session of the same graph."""
        return Snapshot(self.spec.state_key(), {t.name: self.rows(t.name, camera, 1).copy() for t in self.spec.state})

    def restore(self, camera: int, memory: Snapshot) -> None:
        """Give a camera the memory of a snapshot; no other camera is touched. EngineFault when another model or precision made it."""
        if memory.key != self.spec.state_key():
            raise EngineFault(
                f"RingSession.restore: state must come from this model at this precision (key {self.spec.state_key()}), "
                f"got key {memory.key}; start the camera anew instead"
            )
        if not 0 <= camera < self.cameras:
            raise EngineFault(f"RingSession.restore: camera must be in 0..{self.cameras - 1}, got {camera}")
        for t in self.spec.state:
            value = memory.arrays.get(t.name)
            if value is None or value.shape != t.concrete(1) or value.dtype != np.dtype(t.dtype):
                got = "nothing" if value is None else f"{value.dtype} {list(value.shape)}"
                raise EngineFault(f"RingSession.restore: {t.name} must be {t.dtype} {list(t.concrete(1))}, got {got}")
        for t in self.spec.state:
            self.rows(t.name, camera, 1)[...] = memory.arrays[t.name]

    def run(self, start: int, count: int, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Step cameras start .. start + count - 1 with feeds of that many cameras; answers are views, valid until the next run."""
        binding, inputs, answers, scratch = self._bound(start, count)
        for name, buffer in inputs.items():
            np.copyto(buffer, feeds[name], casting="same_kind")
        self._session.run_with_iobinding(binding)
        for name, array in scratch.items():
            self.rows(name, start, count)[...] = array
        return answers

    def _bound(self, start: int, count: int) -> tuple[Any, dict[str, Array], dict[str, Array], dict[str, Array]]:
        if not 0 <= start < start + count <= self.cameras:
            raise EngineFault(f"RingSession: cameras {start}..{start + count - 1} of {self.cameras}; open it with more")
        key = (start, count)
        if key not in self._bindings:
            self._bindings[key] = self._bind(start, count)
        return self._bindings[key]

    def _bind(self, start: int, count: int) -> tuple[Any, dict[str, Array], dict[str, Array], dict[str, Array]]:
        inputs = {t.name: np.zeros(t.concrete(count), t.dtype) for t in self._steps}
        answers = {t.name: np.zeros(t.concrete(count), t.dtype) for t in self._answers}
        state = {t.name: self.rows(t.name, start, count) for t in self.spec.state}
        scratch = {} if self.in_place else {name: np.empty_like(view) for name, view in state.items()}
        binding = self._session.io_binding()
        for name, array in (*inputs.items(), *state.items()):
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        targets = answers | {out: scratch.get(name, state[name]) for out, name in self.spec.aliases.items()}
        for name, array in targets.items():
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return binding, inputs, answers, scratch

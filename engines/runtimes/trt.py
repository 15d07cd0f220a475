"""TensorRT for the temporal graph, one file for both flavours (``tensorrt`` and ``tensorrt_rtx`` share their API).

The plan reads and writes the rings where they are: an aliased output is bound to its input's address. All cameras are stepped
in every call, absent ones inertly, so that shapes and addresses never change and one CUDA graph serves for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import EngineFault
from vedette.engines.build import load_tensorrt, logger_of
from vedette.engines.runtimes.cuda import Device, open_device
from vedette.engines.runtimes.ringstate import init_state
from vedette.engines.temporal_spec import TemporalSpec, TensorSpec

Array = NDArray[Any]

#: Everything this file asks of TensorRT; a test holds it, and the stand-in used without a GPU, against the installed bindings.
USED_API: dict[str, tuple[str, ...]] = {
    "Runtime": ("deserialize_cuda_engine",),
    "ICudaEngine": (
        "create_execution_context",
        "get_tensor_name",
        "get_tensor_mode",
        "get_aliased_input_tensor",
        "num_io_tensors",
    ),
    "IExecutionContext": (
        "set_input_shape",
        "set_tensor_address",
        "execute_async_v3",
        "update_device_memory_size_for_shapes",
        "set_device_memory",
    ),
    "ExecutionContextAllocationStrategy": ("USER_MANAGED",),
    "TensorIOMode": ("INPUT", "OUTPUT"),
    "ILogger": ("log", "WARNING"),
}


class TrtRing:
    """A temporal plan on a device with the memory of ``cameras`` cameras; the same verbs as `RingSession`."""

    whole = True

    def __init__(
        self,
        plan: bytes,
        spec: TemporalSpec,
        cameras: int,
        *,
        trt: Any = None,
        device: Device | None = None,
        graph: bool = True,
    ) -> None:
        self.spec, self.cameras = spec, cameras
        if trt is None:
            trt, self.backend = load_tensorrt()
        else:
            self.backend = "tensorrt"
        self._device = device if device is not None else open_device()
        self._log = logger_of(trt)
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineFault(
                f"tensorrt: the plan cannot run here, got {self._log.last}; build it again on this machine"
            )
        self._refuse_other_tensors(trt)
        self._aliases = self._aliased()
        self._context = self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        self._bind()
        self._graph: Any = None
        self._wants_graph = graph
        self._warm = False

    def _refuse_other_tensors(self, trt: Any) -> None:
        """EngineFault unless the plan's inputs and outputs are exactly the spec's: a parser may have dropped one."""
        found: dict[Any, set[str]] = {trt.TensorIOMode.INPUT: set(), trt.TensorIOMode.OUTPUT: set()}
        for i in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(i)
            found[self._engine.get_tensor_mode(name)].add(name)
        for side, mode, wanted in (
            ("inputs", trt.TensorIOMode.INPUT, self.spec.inputs),
            ("outputs", trt.TensorIOMode.OUTPUT, self.spec.outputs),
        ):
            names = {t.name for t in wanted}
            if names != found[mode]:
                raise EngineFault(
                    f"tensorrt: {side} must be those of the sidecar, got missing {sorted(names - found[mode])} and unknown "
                    f"{sorted(found[mode] - names)}; the plan belongs to another graph: build it again"
                )

    def _aliased(self) -> dict[str, str]:
        """State outputs that share their input's memory; an alias the sidecar does not know is refused."""
        aliases = {}
        for out, name in self.spec.aliases.items():
            told = self._engine.get_aliased_input_tensor(out)
            if told and told != name:
                raise EngineFault(f"tensorrt: {out} must alias {name}, got {told}; the plan belongs to another graph")
            if told:
                aliases[out] = name
        return aliases

    def _bind(self) -> None:
        """Memory for every tensor, once; state addresses never change again."""
        device, carried = self._device, {t.name for t in self.spec.state}
        self._address = {t.name: device.allocate(self._bytes(t)) for t in self.spec.inputs}
        self._steps = {
            t.name: device.pinned(t.concrete(self.cameras), t.dtype) for t in self.spec.inputs if t.name not in carried
        }
        self._answers = {
            t.name: device.pinned(t.concrete(self.cameras), t.dtype)
            for t in self.spec.outputs
            if t.name not in self.spec.aliases
        }
        for t in self.spec.outputs:
            alias = self._aliases.get(t.name)
            self._address[t.name] = self._address[alias] if alias else device.allocate(self._bytes(t))
        for t in self.spec.inputs:
            if not self._context.set_input_shape(t.name, t.concrete(self.cameras)):
                raise EngineFault(
                    f"tensorrt: {t.name} cannot be {list(t.concrete(self.cameras))}, got a plan for fewer cameras; build it for {self.cameras}"
                )
        for name, address in self._address.items():
            if not self._context.set_tensor_address(name, address):
                raise EngineFault(f"tensorrt: {name} was not bound, got {self._log.last}; build the plan again")
        need = self._context.update_device_memory_size_for_shapes()
        if need:
            self._context.set_device_memory(device.allocate(need), need)
        self._blank = init_state(self.spec, 1)
        for camera in range(self.cameras):
            self.clear(camera)
        device.synchronise()

    def _bytes(self, t: TensorSpec) -> int:
        return int(np.prod(t.concrete(self.cameras))) * np.dtype(t.dtype).itemsize

    def clear(self, camera: int, streams: NDArray[np.bool_] | None = None) -> None:
        """Forget a camera, or only those of its streams that the mask [E] selects; no other stream is touched."""
        width = self.spec.config.streams
        chosen = range(width) if streams is None else np.flatnonzero(streams)
        for name, empty in self._blank.items():
            for s in chosen:
                row = np.ascontiguousarray(empty[s])
                self._device.upload(self._address[name] + (camera * width + int(s)) * row.nbytes, row)
        self._device.synchronise()  # the rows are temporary host memory

    def run(self, start: int, count: int, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Step all cameras; answers are views of pinned memory, valid until the next run."""
        if (start, count) != (0, self.cameras):
            raise EngineFault(
                f"tensorrt: steps all {self.cameras} cameras at once, got {start}..{start + count - 1}; send absent ones inert"
            )
        for name, buffer in self._steps.items():
            np.copyto(buffer, feeds[name], casting="same_kind")
        if self._graph is not None:
            self._graph()
        else:
            self._enqueue()
        self._device.synchronise()
        if self._graph is None and self._wants_graph and self._warm:
            # the second run is captured: the first one lets TensorRT compile its kernels outside the capture
            self._graph, self._wants_graph = self._device.capture(self._enqueue), False
        self._warm = True
        return self._answers

    def _enqueue(self) -> None:
        for name, buffer in self._steps.items():
            self._device.upload(self._address[name], buffer)
        if not self._context.execute_async_v3(self._device.stream):
            raise EngineFault(f"tensorrt: the step was refused, got {self._log.last}; see the log")
        for out, name in self.spec.aliases.items():
            if out not in self._aliases:
                self._device.copy(self._address[name], self._address[out], self._bytes(self._tensor(name)))
        for name, buffer in self._answers.items():
            self._device.download(buffer, self._address[name])

    def _tensor(self, name: str) -> TensorSpec:
        return next(t for t in self.spec.inputs if t.name == name)

    def close(self) -> None:
        """Free the device memory."""
        self._graph = None
        self._device.close()

"""ONNX Runtime's CUDA provider over rings that stay on the device; any provider whose values can be updated in place.

All cameras are stepped in every call, as on TensorRT: shapes and addresses never change. Where the graph writes in place, a state
output is bound to its input's own memory; elsewhere the two take turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import EngineFault
from vedette.engines.runtimes.cuda import probe_driver
from vedette.engines.runtimes.ringstate import init_state
from vedette.engines.temporal_spec import TemporalSpec

Array = NDArray[Any]

CUDA = "CUDAExecutionProvider"


def cuda_provider() -> str:
    """Why ONNX Runtime's CUDA provider can be used here; EngineFault says why it cannot."""
    import onnxruntime as ort

    found = ort.get_available_providers()
    if CUDA not in found:
        raise EngineFault(f"this ONNX Runtime has the providers {found}; pip install onnxruntime-gpu")
    count, why = probe_driver()
    if not count:
        raise EngineFault(why)
    return why


class DeviceRing:
    """A temporal graph with the memory of ``cameras`` cameras on a device; the same verbs as `RingSession`.

    provider, device: of ONNX Runtime; tests run the same code with the CPU's.
    """

    backend = "onnxruntime-cuda"
    whole = True

    def __init__(
        self, graph: bytes, spec: TemporalSpec, cameras: int, *, provider: str = CUDA, device: str = "cuda"
    ) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(graph, options, providers=[provider])
        except Exception as e:
            raise EngineFault(f"onnxruntime: {provider} refused the temporal graph, got {e}; use the CPU") from e
        if provider not in self._session.get_providers():
            raise EngineFault(f"onnxruntime: {provider} could not be started, got {self._session.get_providers()}")
        self.spec, self.cameras = spec, cameras
        self._blank = init_state(spec, 1)
        start = init_state(spec, cameras)
        self._now = {name: ort.OrtValue.ortvalue_from_numpy(array, device, 0) for name, array in start.items()}
        self._next = (
            self._now
            if spec.in_place
            else {name: ort.OrtValue.ortvalue_from_numpy(array, device, 0) for name, array in start.items()}
        )
        self._outputs = [o.name for o in self._session.get_outputs()]
        self._steps = {t.name: t for t in spec.inputs if t.name not in start}

    def clear(self, camera: int, streams: NDArray[np.bool_] | None = None) -> None:
        """Forget a camera, or only those of its streams that the mask [E] selects; no other stream is touched."""
        width = self.spec.config.streams
        chosen = np.arange(width) if streams is None else np.flatnonzero(streams)
        for name, empty in self._blank.items():
            array = self._now[name].numpy().copy()
            array[camera * width + chosen] = empty[chosen]
            self._now[name].update_inplace(array)

    def run(self, start: int, count: int, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Step all cameras; answers are new arrays."""
        if (start, count) != (0, self.cameras):
            raise EngineFault(
                f"onnxruntime: steps all {self.cameras} cameras at once on a device, got {start}..{start + count - 1}; "
                "send absent ones inert"
            )
        binding = self._session.io_binding()
        for name, tensor in self._steps.items():
            array = np.empty(tensor.concrete(count), tensor.dtype)
            np.copyto(array, feeds[name], casting="same_kind")
            binding.bind_cpu_input(name, array)
        for name, value in self._now.items():
            binding.bind_ortvalue_input(name, value)
        for out in self._outputs:
            if out in self.spec.aliases:
                binding.bind_ortvalue_output(out, self._next[self.spec.aliases[out]])
            else:
                binding.bind_output(out, "cpu")
        self._session.run_with_iobinding(binding)
        self._now, self._next = self._next, self._now
        found = zip(self._outputs, binding.get_outputs(), strict=True)  # in the order they were bound
        return {name: value.numpy() for name, value in found if name not in self.spec.aliases}

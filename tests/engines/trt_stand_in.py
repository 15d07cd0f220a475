"""TensorRT and a CUDA device for machines without a GPU: the same names, host memory, and ONNX Runtime as the kernel.

A plan here is the ONNX graph itself. `test_trt.py` holds every class, method and argument of the stand-in against the installed
bindings, so that it cannot drift from the real API.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort


class HostDevice:
    """`Device` whose addresses are host addresses; a captured graph replays the enqueued work."""

    name, stream = "host", 7

    def __init__(self) -> None:
        self.blocks: list[np.ndarray] = []
        self.graphs = self.launches = 0

    def allocate(self, nbytes: int) -> int:
        block = np.zeros(nbytes + 256, np.uint8)
        self.blocks.append(block)
        return -(-block.ctypes.data // 256) * 256

    def pinned(self, shape: tuple[int, ...], dtype: str) -> Any:
        return np.zeros(shape, dtype)

    def _view(self, address: int, nbytes: int) -> np.ndarray:
        for block in self.blocks:
            offset = address - block.ctypes.data
            if offset >= 0 and offset + nbytes <= block.nbytes:
                return block[offset : offset + nbytes]
        raise AssertionError(f"address {address} is in no allocation")

    def upload(self, address: int, array: Any) -> None:
        assert array.flags.c_contiguous
        self._view(address, array.nbytes)[:] = array.reshape(-1).view(np.uint8)

    def download(self, array: Any, address: int) -> None:
        array.reshape(-1).view(np.uint8)[:] = self._view(address, array.nbytes)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        self._view(target, nbytes)[:] = self._view(source, nbytes)

    def synchronise(self) -> None: ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.graphs += 1

        def launch() -> None:
            self.launches += 1
            work()

        return launch

    def close(self) -> None:
        self.blocks.clear()


class ILogger:
    WARNING = 2

    def log(self, severity: int, msg: str) -> None: ...


class TensorIOMode:
    INPUT, OUTPUT = 1, 2


class ExecutionContextAllocationStrategy:
    USER_MANAGED = 2


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if not serialized_engine:
            self.logger.log(1, "magic tag does not match")
            return None
        return ICudaEngine(serialized_engine)


class ICudaEngine:
    """``scatters`` names the outputs the graph writes in place, as TensorRT's KVCacheUpdate does."""

    def __init__(self, graph: bytes) -> None:
        import onnx

        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        self.outputs = {o.name: o for o in self.session.get_outputs()}
        nodes = onnx.load_from_string(graph).graph.node
        self.scatters = {n.output[0]: n.input[0] for n in nodes if n.op_type == "TensorScatter"}

    @property
    def num_io_tensors(self) -> int:
        return len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name: str) -> int:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return self.scatters.get(name)

    def create_execution_context(self, strategy: int) -> IExecutionContext:
        assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        return IExecutionContext(self)


class IExecutionContext:
    MOST_ROWS = 10_000
    DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}  # noqa: RUF012

    def __init__(self, engine: ICudaEngine) -> None:
        self.engine, self.shapes, self.addresses = engine, {}, {}
        self.workspace = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return shape[0] <= self.MOST_ROWS

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory % 256 == 0
        self.addresses[name] = memory
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        return 4096

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory
        self.workspace = size

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == HostDevice.stream
        assert self.workspace == 4096
        engine, binding = self.engine, self.engine.session.io_binding()
        for name, node in engine.inputs.items():
            binding.bind_input(name, "cpu", 0, self.DTYPES[node.type], self.shapes[name], self.addresses[name])
        cameras = self.shapes["xmask"][0]
        for name, node in engine.outputs.items():
            source = name.removeprefix("n_")
            shape = (
                self.shapes[source]
                if source in self.shapes
                else [cameras if isinstance(s, str) else s for s in node.shape]
            )
            binding.bind_output(name, "cpu", 0, self.DTYPES[node.type], shape, self.addresses[name])
        engine.session.run_with_iobinding(binding)
        return True

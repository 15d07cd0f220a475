"""Device memory, copies, a stream and CUDA graphs behind one small protocol; PyCUDA does all but the graphs.

Nothing here imports a CUDA library until a device is opened, and a machine without a driver gets a sentence, not a
crash: ``pycuda.driver`` raises ImportError there, ``cuda.bindings`` RuntimeError at its first call.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import EngineFault

Array = NDArray[Any]


class Device(Protocol):
    """One accelerator with one stream; addresses are plain integers."""

    name: str
    stream: int

    def allocate(self, nbytes: int) -> int:
        """Zeroed device memory, aligned to 256 bytes."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Page-locked host memory, zeroed."""
        ...

    def upload(self, address: int, array: Array) -> None:
        """Host to device, on the stream."""
        ...

    def download(self, array: Array, address: int) -> None:
        """Device to host, on the stream."""
        ...

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Device to device, on the stream."""
        ...

    def synchronise(self) -> None: ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None] | None:
        """A function that launches what ``work`` enqueued, or None where graphs are not to be had."""
        ...

    def close(self) -> None: ...


def probe_driver() -> tuple[int, str]:
    """How many CUDA devices there are, and why none. Never raises, imports nothing."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as e:
        return 0, f"no CUDA driver: {e}"
    count = ctypes.c_int()
    for call, *arguments in ((driver.cuInit, 0), (driver.cuDeviceGetCount, ctypes.byref(count))):
        error = call(*arguments)
        if error:
            return 0, f"the CUDA driver answers error {error}"
    return count.value, f"{count.value} CUDA device(s)"


def open_device(index: int = 0) -> Device:
    """The device through PyCUDA, on its primary context, which TensorRT and torch share. EngineFault says what is missing."""
    count, why = probe_driver()
    if count <= index:
        raise EngineFault(f"cuda: needs device {index}, got {why}; use backend onnxruntime")
    try:
        driver = importlib.import_module("pycuda.driver")
    except Exception as e:
        raise EngineFault(f"cuda: needs PyCUDA, got {type(e).__name__}: {e}; pip install 'vedette[gpu]'") from e
    return PyCudaDevice(driver, index)


class PyCudaDevice:
    """`Device` by PyCUDA. The context is pushed for the time of each call only, so that any thread may call."""

    def __init__(self, driver: Any, index: int) -> None:
        driver.init()
        device = driver.Device(index)
        self.name = str(device.name())
        self._driver, self._context = driver, device.retain_primary_context()
        self._memory: list[Any] = []
        self._stream = self._with(driver.Stream)
        self.stream = int(self._stream.handle)

    def _with(self, work: Callable[..., Any], *arguments: Any) -> Any:
        self._context.push()
        try:
            return work(*arguments)
        finally:
            self._context.pop()

    def allocate(self, nbytes: int) -> int:
        block = self._with(self._driver.mem_alloc, nbytes)
        self._memory.append(block)
        self._with(self._driver.memset_d8_async, int(block), 0, nbytes, self._stream)
        return int(block)

    def pinned(self, shape: tuple[int, ...], dtype: str) -> Array:
        array: Array = self._with(self._driver.pagelocked_zeros, shape, np.dtype(dtype))
        return array

    def upload(self, address: int, array: Array) -> None:
        self._with(self._driver.memcpy_htod_async, address, array, self._stream)

    def download(self, array: Array, address: int) -> None:
        self._with(self._driver.memcpy_dtoh_async, array, address, self._stream)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        self._with(self._driver.memcpy_dtod_async, target, source, nbytes, self._stream)

    def synchronise(self) -> None:
        self._with(self._stream.synchronize)

    def capture(self, work: Callable[[], None]) -> Callable[[], None] | None:
        """PyCUDA has no graphs; ``cuda.bindings`` captures on the same stream."""
        try:
            cu = importlib.import_module("cuda.bindings.driver")
        except ImportError:
            return None
        mode = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL

        def begin_to_end() -> Any:
            _check(cu.cuStreamBeginCapture(self.stream, mode))
            try:
                work()
            finally:
                graph = _check(cu.cuStreamEndCapture(self.stream))
            return _check(cu.cuGraphInstantiate(graph, 0))

        executable = self._with(begin_to_end)
        return lambda: self._with(lambda: _check(cu.cuGraphLaunch(executable, self.stream)))

    def close(self) -> None:
        """Free every block; the primary context stays for its other users."""
        for block in self._memory:
            self._with(block.free)
        self._memory.clear()
        self._context.detach()


def _check(result: Any) -> Any:
    """The value of a ``cuda.bindings`` call, or EngineFault with its error."""
    error, *values = result
    if int(error):
        raise EngineFault(f"cuda: the driver answered {error}; see `vedette doctor`")
    return values[0] if values else None

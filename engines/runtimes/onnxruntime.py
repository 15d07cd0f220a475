"""ONNX Runtime on the CPU: any graph, named inputs and outputs, no model names.

Threads do not spin between calls: a spinning pool steals the cores that decoding and tracking need
(`session.intra_op.allow_spinning`), and costs little latency at a camera's pace.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import EngineFault

#: more threads than this do not pay for networks of a few GFLOP
MAX_THREADS = 4


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output: dtype as numpy names it; a shape entry is a number, or a name where it is free."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


def default_threads() -> int:
    """Threads for one engine: the cores this process may use, at most MAX_THREADS."""
    return max(1, min(MAX_THREADS, len(os.sched_getaffinity(0))))


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


class OrtRuntime:
    """One ONNX graph, loaded and ready. Raises EngineFault when the file is not a graph that can run.

    source: a path, or the bytes of a model (then ``name`` says what to call it in errors). fixed: values for
    free dimensions by name, which lets the runtime fold shapes away. threads: raising it lowers the latency of
    one call and the throughput of the machine. provider: of ONNX Runtime, what it cannot run falls to the CPU.
    """

    def __init__(
        self,
        source: str | Path | bytes,
        *,
        name: str | None = None,
        threads: int | None = None,
        fixed: Mapping[str, int] | None = None,
        provider: str = "CPUExecutionProvider",
    ) -> None:
        import onnxruntime as ort

        self.name = name or ("model" if isinstance(source, bytes) else str(source))
        self.threads = threads or default_threads()
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for key, value in (fixed or {}).items():
            options.add_free_dimension_override_by_name(key, value)
        if not isinstance(source, bytes):
            source = read_model(source)
        try:
            self._session: Any = ort.InferenceSession(
                source, options, providers=list(dict.fromkeys((provider, "CPUExecutionProvider")))
            )
        except Exception as e:
            raise EngineFault(
                f"{self.name}: ONNX Runtime {ort.__version__} cannot load it: {first_line(e)}; "
                "the file may be truncated or use a newer opset: check its SHA-256, or export it again"
            ) from e
        if provider not in self._session.get_providers():
            raise EngineFault(
                f"{self.name}: {provider} could not be started, got {self._session.get_providers()}; use backend onnxruntime"
            )
        self.inputs = {p.name: _port(p) for p in self._session.get_inputs()}
        self.outputs = {p.name: _port(p) for p in self._session.get_outputs()}
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name. Raises EngineFault naming the input when a name, dtype, rank or size is wrong."""
        if self._session is None:
            raise EngineFault(f"{self.name}: the engine is closed; load it again")
        self._check(feeds)
        try:
            values = self._session.run(None, dict(feeds))
        except Exception as e:
            raise EngineFault(f"{self.name}: ONNX Runtime failed: {first_line(e)}") from e
        return dict(zip(self.outputs, values, strict=True))

    def _check(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        if set(feeds) != set(self.inputs):
            raise EngineFault(f"{self.name}: needs inputs {sorted(self.inputs)}, got {sorted(feeds)}")
        for key, port in self.inputs.items():
            x = feeds[key]
            ok = x.ndim == len(port.shape) and all(
                isinstance(want, str) or want == got for want, got in zip(port.shape, x.shape, strict=True)
            )
            if not ok or x.dtype != np.dtype(port.dtype):
                raise EngineFault(
                    f"{self.name}: input {key} needs {port.dtype} {list(port.shape)}, got {x.dtype} {list(x.shape)}"
                )

    def close(self) -> None:
        """Free the session; later calls raise EngineFault."""
        self._session = None


def read_model(path: str | Path) -> bytes:
    """The bytes of a model file. Raises EngineFault when it is missing, empty or obviously no ONNX file."""
    try:
        data = Path(path).read_bytes()
    except OSError as e:
        raise EngineFault(f"{path}: the model cannot be read: {e.strerror}; check the path") from e
    if len(data) < 64:
        raise EngineFault(f"{path}: needs an ONNX model, got {len(data)} bytes; download it again")
    return data


def first_line(error: BaseException) -> str:
    """The first line of a foreign error, short enough for a log."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]


_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


def _port(arg: Any) -> Port:
    shape = tuple(d if isinstance(d, int) else str(d) for d in arg.shape)
    return Port(arg.name, _DTYPES.get(arg.type, arg.type), shape)

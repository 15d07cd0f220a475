"""A small writer of ONNX graphs that knows two dialects: what every runtime reads, and what the fast ones fuse.

``portable`` (opset 18): only arithmetic, MatMul, Softmax, LayerNormalization and Where. ``kvu`` (opset 24): RMSNormalization,
RotaryEmbedding, TensorScatter mode linear (TensorRT's KVCacheUpdate, in place) and Attention. Never written in either:
``nonpad_kv_seqlen`` (TensorRT-RTX ignores it in silence), ``is_causal`` (upper-left: a single query would see only key 0),
circular scatter, NonMaxSuppression, NonZero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Array = NDArray[Any]

OPSETS = {"portable": 18, "kvu": 24}
IR_VERSIONS = {"portable": 8, "kvu": 11}
ELEMENTS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int64": TensorProto.INT64}


class GraphWriter:
    """Collects nodes, constants, inputs and outputs; every method appends nodes and returns the name of its result."""

    def __init__(self, flavour: str, dtype: str) -> None:
        if flavour not in OPSETS:
            raise ValueError(f"GraphWriter: flavour must be one of {sorted(OPSETS)}, got {flavour!r}")
        self.flavour, self.dtype = flavour, np.dtype(dtype)
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Any] = {}
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []
        self._count = 0

    @property
    def fused(self) -> bool:
        return self.flavour == "kvu"

    def node(self, op: str, inputs: list[str], outputs: int | str = 1, **attributes: Any) -> Any:
        """Append one node; ``outputs`` is how many to name, or the one name it must have."""
        self._count += 1
        names = [outputs] if isinstance(outputs, str) else [f"{op}_{self._count}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"{op}_{self._count}", **attributes))
        return names[0] if len(names) == 1 else names

    def const(self, name: str, value: Any, dtype: str | None = None) -> str:
        """A named constant in the graph's precision unless ``dtype`` says otherwise."""
        if name not in self.constants:
            array = np.ascontiguousarray(np.asarray(value, dtype or self.dtype))
            self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def ints(self, *values: int) -> str:
        """An int64 constant, shared by value."""
        return self.const("i_" + "_".join(str(v).replace("-", "m") for v in values), np.array(values), "int64")

    def reshape(self, x: str, *shape: int) -> str:
        return str(self.node("Reshape", [x, self.ints(*shape)]))

    def cast(self, x: str, dtype: str) -> str:
        """x in another precision, or x itself when it is the graph's own."""
        return x if np.dtype(dtype) == self.dtype else str(self.node("Cast", [x], to=ELEMENTS[dtype]))

    def uncast(self, x: str, dtype: str) -> str:
        """A ``dtype`` tensor back in the graph's precision."""
        return x if np.dtype(dtype) == self.dtype else str(self.node("Cast", [x], to=ELEMENTS[self.dtype.name]))

    def slice_last(self, x: str, start: int, stop: int) -> str:
        return str(self.node("Slice", [x, self.ints(start), self.ints(stop), self.ints(-1)]))

    def linear(self, x: str, name: str, weight: Array, bias: Array | None = None) -> str:
        """x [...,a] @ weight [b,a]^T + bias, over the last axis of any rank."""
        y = self.node("MatMul", [x, self.const(name + ".w", weight.T)])
        return str(y if bias is None else self.node("Add", [y, self.const(name + ".b", bias)]))

    def layer_norm(self, x: str, name: str, gain: Array, bias: Array) -> str:
        ins = [x, self.const(name + ".g", gain), self.const(name + ".b", bias)]
        return str(self.node("LayerNormalization", ins, axis=-1, epsilon=1e-5))

    def rms_norm(self, x: str, name: str, gain: Array) -> str:
        """x / sqrt(mean(x^2) + 1e-6) * gain over the last axis."""
        gain_name = self.const(name, gain)
        if self.fused:
            return str(self.node("RMSNormalization", [x, gain_name], axis=-1, epsilon=1e-6))
        mean = self.node("ReduceMean", [self.node("Mul", [x, x]), self.ints(-1)], keepdims=1)
        root = self.node("Sqrt", [self.node("Add", [mean, self.const("eps_qk", 1e-6)])])
        return str(self.node("Mul", [self.node("Div", [x, root]), gain_name]))

    def rotate(self, x: str, rotary_dim: int, width: int) -> str:
        """Turn the first channels of x [n,h,1,width] by the graph's inputs cos and sin [n,1,rotary_dim / 2]."""
        if self.fused:
            attributes = {"rotary_embedding_dim": rotary_dim, "interleaved": 0}
            return str(self.node("RotaryEmbedding", [x, "cos", "sin"], **attributes))
        half = rotary_dim // 2
        if "cos4" not in {o for n in self.nodes for o in n.output}:
            for name in ("cos", "sin"):
                self.node("Unsqueeze", [name, self.ints(1)], f"{name}4")
        a, b, rest = self.node("Split", [x, self.ints(half, half, width - rotary_dim)], 3, axis=-1)
        left = self.node("Sub", [self.node("Mul", [a, "cos4"]), self.node("Mul", [b, "sin4"])])
        right = self.node("Add", [self.node("Mul", [b, "cos4"]), self.node("Mul", [a, "sin4"])])
        return str(self.node("Concat", [left, right, rest], axis=-1))

    def ring_write(self, ring: str, row: str, window: int) -> str:
        """The ring [n,h,T,c] with row [n,h,1,c] at the graph's input slot [n]; the result is the output ``n_<ring>``."""
        if self.fused:
            return str(self.node("TensorScatter", [ring, row, "slot"], f"n_{ring}", axis=2, mode="linear"))
        if "here" not in {o for n in self.nodes for o in n.output}:
            slots = self.const("slots", np.arange(window), "int64")
            equal = self.node("Equal", [self.reshape("slot", -1, 1), slots])
            self.node("Reshape", [equal, self.ints(-1, 1, window, 1)], "here")
        return str(self.node("Where", ["here", row, ring], f"n_{ring}"))

    def attend(self, q: str, k: str, v: str, mask: str | None = None) -> str:
        """softmax(q k^T + mask) v with q [B,h,S,c], k [B,h,M,c], v [B,h,M,e]; scale is in the gains."""
        if self.fused:
            return str(self.node("Attention", [q, k, v, *([mask] if mask else [])], scale=1.0))
        logits = self.node("MatMul", [q, self.node("Transpose", [k], perm=[0, 1, 3, 2])])
        if mask:
            logits = self.node("Add", [logits, mask])
        return str(self.node("MatMul", [self.node("Softmax", [logits], axis=-1), v]))

    def attend_few(self, q: str, k: str, v: str) -> str:
        """The same over a handful of keys, k [B,h,M,c], v [B,h,M,e] with e != c; TensorRT refuses such an Attention."""
        logits = self.node("MatMul", [q, self.node("Transpose", [k], perm=[0, 1, 3, 2])])
        return str(self.node("MatMul", [self.node("Softmax", [logits], axis=-1), v]))

    def gelu(self, x: str) -> str:
        """Exact GELU."""
        if self.fused:
            return str(self.node("Gelu", [x]))
        inner = self.node("Erf", [self.node("Mul", [x, self.const("sqrt_half", 0.5**0.5)])])
        half = self.node("Mul", [x, self.const("half", 0.5)])
        return str(self.node("Mul", [half, self.node("Add", [inner, self.const("one", 1.0)])]))

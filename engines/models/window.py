"""The peers RIFT is measured against: a plain pre-norm transformer that is run again over the whole window for every frame, the
plain ring step of the research note (the prototype), and a GRU.

Of the recompute only the newest frame's query is computed in the last layer, the best a recompute can do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional as F

from vedette.engines.models.attention import scaled_dot_product_attention
from vedette.engines.models.rift_graph import IR_VERSIONS, OPSETS, GraphWriter


class WindowLayer(nn.Module):
    """x += W_o MHA(LN x);  x += FFN(LN x)."""

    def __init__(self, d_model: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_a, self.norm_f = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.q, self.kv = nn.Linear(d_model, d_model), nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.ffn_in, self.ffn_out = nn.Linear(d_model, ffn), nn.Linear(ffn, d_model)

    def forward(self, x: Tensor, last_only: bool) -> Tensor:
        """x [B,T,d] -> [B,T,d], or [B,1,d] of the newest frame."""
        y = self.norm_a(x)
        x, asked = (x[:, -1:], y[:, -1:]) if last_only else (x, y)
        q, k, v = (z.unflatten(-1, (self.heads, -1)).transpose(1, 2) for z in (self.q(asked), *self.kv(y).chunk(2, -1)))
        a, _ = scaled_dot_product_attention(q, k, v)
        x = x + self.out(a.transpose(1, 2).flatten(2))
        return x + self.ffn_out(F.gelu(self.ffn_in(self.norm_f(x))))


class WindowEncoder(nn.Module):
    """x [B,T,d] -> the newest frame's answer [B,d]; nothing is remembered between calls."""

    def __init__(self, d_model: int = 256, heads: int = 8, layers: int = 2, window: int = 64, ffn: int = 1024) -> None:
        super().__init__()
        self.window = window
        self.place = nn.Parameter(torch.randn(window, d_model) * 0.02)
        self.layers = nn.ModuleList(WindowLayer(d_model, heads, ffn) for _ in range(layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.place
        for layer in self.layers:
            x = layer(x, layer is self.layers[-1])
        answer: Tensor = self.norm(x[:, 0])
        return answer


def window_graph(model: WindowEncoder) -> ModelProto:
    """The same as an ONNX graph (opset 24, fused Attention), input x [B,T,d], output y [B,d]."""
    g = GraphWriter("kvu", "float32")
    w = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    d = w["place"].shape[1]
    x = g.node("Add", ["x", g.const("place", w["place"])])
    for i, layer in enumerate(model.layers):
        p = {k.removeprefix(f"layers.{i}."): v for k, v in w.items() if k.startswith(f"layers.{i}.")}
        x = _layer(g, f"{i}", p, x, layer.heads, d, last_only=i == len(model.layers) - 1)
    y = g.layer_norm(g.reshape(x, -1, d), "norm", w["norm.weight"], w["norm.bias"])
    g.node("Identity", [y], "y")
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", model.window, d])]
    answers = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", d])]
    graph = helper.make_graph(g.nodes, "window", values, answers, list(g.constants.values()))
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSETS["kvu"])], ir_version=IR_VERSIONS["kvu"]
    )


def _layer(g: GraphWriter, name: str, w: dict[str, np.ndarray], x: str, heads: int, d: int, *, last_only: bool) -> str:
    y = g.layer_norm(x, f"{name}.norm_a", w["norm_a.weight"], w["norm_a.bias"])
    k, v = g.node("Split", [g.linear(y, f"{name}.kv", w["kv.weight"], w["kv.bias"]), g.ints(d, d)], 2, axis=-1)
    if last_only:
        x, y = (g.node("Slice", [z, g.ints(-1), g.ints(2**31), g.ints(1)]) for z in (x, y))
    q = g.linear(y, f"{name}.q", w["q.weight"], w["q.bias"])
    sizes: dict[str, Any] = {"q_num_heads": heads, "kv_num_heads": heads, "scale": float((d // heads) ** -0.5)}
    a = g.node("Attention", [q, k, v], **sizes)
    x = g.node("Add", [x, g.linear(a, f"{name}.out", w["out.weight"], w["out.bias"])])
    y = g.layer_norm(x, f"{name}.norm_f", w["norm_f.weight"], w["norm_f.bias"])
    y = g.gelu(g.linear(y, f"{name}.ffn_in", w["ffn_in.weight"], w["ffn_in.bias"]))
    return str(g.node("Add", [x, g.linear(y, f"{name}.ffn_out", w["ffn_out.weight"], w["ffn_out.bias"])]))


def prototype_graph(d_model: int, heads: int, layers: int, window: int, ffn: int, seed: int = 0) -> ModelProto:
    """The note's step: no QK-norm, no validity channel; rotary over whole heads and the ring's filled length as an input.

    Inputs x [B,d], cos and sin [B,1,d_h/2], slot and length i64 [B], K{i} and V{i} [B,h,T,d_h]; outputs y and n_K{i}, n_V{i}.
    """
    g, rng, width = GraphWriter("kvu", "float32"), np.random.default_rng(seed), d_model // heads
    head, x = (0, heads, 1, width), "x"

    def dense(y: str, name: str, inner: int, outer: int) -> str:
        return g.linear(y, name, rng.normal(size=(outer, inner), scale=inner**-0.5), np.zeros(outer))

    def norm(y: str, name: str, out: int | str = 1) -> str:
        ins = [y, g.const(name + ".g", np.ones(d_model)), g.const(name + ".b", np.zeros(d_model))]
        return str(g.node("LayerNormalization", ins, out, axis=-1, epsilon=1e-5))

    for i in range(layers):
        qkv = g.node(
            "Split", [dense(norm(x, f"{i}.a"), f"{i}.qkv", d_model, 3 * d_model), g.ints(*[d_model] * 3)], 3, axis=-1
        )
        q, k, v = (g.reshape(z, *head) for z in qkv)
        q, k = (g.node("RotaryEmbedding", [z, "cos", "sin"], interleaved=0) for z in (q, k))
        rings = [
            g.node("TensorScatter", [f"{r}{i}", row, "slot"], f"n_{r}{i}", axis=2, mode="linear")
            for r, row in (("K", k), ("V", v))
        ]
        a = g.node("Attention", [q, *rings, "", "", "", "length"], scale=float(width**-0.5))
        x = g.node("Add", [x, dense(g.reshape(a, 0, d_model), f"{i}.out", d_model, d_model)])
        y = g.gelu(dense(norm(x, f"{i}.f"), f"{i}.in", d_model, ffn))
        x = g.node("Add", [x, dense(y, f"{i}.ffn", ffn, d_model)])
    norm(x, "norm", "y")
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}
    feeds = prototype_feeds(d_model, heads, layers, window, 1)
    values = [helper.make_tensor_value_info(k, kinds[v.dtype], ["B", *v.shape[1:]]) for k, v in feeds.items()]
    answers = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", d_model])]
    answers += [
        helper.make_tensor_value_info(f"n_{k}", TensorProto.FLOAT, ["B", *v.shape[1:]])
        for k, v in feeds.items()
        if v.ndim == 4
    ]
    graph = helper.make_graph(g.nodes, "prototype", values, answers, list(g.constants.values()))
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSETS["kvu"])], ir_version=IR_VERSIONS["kvu"]
    )


def prototype_feeds(d_model: int, heads: int, layers: int, window: int, batch: int) -> dict[str, np.ndarray]:
    """Inputs of ``prototype_graph`` with a full ring of random keys and values."""
    rng, width = np.random.default_rng(0), d_model // heads
    angle = np.arange(batch)[:, None, None] * 100.0 ** (-np.arange(0, width, 2) / width)
    feeds = {"x": rng.normal(size=(batch, d_model)), "cos": np.cos(angle), "sin": np.sin(angle)}
    feeds |= {f"{r}{i}": rng.normal(size=(batch, heads, window, width)) for i in range(layers) for r in "KV"}
    out = {k: np.ascontiguousarray(v, np.float32) for k, v in feeds.items()}
    return out | {"slot": np.zeros(batch, np.int64), "length": np.full(batch, window, np.int64)}


def gru_graph(width: int, hidden: int, layers: int, seed: int = 0) -> ModelProto:
    """A stack of GRUs stepped one frame a call: x [1,B,width] and h{i} [1,B,hidden] -> y [1,B,hidden] and n_h{i}."""
    rng, nodes, constants = np.random.default_rng(seed), [], []
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "B", width])]
    answers, x, inner = [], "x", width
    for i in range(layers):
        for name, shape in (("W", (1, 3 * hidden, inner)), ("R", (1, 3 * hidden, hidden)), ("B", (1, 6 * hidden))):
            weight = rng.normal(size=shape, scale=hidden**-0.5).astype(np.float32)
            constants.append(helper.make_tensor(f"{name}{i}", TensorProto.FLOAT, shape, weight.tobytes(), raw=True))
        nodes.append(
            helper.make_node(
                "GRU",
                [x, f"W{i}", f"R{i}", f"B{i}", "", f"h{i}"],
                ["", f"n_h{i}"],
                hidden_size=hidden,
                linear_before_reset=1,
            )
        )
        values.append(helper.make_tensor_value_info(f"h{i}", TensorProto.FLOAT, [1, "B", hidden]))
        answers.append(helper.make_tensor_value_info(f"n_h{i}", TensorProto.FLOAT, [1, "B", hidden]))
        x, inner = f"n_h{i}", hidden
    nodes.append(helper.make_node("Identity", [x], ["y"]))
    answers.insert(0, helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "B", hidden]))
    graph = helper.make_graph(nodes, "gru", values, answers, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def gru_hidden_for(flops: float, width: int, layers: int) -> int:
    """Hidden width at which a stack of GRUs costs ``flops`` a frame: 6 (d H + H^2) + 12 (layers - 1) H^2."""
    a, b = 6.0 + 12.0 * (layers - 1), 6.0 * width
    return max(1, round((-b + (b * b + 4 * a * flops) ** 0.5) / (2 * a)))


def ring_flops(d_model: int, layers: int, window: int, ffn: int) -> float:
    """FLOPs of one ring step a stream with as many key heads as query heads: projections, FFN, attention."""
    return layers * (8.0 * d_model**2 + 4.0 * d_model * ffn + 4.0 * window * d_model)

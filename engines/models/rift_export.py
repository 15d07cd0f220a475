"""RIFT as an ONNX graph with explicit state: ``portable`` for every runtime, ``kvu`` for in-place rings.

The graph is written by hand from the weights, not traced: a trace has 300 nodes where 90 do. Inputs of a step for C cameras,
E streams each, n = C * E: det [C,N,token_dim], ctx [C,P,context_dim], xmask [C,1,E,P+E], we [n], cos and sin [n,1,r/2],
dec [n,M], slot i64 [n], and the state; outputs y [C,E,d], the heads, and ``n_<state>`` for each state input.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from vedette.engines.models.rift_graph import ELEMENTS, IR_VERSIONS, OPSETS, Array, GraphWriter
from vedette.engines.temporal_spec import INVALID, RiftConfig, TemporalSpec, TensorSpec

PRECISIONS = ("fp32", "fp16", "int8")
#: Operators TensorRT-RTX has no implementation of, or takes without saying that it misreads them.
FORBIDDEN_OPS = ("NonMaxSuppression", "NonZero", "DeformConv", "Loop", "If", "Scan")
FOLD = "float32"  # sums over minutes; half precision would stop counting after 2048 frames


def export_rift(
    config: RiftConfig,
    weights: Mapping[str, Array],
    flavour: str = "kvu",
    precision: str = "fp32",
    *,
    trained: bool = False,
) -> tuple[bytes, TemporalSpec]:
    """Graph bytes and its sidecar. ``int8`` quantises the weights of the linear layers only; rings and folds stay float.

    Raises ValueError for an unknown flavour or precision, or when the graph would hold something a runtime misreads.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"export_rift: precision must be one of {PRECISIONS}, got {precision!r}")
    if flavour == "portable" and precision == "fp16":
        raise ValueError("export_rift: portable graphs are fp32 or int8, got fp16; use flavour kvu")
    dtype = "float16" if precision == "fp16" else "float32"
    graph = _Step(config, {k: v.astype(np.float64) for k, v in weights.items()}, flavour, dtype)
    model = graph.model()
    if precision == "int8":
        model = quantise_weights(model)
    refuse_misread(model)
    onnx.checker.check_model(model)
    data = model.SerializeToString(deterministic=True)
    spec = TemporalSpec(
        config=config,
        flavour=flavour,
        precision=precision,
        opset=OPSETS[flavour],
        inputs=graph.input_specs,
        outputs=graph.output_specs,
        aliases={f"n_{t.name}": t.name for t in graph.state_specs},
        sha256=hashlib.sha256(data).hexdigest(),
        in_place=flavour == "kvu",
        trained=trained,
    )
    return data, spec


def refuse_misread(model: onnx.ModelProto) -> None:
    """ValueError when the graph holds what TensorRT-RTX or a streaming step would get wrong without saying so."""
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        where = f"export: node {node.name} ({node.op_type})"
        if node.op_type in FORBIDDEN_OPS:
            raise ValueError(f"{where}: has no TensorRT-RTX implementation, got it in the graph; do it outside")
        if node.op_type == "Attention" and len(node.input) > 6 and node.input[6]:
            raise ValueError(
                f"{where}: nonpad_kv_seqlen is ignored in silence, got {node.input[6]!r}; use a validity channel or a mask"
            )
        if node.op_type == "Attention" and attributes.get("is_causal"):
            raise ValueError(
                f"{where}: is_causal shows one query only key 0, got is_causal=1; use a validity channel or a mask"
            )
        if node.op_type == "Attention" and len(node.output) > 1:
            raise ValueError(
                f"{where}: only the first output is supported, got {len(node.output)}; keep the cache outside"
            )
        if node.op_type == "TensorScatter" and attributes.get("mode", b"linear") != b"linear":
            raise ValueError(
                f"{where}: only mode linear is supported, got {attributes['mode']!r}; wrap the slot on the host"
            )
    used = {name for node in model.graph.node for name in node.input}
    unused = [i.name for i in model.graph.input if i.name not in used]
    if unused:
        raise ValueError(f"export: every input must be read by a node, got unused {unused}; remove them")


def quantise_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """INT8 weights a channel, activations quantised at run time; 7 bits, because AVX2's byte product saturates at 8."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "f.onnx"), Path(folder, "q.onnx")
        prepared = onnx.ModelProto()
        prepared.CopyFrom(model)
        add_pre_process_metadata(prepared)  # shapes are stated by hand; without the mark it warns on the root logger
        onnx.save(prepared, source)
        linear = [n.name for n in model.graph.node if n.op_type == "MatMul" and n.input[1].endswith(".w")]
        quantize_dynamic(
            source, target, nodes_to_quantize=linear, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True
        )
        return onnx.load(target)


class _Step:
    """One step of RIFT written with a GraphWriter; method names follow ``rift_layers``."""

    def __init__(self, config: RiftConfig, weights: Mapping[str, Array], flavour: str, dtype: str) -> None:
        self.c, self.w, self.g, self.dtype = config, weights, GraphWriter(flavour, dtype), dtype
        self.input_specs, self.state_specs = self._inputs()
        self.output_specs: tuple[TensorSpec, ...] = ()

    def model(self) -> onnx.ModelProto:
        """The whole graph as a model."""
        g, c = self.g, self.c
        x = self._entities()
        self._prepare()
        context = self._context()
        for i in range(c.layers):
            w = {k.removeprefix(f"layers.{i}."): v for k, v in self.w.items() if k.startswith(f"layers.{i}.")}
            x = self._residual(x, self._temporal(i, w, x))
            if c.has_cross:
                x = self._residual(x, self._cross(i, w, x, context))
            y = g.layer_norm(x, f"{i}.norm_f", w["norm_f.weight"], w["norm_f.bias"])
            y = g.gelu(g.linear(y, f"{i}.ffn_in", w["ffn_in.weight"], w["ffn_in.bias"]))
            x = self._residual(x, g.linear(y, f"{i}.ffn_out", w["ffn_out.weight"], w["ffn_out.bias"]))
        self._outputs(x)
        graph = helper.make_graph(g.nodes, "rift", g.inputs, g.outputs, list(g.constants.values()))
        opset = helper.make_opsetid("", OPSETS[g.flavour])
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSIONS[g.flavour], producer_name="vedette"
        )

    def _inputs(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        c, f = self.c, self.dtype
        n = -c.streams
        step = []
        if c.tracks:
            step.append(TensorSpec("det", f, (-1, c.tracks, c.token_dim or c.d_model)))
        if c.context:
            step.append(TensorSpec("ctx", f, (-1, c.context, c.context_dim)))
        if c.has_cross:
            step.append(TensorSpec("xmask", f, (-1, 1, c.streams, c.context + c.streams)))
        step.append(TensorSpec("we", FOLD, (n,)))
        step += [TensorSpec(name, f, (n, 1, c.rotary_dim // 2)) for name in ("cos", "sin")]
        if c.folds:
            step.append(TensorSpec("dec", FOLD, (n, c.folds)))
        step.append(TensorSpec("slot", "int64", (n,)))
        state = []
        for i in range(c.layers):
            state += [TensorSpec(f"{name}{i}", f, (n, c.kv_heads, c.window, c.d_head)) for name in "KV"]
            if c.folds:
                widths = (("MK", c.fold_key), ("MV", c.d_head), ("D", 1))
                state += [TensorSpec(f"{name}{i}", FOLD, (n, c.kv_heads, c.folds, width)) for name, width in widths]
        for t in (*step, *state):
            self.g.inputs.append(_value(t))
        return (*step, *state), tuple(state)

    def _residual(self, x: str, y: str) -> str:
        return str(self.g.node("Add", [x, y]))

    def _entities(self) -> str:
        """Latents and projected tokens, [n,d]."""
        g, c = self.g, self.c
        tokens = (
            g.linear("det", "token", self.w["token.weight"], self.w["token.bias"])
            if c.token_dim and c.tracks
            else "det"
        )
        if not c.latents:
            return g.reshape(tokens, -1, c.d_model)
        latent = g.const("latent", self.w["latent"][None])
        if not c.tracks:
            cameras = g.node("Slice", [g.node("Shape", ["ctx"]), g.ints(0), g.ints(1)])
            tokens = g.node("Expand", [latent, g.node("Concat", [cameras, g.ints(1, 1)], axis=0)])
            return g.reshape(tokens, -1, c.d_model)
        zero = g.const("zero_latent", np.zeros((1, c.latents, c.d_model)))
        # broadcast the latents to the batch without Shape or Expand: 0 * one token a camera + latents
        first = g.node("Slice", [tokens, g.ints(0), g.ints(1), g.ints(1)])
        spread = g.node("Add", [g.node("Mul", [first, zero]), latent])
        return g.reshape(g.node("Concat", [spread, tokens], axis=1), -1, c.d_model)

    def _prepare(self) -> None:
        """What all layers share: what is added to queries and keys [n,h+g,1,d_h] (or keys alone), and the write-enable as a column.

        A query's last channel is 1; a key's is 1 where it is written and -1e4 where not.
        """
        g, c = self.g, self.c
        queries = 0 if self._is_apart else c.heads
        last = np.zeros((1, queries + c.kv_heads, 1, c.d_head))
        is_key = np.arange(queries + c.kv_heads) >= queries
        last[..., -1] = 1.0
        # made in float32: -1e4 + (1e4 + 1) is 0, not 1, in half precision
        slope = last * is_key[:, None, None] * (1.0 - INVALID)
        base = last * np.where(is_key, INVALID, 1.0)[:, None, None]
        rise = g.node("Mul", [g.reshape("we", -1, 1, 1, 1), g.const("valid_slope", slope, FOLD)])
        self.valid = g.uncast(g.node("Add", [rise, g.const("valid_base", base, FOLD)]), FOLD)
        if c.folds:
            self.written = g.reshape("we", -1, 1, 1, 1)
            self.decay = g.reshape("dec", -1, 1, c.folds, 1)

    def _context(self) -> list[tuple[str, str]]:
        """Keys and values of the context for every layer from one product: [C,P,d] each, keys normalised."""
        g, c = self.g, self.c
        if not c.context:
            return []
        y = g.node("Add", ["ctx", g.const("context_place", self.w["context_place"])])
        y = g.layer_norm(y, "norm_c", self.w["norm_c.weight"], self.w["norm_c.bias"])
        both = [np.split(self.w[f"layers.{i}.c_kv.weight"], 2) for i in range(c.layers)]
        stacked = np.concatenate([k for k, _ in both] + [v for _, v in both])
        kv = g.node("Split", [g.linear(y, "c_kv", stacked), g.ints(*[c.d_kv] * (2 * c.layers))], 2 * c.layers, axis=-1)
        return [(self._unit_keys(kv[i]), kv[c.layers + i]) for i in range(c.layers)]

    def _unit_keys(self, k: str) -> str:
        """[C,M,d] -> the same with every head's key of length one."""
        return self.g.rms_norm(self.g.reshape(k, 0, -1, self.c.kv_heads, self.c.d_head), "unit", self._unit)

    @property
    def _unit(self) -> Array:
        return np.full(self.c.d_head, self.c.d_head**-0.5)

    def _gained(self, heads: str, name: str, gain: Array, rank: int) -> str:
        """Normalised queries and keys of all heads [...,h+g,(1,)d_h]; the queries times their gain, the keys of length one."""
        c = self.c
        unit = self.g.rms_norm(heads, "unit", self._unit)
        each = np.concatenate((np.tile(gain / self._unit, (c.heads, 1)), np.ones((c.kv_heads, c.d_head))))
        shape = (1, c.heads + c.kv_heads, 1, c.d_head) if rank == 4 else (1, 1, c.heads + c.kv_heads, c.d_head)
        return str(self.g.node("Mul", [unit, self.g.const(name, each.reshape(shape))]))

    def _temporal(self, i: int, w: Mapping[str, Array], x: str) -> str:
        g, c = self.g, self.c
        live = np.tile(np.arange(c.d_head) < c.d_head - 1, c.heads + c.kv_heads)
        weight = w["qkv.weight"] * np.concatenate((live, np.ones(c.d_kv)))[:, None]
        y = g.layer_norm(x, f"{i}.norm_t", w["norm_t.weight"], w["norm_t.bias"])
        make = self._apart if self._is_apart else self._together
        q, k, v, plain = make(i, w, g.linear(y, f"{i}.qkv", weight))
        if c.group > 1:  # query heads that share keys become rows of one product
            q = g.reshape(q, -1, c.kv_heads, c.group, c.d_head)
        a = g.attend(q, g.ring_write(f"K{i}", k, c.window), g.ring_write(f"V{i}", v, c.window))
        if c.folds:
            a = g.node("Add", [a, self._fold(i, w, q, plain, v)])
        return g.linear(g.reshape(a, -1, c.d_model), f"{i}.out", w["out.weight"], w["out.bias"])

    @property
    def _is_apart(self) -> bool:
        """Queries and keys are made one by one: joint ones pay where keys are few, and TensorRT cannot have them (``_apart``)."""
        return self.g.fused and (self.dtype == "float16" or self.c.group == 1)

    def _together(self, i: int, w: Mapping[str, Array], qkv: str) -> tuple[str, str, str, str]:
        """q [n,h,1,d_h], k and v [n,g,1,d_h], and k without validity; one node for queries and keys alike."""
        g, c = self.g, self.c
        heads = g.reshape(qkv, -1, c.heads + 2 * c.kv_heads, 1, c.d_head)
        qk, v = g.node("Split", [heads, g.ints(c.heads + c.kv_heads, c.kv_heads)], 2, axis=1)
        turned = g.rotate(self._gained(qk, f"{i}.q_gain", w["q_gain"], 4), c.rotary_dim, c.d_head)
        q, k = g.node("Split", [g.node("Add", [turned, self.valid]), g.ints(c.heads, c.kv_heads)], 2, axis=1)
        if not c.folds:
            return q, k, v, ""
        return q, k, v, str(g.node("Slice", [turned, g.ints(c.heads), g.ints(c.heads + c.kv_heads), g.ints(1)]))

    def _apart(self, i: int, w: Mapping[str, Array], qkv: str) -> tuple[str, str, str, str]:
        """The same with queries and keys apart: TensorRT-RTX 1.7.1 fails on the other ("uses before defs", 2026-11)."""
        g, c = self.g, self.c
        if self.dtype == "float16":
            parts = g.node("Split", [qkv, g.ints(c.d_model, c.d_kv, c.d_kv)], 3, axis=-1)
            q, k, v = (
                g.reshape(z, -1, n, 1, c.d_head) for z, n in zip(parts, (c.heads, c.kv_heads, c.kv_heads), strict=True)
            )
        else:  # one node less, which TensorRT-RTX fails on, too
            heads = g.reshape(qkv, -1, c.heads + 2 * c.kv_heads, 1, c.d_head)
            q, k, v = g.node("Split", [heads, g.ints(c.heads, c.kv_heads, c.kv_heads)], 3, axis=1)
        q = g.rotate(g.rms_norm(q, f"{i}.q_gain", w["q_gain"]), c.rotary_dim, c.d_head)
        plain = g.rms_norm(k, "unit", self._unit)
        last = np.eye(c.d_head)[-1]
        q = g.node("Add", [q, g.const("q_valid", last)])
        k = g.node("Add", [g.rotate(plain, c.rotary_dim, c.d_head), self.valid])
        return q, k, v, plain

    def _fold(self, i: int, w: Mapping[str, Array], q: str, plain: str, v: str) -> str:
        """Update the means MK{i}, MV{i} and their weights D{i}, and read them; float32.

        ``plain`` are the keys without validity; only the half that does not turn is read of them.
        """
        g, c = self.g, self.c
        logits = g.node("MatMul", [g.reshape(plain, -1, c.d_kv), g.const(f"{i}.fold", self._directions(w))])
        weight = g.reshape(g.node("Exp", [g.cast(logits, FOLD)]), -1, c.kv_heads, c.folds, 1)
        weight = g.node("Mul", [weight, self.written])
        total = g.node("Add", [g.node("Mul", [f"D{i}", self.decay]), weight], f"n_D{i}")
        share = g.node("Div", [weight, g.node("Max", [total, g.const("fold_floor", 1e-30, FOLD)])])
        keep = g.node("Sub", [g.const("fold_one", 1.0, FOLD), share])
        means = []
        for name, now in (("MK", g.slice_last(plain, c.rotary_dim, c.d_head)), ("MV", v)):
            old, new = g.node("Mul", [f"{name}{i}", keep]), g.node("Mul", [share, g.cast(now, FOLD)])
            means.append(g.uncast(g.node("Add", [old, new], f"n_{name}{i}"), FOLD))
        read = g.attend_few(g.slice_last(q, c.rotary_dim, c.d_head), *means)
        gate = np.tanh(w["fold_gate"]).reshape(c.kv_heads, c.group, 1)
        return str(g.node("Mul", [read, g.const(f"{i}.gate", gate)]))

    def _directions(self, w: Mapping[str, Array]) -> Array:
        """Fold directions of all heads as one block-diagonal matrix [d_kv, g*M], 3 mu / |mu|; one product instead of g."""
        c = self.c
        mu = w["fold_direction"] / np.linalg.norm(w["fold_direction"], axis=-1, keepdims=True)
        out = np.zeros((c.kv_heads, c.d_head, c.kv_heads, c.folds))
        for head in range(c.kv_heads):
            out[head, c.rotary_dim : -1, head] = 3.0 * mu[head].T
        return out.reshape(c.d_kv, c.kv_heads * c.folds)

    def _cross(self, i: int, w: Mapping[str, Array], x: str, context: list[tuple[str, str]]) -> str:
        g, c = self.g, self.c
        y = g.layer_norm(x, f"{i}.norm_x", w["norm_x.weight"], w["norm_x.bias"])
        parts = g.ints(c.d_model + c.d_kv, c.d_kv)
        qk, v = g.node("Split", [g.linear(y, f"{i}.x_qkv", w["x_qkv.weight"]), parts], 2, axis=-1)
        qk = g.reshape(qk, -1, c.streams, c.heads + c.kv_heads, c.d_head)
        q, k = g.node(
            "Split", [self._gained(qk, f"{i}.x_gain", w["x_gain"], 3), g.ints(c.heads, c.kv_heads)], 2, axis=2
        )
        v = g.reshape(v, -1, c.streams, c.kv_heads, c.d_head)
        if context:
            k = g.node("Concat", [context[i][0], k], axis=1)
            v = g.node("Concat", [g.reshape(context[i][1], 0, -1, c.kv_heads, c.d_head), v], axis=1)
        if g.fused:  # the runtime's own order of heads: no transposes here
            flat = (
                g.reshape(z, 0, 0, heads * c.d_head) for z, heads in ((q, c.heads), (k, c.kv_heads), (v, c.kv_heads))
            )
            sizes = {"q_num_heads": c.heads, "kv_num_heads": c.kv_heads}
            a = g.reshape(g.node("Attention", [*flat, "xmask"], scale=1.0, **sizes), -1, c.d_model)
            return g.linear(a, f"{i}.x_out", w["x_out.weight"], w["x_out.bias"])
        q, k, v = (g.node("Transpose", [z], perm=[0, 2, 1, 3]) for z in (q, k, v))
        if c.group > 1:  # without grouped heads the keys are repeated: [C,g,M,c] -> [C,h,M,c]
            k, v = (self._repeat_heads(z) for z in (k, v))
        a = g.node("Transpose", [g.attend(q, k, v, "xmask")], perm=[0, 2, 1, 3])
        return g.linear(g.reshape(a, -1, c.d_model), f"{i}.x_out", w["x_out.weight"], w["x_out.bias"])

    def _repeat_heads(self, x: str) -> str:
        index = self.g.const("head_of", np.repeat(np.arange(self.c.kv_heads), self.c.group), "int64")
        return str(self.g.node("Gather", [x, index], axis=1))

    def _outputs(self, x: str) -> None:
        g, c, w, f = self.g, self.c, self.w, self.dtype
        y = g.layer_norm(x, "norm", w["norm.weight"], w["norm.bias"])
        g.node("Reshape", [y, g.ints(-1, c.streams, c.d_model)], "y")
        specs = [TensorSpec("y", f, (-1, c.streams, c.d_model))]
        tracks = ""
        if c.tracks and (c.evidence or c.identity_dim):
            tracks = str(g.node("Slice", ["y", g.ints(c.latents), g.ints(c.streams), g.ints(1)]))
        if c.evidence and c.tracks:
            self._head("evidence", tracks)
            specs.append(TensorSpec("evidence", f, (-1, c.tracks, len(c.evidence))))
        if c.identity_dim and c.tracks:
            raw = g.linear(tracks, "identity_head", w["identity_head.weight"], w["identity_head.bias"])
            norm = g.node("ReduceL2", [raw, g.ints(-1)], keepdims=1)
            g.node("Div", [raw, g.node("Max", [norm, g.const("eps_unit", 1e-12 if f == FOLD else 1e-7)])], "identity")
            specs.append(TensorSpec("identity", f, (-1, c.tracks, c.identity_dim)))
        if c.latents and (c.context or c.scene_evidence):
            latents = g.node("Slice", ["y", g.ints(0), g.ints(c.latents), g.ints(1)])
            mean = g.node("ReduceMean", [latents, g.ints(1)], keepdims=0)
            if c.context:
                self._head("forecast", mean)
                specs.append(TensorSpec("forecast", f, (-1, c.context_dim)))
            if c.scene_evidence:
                self._head("scene", mean)
                specs.append(TensorSpec("scene", f, (-1, len(c.scene_evidence))))
        specs += [TensorSpec(f"n_{t.name}", t.dtype, t.shape) for t in self.state_specs]
        self.output_specs = tuple(specs)
        g.outputs += [_value(t) for t in specs]

    def _head(self, name: str, x: str) -> None:
        weight, bias = self.w[f"{name}_head.weight"], self.w[f"{name}_head.bias"]
        product = self.g.node("MatMul", [x, self.g.const(f"{name}_head.w", weight.T)])
        self.g.node("Add", [product, self.g.const(f"{name}_head.b", bias)], name)


def _value(t: TensorSpec) -> Any:
    shape = [("C" if s == -1 else "n") if s < 0 else s for s in t.shape]
    return helper.make_tensor_value_info(t.name, ELEMENTS[t.dtype], shape)

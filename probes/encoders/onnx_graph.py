"""The ONNX graph of a BERT encoder, written node by node from its weights: token ids in, pooled features out.

Written by hand, not traced, because what makes it fast is which operators it is made of (docs/performance.md): one
product for query, key and value, fused attention and GELU, separate additions before the normalisations (ONNX
Runtime's fused operator for both is six times slower), int8 products with a scale per output channel and per token.
Needs `onnx` and `numpy`, neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.errors import EncoderError

Weights = Mapping[str, npt.NDArray[np.float32]]

#: Input and output of the graph.
IDS, FEATURES = "input_ids", "features"

_ONNX_OPSET, _IR_VERSION = 17, 8
_MICROSOFT = "com.microsoft"

# A token whose values are all smaller is scaled as if its largest were this. GELU is never below -0.17: from here on
# its largest value is also the largest in size.
_LEAST_SIZE = 0.25

#: What config.json must say for this graph to be the model's.
_REQUIRED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}


def bert_graph(weights: Weights, config: Mapping[str, Any], parts: Sequence[tuple[str, int]], precision: str) -> bytes:
    """The serialised ONNX model that computes `parts` of a BERT encoder.

    Args:
        weights: tensors of `model.safetensors`, float32.
        config: `config.json`.
        parts: (kind, half layers) of the pooling, kind one of mean, max, cls; what comes after the highest is left out.
        precision: `float32`, or `int8`: products in int8, the rest in float32.

    The model takes `input_ids` (1, tokens) int64 and gives `features` (1, d) float32. Raises EncoderError for another
    architecture, naming what differs.
    """
    wrong = [f"{k}={config.get(k)!r}" for k, v in _REQUIRED.items() if config.get(k, v) != v]
    if wrong:
        raise EncoderError(
            f"export is for BERT encoders with {_REQUIRED}; this one has {', '.join(wrong)}. Serve it with precision "
            f"float32, which runs in torch."
        )
    highest = max(halves for _, halves in parts)
    if highest > 2 * config["num_hidden_layers"]:
        raise EncoderError(f"pooling must name layers up to {config['num_hidden_layers']}, got {highest / 2:g}.")
    try:
        return _Bert(weights, config, precision).build(parts, highest)
    except KeyError as error:
        raise EncoderError(f"the weights have no tensor {error}; they are not of a BERT encoder.") from error


class _Bert:
    """Collects nodes and constants; every method adds its nodes and gives the name of what they compute."""

    def __init__(self, weights: Weights, config: Mapping[str, Any], precision: str) -> None:
        prefix = "bert." if any(name.startswith("bert.") for name in weights) else ""
        self._tensors = {name.removeprefix(prefix): value for name, value in weights.items()}
        self._config = config
        self._int8 = precision == "int8"
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._known: set[str] = set()

    def build(self, parts: Sequence[tuple[str, int]], highest: int) -> bytes:
        from onnx import TensorProto, helper

        states = [self._embeddings()]
        for halves in range(highest):
            half = self._feed_forward if halves % 2 else self._attention
            states.append(half(halves // 2, states[-1]))
        self._node("Concat", [self._pool(kind, halves, states[halves]) for kind, halves in parts], FEATURES, axis=1)
        width = len(parts) * int(self._config["hidden_size"])
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [helper.make_tensor_value_info(IDS, TensorProto.INT64, [1, "tokens"])],
            [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, [1, width])],
            self._constants,
        )
        opsets = [helper.make_opsetid("", _ONNX_OPSET), helper.make_opsetid(_MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="elle-router")
        serialised: bytes = model.SerializeToString(deterministic=True)
        return serialised

    def _embeddings(self) -> str:
        tensor = self._tensors
        words = tensor["embeddings.word_embeddings.weight"]
        # Two bytes a number halve the file; float16 rounds by 1/2048, far below int8's step.
        table = self._constant("words", words.astype(np.float16) if self._int8 else words)
        found = self._node("Gather", [table, IDS], "words.rows")
        if self._int8:
            found = self._node("Cast", [found], "words.float", to=1)
        # Only segment 0 exists here, so its embedding is part of every position's.
        positions = (
            tensor["embeddings.position_embeddings.weight"] + tensor["embeddings.token_type_embeddings.weight"][0]
        )
        start = self._constant("zero", np.array([0], np.int64))
        length = self._node("Shape", [IDS], "length", start=1, end=2)
        where = self._node("Slice", [self._constant("positions", positions), start, length, start], "positions.rows")
        total = self._node("Add", [found, where], "embedded")
        return self._normalise(total, "embeddings", "state.0")

    def _attention(self, number: int, state: str) -> str:
        old, new = f"encoder.layer.{number}", f"layer.{number}"
        merged = self._product(state, [f"{old}.attention.self.{part}" for part in ("query", "key", "value")])
        q_k_v = [f"{new}.{part}" for part in "qkv"]
        self._add("Split", [merged, self._thirds()], q_k_v, axis=2)
        heads = int(self._config["num_attention_heads"])
        attended = self._node("MultiHeadAttention", q_k_v, f"{new}.attended", domain=_MICROSOFT, num_heads=heads)
        mixed = self._product(attended, [f"{old}.attention.output.dense"])
        mixed = self._node("Add", [mixed, state], f"{new}.mixed")
        return self._normalise(mixed, f"{old}.attention.output", f"{new}.middle")

    def _feed_forward(self, number: int, middle: str) -> str:
        old, new = f"encoder.layer.{number}", f"layer.{number}"
        bias = self._constant(f"{new}.bias", self._tensors[f"{old}.intermediate.dense.bias"])
        wide = self._product(middle, [f"{old}.intermediate.dense"], with_bias=False)
        wide = self._node("BiasGelu", [wide, bias], f"{new}.wide", domain=_MICROSOFT)
        narrow = self._product(wide, [f"{old}.output.dense"], after_gelu=True)
        total = self._node("Add", [narrow, middle], f"{new}.total")
        return self._normalise(total, f"{old}.output", f"state.{number + 1}")

    def _product(self, x: str, names: Sequence[str], *, with_bias: bool = True, after_gelu: bool = False) -> str:
        """x W' + b; several layers at once side by side."""
        name = names[0].removeprefix("encoder.")
        weight = np.concatenate([self._tensors[f"{one}.weight"] for one in names])
        bias = np.concatenate([self._tensors[f"{one}.bias"] for one in names])
        added = [self._constant(f"{name}.b", bias)] if with_bias else []
        if not self._int8:
            product = self._node("MatMul", [x, self._constant(f"{name}.w", weight.T)], f"{name}.product")
            return self._node("Add", [product, *added], f"{name}.out") if added else product
        quantised, scale = quantise(weight)
        inputs = [self._constant(f"{name}.w", quantised.T), self._constant(f"{name}.scale", scale)]
        # The operator takes one scale for all tokens, and that wastes most of the eight bits where tokens differ in
        # size. x / s has one size; the product is scaled back.
        sized = x if after_gelu else self._node("Abs", [x], f"{name}.abs")
        size = self._node("ReduceMax", [sized], f"{name}.largest", axes=[-1], keepdims=1)
        size = self._node("Max", [size, self._constant("least", np.float32(_LEAST_SIZE))], f"{name}.size")
        scaled = self._node("Div", [x, size], f"{name}.scaled")
        product = self._node("DynamicQuantizeMatMul", [scaled, *inputs], f"{name}.product", domain=_MICROSOFT)
        product = self._node("Mul", [product, size], f"{name}.rescaled")
        return self._node("Add", [product, *added], f"{name}.out") if added else product

    def _normalise(self, x: str, name: str, out: str) -> str:
        scale = self._constant(f"{out}.gamma", self._tensors[f"{name}.LayerNorm.weight"])
        shift = self._constant(f"{out}.beta", self._tensors[f"{name}.LayerNorm.bias"])
        epsilon = float(self._config.get("layer_norm_eps", 1e-12))
        return self._node("LayerNormalization", [x, scale, shift], out, epsilon=epsilon)

    def _pool(self, kind: str, halves: int, state: str) -> str:
        out = f"{kind}.{halves}"
        if kind == "cls":
            return self._node("Gather", [state, self._constant("first", np.int64(0))], out, axis=1)
        return self._node("ReduceMean" if kind == "mean" else "ReduceMax", [state], out, axes=[1], keepdims=0)

    def _thirds(self) -> str:
        return self._constant("thirds", np.full(3, self._config["hidden_size"], np.int64))

    def _constant(self, name: str, value: npt.NDArray[Any] | np.generic) -> str:
        from onnx import numpy_helper

        if name not in self._known:
            self._known.add(name)
            # ascontiguousarray would make a vector of a scalar.
            self._constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def _node(self, kind: str, inputs: Sequence[str], out: str, **attributes: Any) -> str:
        self._add(kind, inputs, [out], **attributes)
        return out

    def _add(self, kind: str, inputs: Sequence[str], outs: Sequence[str], **attributes: Any) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node(kind, list(inputs), list(outs), name=outs[0], **attributes))


def quantise(weight: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Symmetric int8 with one scale per row (output channel): weight (n, k) -> int8 (n, k), scale (n,), w = q * s.

    Sums that AVX2 takes in 16 bits fit there, whatever the activations in 0 to 255: of eight products in
    `native/int8_encoder.c`, of two in ONNX Runtime.
    """
    n, k = weight.shape
    # The eight: of sixteen inputs in a row the first or the last two of every four.
    eights = np.pad(weight, ((0, 0), (0, -k % 16))).reshape(n, -1, 4, 2, 2)
    most = np.maximum(*(np.maximum(sign * eights, 0).sum(axis=(2, 4)).max(axis=(1, 2)) for sign in (1, -1)))
    # Rounding adds a half at most to each of the eight.
    scale = np.maximum(np.abs(weight).max(axis=1) / 127, most / (32767 // 255 - 4))
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.rint(weight / scale[:, np.newaxis]).astype(np.int8), scale

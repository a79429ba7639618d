"""Write the ONNX graph of a BERT encoder node by node from its weights. It maps token ids to pooled features.

Written by hand, not traced, because what makes it fast is which operators it is made of (docs/performance.md): one
product for query, key and value, fused attention and GELU, separate additions before the normalisations (ONNX
Runtime's fused operator for both is six times slower), int8 products with a scale per output channel and per token.
Needs `onnx` and `numpy`, neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.encoders.weights import EncoderWeights
from probes.errors import EncoderError

#: Input and output of the graph.
IDS, FEATURES = "input_ids", "features"

_ONNX_OPSET, _IR_VERSION = 17, 8
_MICROSOFT = "com.microsoft"

# A token whose values are all smaller is scaled as if its largest were this. GELU is never below -0.17: from here on
# its largest value is also the largest in size.
_LEAST_SIZE = 0.25


def bert_graph(weights: EncoderWeights, parts: Sequence[tuple[str, int]]) -> bytes:
    """Return the serialised ONNX model that computes `parts` of a BERT encoder.

    Args:
        weights: of the encoder, in float32 or int8.
        parts: (kind, half layers) of the pooling, kind one of mean, max, cls.

    The model takes `input_ids` (1, tokens) int64 and gives `features` (1, d) float32. Raises EncoderError for a half
    layer that the weights do not have, and without `onnx` installed.
    """
    highest = max(halves for _, halves in parts)
    if highest > weights.halves:
        raise EncoderError(f"the encoder must have the half layers of {list(parts)}, it has {weights.halves}.")
    try:
        return _Bert(weights).build(parts, highest)
    except ModuleNotFoundError as error:
        raise EncoderError(
            f"writing an encoder's graph needs {error.name}, which is not installed; install it with "
            f"`pip install 'elle-router[serve]'`."
        ) from error


class _Bert:
    """Builds the ONNX graph of a BERT encoder. Every method adds its nodes and returns the name of their result.

    They are added to the model where they stay: with the weights in them, every copy of a graph is one of 90 MB.
    """

    def __init__(self, weights: EncoderWeights) -> None:
        from onnx import helper

        self._weights = weights
        opsets = [helper.make_opsetid("", _ONNX_OPSET), helper.make_opsetid(_MICROSOFT, 1)]
        empty = helper.make_graph([], "encoder", [], [])
        self._model = helper.make_model(
            empty, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="elle-router"
        )
        self._known: set[str] = set()

    def build(self, parts: Sequence[tuple[str, int]], highest: int) -> bytes:
        from onnx import TensorProto, helper

        graph, width = self._model.graph, len(parts) * self._weights.hidden
        graph.input.append(helper.make_tensor_value_info(IDS, TensorProto.INT64, [1, "tokens"]))
        graph.output.append(helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, [1, width]))
        states = [self._embeddings()]
        for halves in range(highest):
            half = self._feed_forward if halves % 2 else self._attention
            states.append(half(halves // 2, states[-1]))
        self._node("Concat", [self._pool(kind, halves, states[halves]) for kind, halves in parts], FEATURES, axis=1)
        serialised: bytes = self._model.SerializeToString(deterministic=True)
        return serialised

    def _embeddings(self) -> str:
        found = self._node("Gather", [self._tensor("words"), IDS], "words.rows")
        if self._weights.int8:
            found = self._node("Cast", [found], "words.float", to=1)
        start = self._constant("zero", np.array([0], np.int64))
        length = self._node("Shape", [IDS], "length", start=1, end=2)
        where = self._node("Slice", [self._tensor("positions"), start, length, start], "positions.rows")
        total = self._node("Add", [found, where], "embedded")
        return self._normalise(total, "state.0")

    def _attention(self, number: int, state: str) -> str:
        name = f"layer.{number}"
        merged = self._product(state, f"{name}.attention.self.query")
        q_k_v = [f"{name}.{part}" for part in "qkv"]
        self._add(
            "Split", [merged, self._constant("thirds", np.full(3, self._weights.hidden, np.int64))], q_k_v, axis=2
        )
        heads = self._weights.heads
        attended = self._node("MultiHeadAttention", q_k_v, f"{name}.attended", domain=_MICROSOFT, num_heads=heads)
        mixed = self._product(attended, f"{name}.attention.output.dense")
        mixed = self._node("Add", [mixed, state], f"{name}.mixed")
        return self._normalise(mixed, f"{name}.middle")

    def _feed_forward(self, number: int, middle: str) -> str:
        name = f"layer.{number}"
        wide = self._product(middle, f"{name}.intermediate.dense", with_bias=False)
        bias = self._tensor(f"{name}.intermediate.dense.b")
        wide = self._node("BiasGelu", [wide, bias], f"{name}.wide", domain=_MICROSOFT)
        narrow = self._product(wide, f"{name}.output.dense", after_gelu=True)
        total = self._node("Add", [narrow, middle], f"{name}.total")
        return self._normalise(total, f"state.{number + 1}")

    def _product(self, x: str, name: str, *, with_bias: bool = True, after_gelu: bool = False) -> str:
        """Add the nodes of the product x W + b, optionally without the bias or with GELU after it."""
        added = [self._tensor(f"{name}.b")] if with_bias else []
        if not self._weights.int8:
            product = self._node("MatMul", [x, self._tensor(f"{name}.w")], f"{name}.product")
            return self._node("Add", [product, *added], f"{name}.out") if added else product
        inputs = [self._tensor(f"{name}.w"), self._tensor(f"{name}.scale")]
        # The operator takes one scale for all tokens, and that wastes most of the eight bits where tokens differ in
        # size. x / s has one size; the product is scaled back.
        sized = x if after_gelu else self._node("Abs", [x], f"{name}.abs")
        size = self._node("ReduceMax", [sized], f"{name}.largest", axes=[-1], keepdims=1)
        size = self._node("Max", [size, self._constant("least", np.float32(_LEAST_SIZE))], f"{name}.size")
        scaled = self._node("Div", [x, size], f"{name}.scaled")
        product = self._node("DynamicQuantizeMatMul", [scaled, *inputs], f"{name}.product", domain=_MICROSOFT)
        product = self._node("Mul", [product, size], f"{name}.rescaled")
        return self._node("Add", [product, *added], f"{name}.out") if added else product

    def _normalise(self, x: str, out: str) -> str:
        inputs = [x, self._tensor(f"{out}.gamma"), self._tensor(f"{out}.beta")]
        return self._node("LayerNormalization", inputs, out, epsilon=self._weights.epsilon)

    def _pool(self, kind: str, halves: int, state: str) -> str:
        out = f"{kind}.{halves}"
        if kind == "cls":
            return self._node("Gather", [state, self._constant("first", np.int64(0))], out, axis=1)
        return self._node("ReduceMean" if kind == "mean" else "ReduceMax", [state], out, axes=[1], keepdims=0)

    def _tensor(self, name: str) -> str:
        return self._constant(name, self._weights.tensors[name])

    def _constant(self, name: str, value: npt.NDArray[Any] | np.generic) -> str:
        from onnx import helper

        if name not in self._known:
            self._known.add(name)
            array = np.asarray(value)
            tensor = self._model.graph.initializer.add()
            tensor.name, tensor.data_type = name, helper.np_dtype_to_tensor_dtype(array.dtype)
            tensor.dims.extend(array.shape)
            # Little-endian and in C's order, whatever the array is.
            tensor.raw_data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        return name

    def _node(self, kind: str, inputs: Sequence[str], out: str, **attributes: Any) -> str:
        self._add(kind, inputs, [out], **attributes)
        return out

    def _add(self, kind: str, inputs: Sequence[str], outs: Sequence[str], **attributes: Any) -> None:
        from onnx import helper

        node = helper.make_node(kind, list(inputs), list(outs), name=outs[0], **attributes)
        self._model.graph.node.append(node)

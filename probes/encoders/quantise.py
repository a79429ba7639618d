"""Turn a BERT encoder's original tensors and config.json into the `EncoderWeights` that serve, in float32 or int8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.encoders.weights import EncoderWeights
from probes.errors import EncoderError

Tensors = Mapping[str, npt.NDArray[np.float32]]

#: What config.json must say for this to be the model's arithmetic.
_REQUIRED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}


def export_weights(tensors: Tensors, config: Mapping[str, Any], halves: int, *, int8: bool) -> EncoderWeights:
    """Return the weights of the first half layers of a BERT encoder.

    Args:
        tensors: those of `model.safetensors`, float32.
        config: `config.json`.
        halves: half layers to keep, 5 for layers 0 and 1 and the attention of layer 2.
        int8: products in int8 (`quantise`), word embeddings in float16; otherwise all in float32.

    Raises EncoderError for another architecture, naming what differs, and for tensors that are not of one.
    """
    wrong = [f"{k}={config.get(k)!r}" for k, v in _REQUIRED.items() if config.get(k, v) != v]
    if wrong:
        raise EncoderError(
            f"export is for BERT encoders with {_REQUIRED}; this one has {', '.join(wrong)}. Serve it with precision "
            f"float32, which runs in torch."
        )
    layers, heads = (_number(config, name) for name in ("num_hidden_layers", "num_attention_heads"))
    if halves > 2 * layers:
        raise EncoderError(f"pooling must name layers up to {layers}, got {halves / 2:g}.")
    epsilon = config.get("layer_norm_eps", 1e-12)
    if not isinstance(epsilon, float):
        raise EncoderError(f"layer_norm_eps of config.json must be a number, got {epsilon!r}.")
    prefix = "bert." if any(name.startswith("bert.") for name in tensors) else ""
    found = {name.removeprefix(prefix): value for name, value in tensors.items()}
    try:
        return EncoderWeights(_Export(found, int8).all(halves), heads, epsilon, halves, int8)
    except KeyError as error:
        raise EncoderError(f"the weights have no tensor {error}; they are not of a BERT encoder.") from error
    except (IndexError, ValueError) as error:
        raise EncoderError(f"the weights are not of a BERT encoder: {error}.") from error


class _Export:
    """Translates BERT's own names of weights to the names and number formats of `weights.table`."""

    def __init__(self, source: Tensors, int8: bool) -> None:
        self._source = source
        self._int8 = int8
        self._found: dict[str, npt.NDArray[Any]] = {}

    def all(self, halves: int) -> dict[str, npt.NDArray[Any]]:
        source = self._source
        words = source["embeddings.word_embeddings.weight"]
        # Two bytes a number halve the file; float16 rounds by 1/2048, far below int8's step.
        self._found["words"] = words.astype(np.float16) if self._int8 else words
        # Only segment 0 exists here, so its embedding is part of every position's.
        segment = source["embeddings.token_type_embeddings.weight"][0]
        self._found["positions"] = source["embeddings.position_embeddings.weight"] + segment
        self._norm("embeddings", "state.0")
        for half in range(halves):
            old, new = f"encoder.layer.{half // 2}", f"layer.{half // 2}"
            if half % 2:
                self._product(f"{new}.intermediate.dense", f"{old}.intermediate.dense")
                self._product(f"{new}.output.dense", f"{old}.output.dense")
                self._norm(f"{old}.output", f"state.{half // 2 + 1}")
            else:
                three = [f"{old}.attention.self.{part}" for part in ("query", "key", "value")]
                self._product(f"{new}.attention.self.query", *three)
                self._product(f"{new}.attention.output.dense", f"{old}.attention.output.dense")
                self._norm(f"{old}.attention.output", f"{new}.middle")
        return self._found

    def _product(self, new: str, *names: str) -> None:
        # Several layers that read the same are one product, side by side.
        weight = np.concatenate([self._source[f"{one}.weight"] for one in names])
        self._found[f"{new}.b"] = np.concatenate([self._source[f"{one}.bias"] for one in names])
        if self._int8:
            weight, self._found[f"{new}.scale"] = quantise(weight)
        self._found[f"{new}.w"] = np.ascontiguousarray(weight.T)

    def _norm(self, old: str, new: str) -> None:
        for ours, theirs in (("gamma", "weight"), ("beta", "bias")):
            self._found[f"{new}.{ours}"] = self._source[f"{old}.LayerNorm.{theirs}"]


def quantise(weight: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return a weight (n, k) as symmetric int8 q (n, k) with one scale s (n,) per row, the output channel: w = q * s.

    Sums that AVX2 takes in 16 bits fit there, whatever the activations in 0 to 255: of eight products in
    `native/int8_encoder.c`, of two in ONNX Runtime.
    """
    n, k = weight.shape
    # The eight: of sixteen inputs in a row the first or the last two of every four.
    eights = np.pad(weight, ((0, 0), (0, -k % 16))).reshape(n, -1, 4, 2, 2)
    most = np.maximum(*(_sum_of_eight(np.maximum(sign * eights, 0)).max(axis=(1, 2)) for sign in (1, -1)))
    # Rounding adds a half at most to each of the eight.
    scale = np.maximum(np.abs(weight).max(axis=1) / 127, most / (32767 // 255 - 4))
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.rint(weight / scale[:, np.newaxis]).astype(np.int8), scale


def _sum_of_eight(eights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    # In one order whatever numpy would choose, because the last bit of a scale is part of what an encoder is.
    first, *others = (eights[:, :, four, :, 0] + eights[:, :, four, :, 1] for four in range(4))
    for one in others:
        first = first + one
    return first


def _number(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise EncoderError(f"{name} of config.json must be a whole number of 1 or more, got {value!r}.")
    return value

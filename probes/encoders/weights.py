"""Check the weights of an exported BERT encoder against a table of names, shapes and number formats.

Every runtime of ours takes an `EncoderWeights` and nothing else, so that no file's number becomes a length, an index or
a pointer before it was compared with what the architecture says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.errors import EncoderError

Tensors = Mapping[str, npt.NDArray[Any]]

#: Most of each, far above any BERT. Lengths and offsets of these sizes fit the 32 bits that `native/` counts in.
MOST_HIDDEN, MOST_INNER, MOST_HALVES, MOST_VOCABULARY, MOST_POSITIONS = 8192, 32_768, 200, 1 << 21, 32_768

#: Epsilon of a normalisation lies in this range; models have 1e-12 to 1e-5.
LEAST_EPSILON, MOST_EPSILON = 1e-20, 1e-2

#: The largest sum of eight weights of one sign. AVX2 sums their products with 8-bit activations in 16 bits, and 255
#: times this sum still fits.
MOST_OF_EIGHT = 128

_Row = tuple[type[np.generic], tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class EncoderWeights:
    """Holds everything that the forward pass of a BERT encoder reads up to some half layer.

    It is checked when it is made.

    Attributes:
        tensors: by name, as `table` says; row-major.
        heads: of the attention; divides the hidden size.
        epsilon: of the normalisations, rounded to float32.
        halves: half layers that are there: attention, feed-forward network, attention, ...
        int8: whether products are in int8 with a scale per output channel, and words in float16.

    Raises EncoderError naming the tensor or number that is wrong, and what it must be.
    """

    tensors: Tensors
    heads: int
    epsilon: float
    halves: int
    int8: bool

    def __post_init__(self) -> None:
        _whole("half layers", self.halves, 0, MOST_HALVES)
        sizes = self._sizes()
        _whole("heads", self.heads, 1, self.hidden)
        if self.hidden % self.heads:
            raise EncoderError(f"the number of heads must divide the hidden size {self.hidden}, got {self.heads}.")
        if not isinstance(self.epsilon, float) or not LEAST_EPSILON <= self.epsilon <= MOST_EPSILON:
            raise EncoderError(f"epsilon must be {LEAST_EPSILON:g} to {MOST_EPSILON:g}, got {self.epsilon!r}.")
        object.__setattr__(self, "epsilon", float(np.float32(self.epsilon)))
        rows = table(*sizes, self.halves, int8=self.int8)
        if odd := sorted(rows.keys() ^ self.tensors.keys()):
            raise EncoderError(f"tensors must be those of a BERT encoder; missing or too many: {', '.join(odd[:3])}.")
        for name, (dtype, shape) in rows.items():
            _check(name, self.tensors[name], dtype, shape)

    def _sizes(self) -> tuple[int, int, int, int]:
        words, positions = _matrix(self.tensors, "words"), _matrix(self.tensors, "positions")
        _whole("the vocabulary", words[0], 1, MOST_VOCABULARY)
        _whole("positions", positions[0], 1, MOST_POSITIONS)
        _whole("the hidden size", words[1], 1, MOST_HIDDEN)
        inner = _matrix(self.tensors, "layer.0.intermediate.dense.w")[1] if self.halves > 1 else 0
        _whole("the inner size", inner, 1 if self.halves > 1 else 0, MOST_INNER)
        return words[0], positions[0], words[1], inner

    @property
    def hidden(self) -> int:
        """The width of a hidden state."""
        return int(self.tensors["words"].shape[1])

    @property
    def inner(self) -> int:
        """The width within the feed-forward networks, or 0 if no feed-forward network is run."""
        return int(self.tensors["layer.0.intermediate.dense.w"].shape[1]) if self.halves > 1 else 0

    @property
    def vocabulary(self) -> int:
        """The number of token ids for which the embedding table has a row."""
        return int(self.tensors["words"].shape[0])

    @property
    def positions(self) -> int:
        """The most tokens that a prompt may have, which is the number of position embeddings."""
        return int(self.tensors["positions"].shape[0])

    @cached_property
    def digest(self) -> str:
        """The SHA-256 (hex) over everything in the weights; the same numbers give the same digest on every machine."""
        about = [self.heads, self.epsilon.hex(), self.halves, self.int8]
        found = hashlib.sha256(json.dumps(about).encode())
        for name, array in sorted(self.tensors.items()):
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            found.update(f"\0{name}\0{little.dtype.str}\0{little.shape}\0".encode())
            found.update(little.data)
        return found.hexdigest()


def table(vocabulary: int, positions: int, hidden: int, inner: int, halves: int, *, int8: bool) -> dict[str, _Row]:
    """Return the number format and the shape of every tensor by its name.

    A product has `w` (inputs, outputs) and bias `b`.
    """
    rows: dict[str, _Row] = {
        "words": (np.float16 if int8 else np.float32, (vocabulary, hidden)),
        "positions": (np.float32, (positions, hidden)),
    }

    def product(name: str, k: int, n: int) -> None:
        rows[f"{name}.w"] = np.int8 if int8 else np.float32, (k, n)
        rows[f"{name}.b"] = np.float32, (n,)
        if int8:
            rows[f"{name}.scale"] = np.float32, (n,)

    def norm(name: str) -> None:
        rows[f"{name}.gamma"] = rows[f"{name}.beta"] = np.float32, (hidden,)

    norm("state.0")
    for half in range(halves):
        name = f"layer.{half // 2}"
        if half % 2:
            product(f"{name}.intermediate.dense", hidden, inner)
            product(f"{name}.output.dense", inner, hidden)
            norm(f"state.{half // 2 + 1}")
        else:
            product(f"{name}.attention.self.query", hidden, 3 * hidden)
            product(f"{name}.attention.output.dense", hidden, hidden)
            norm(f"{name}.middle")
    return rows


def _whole(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise EncoderError(f"{name} must be a whole number from {low} to {high}, got {value!r}.")


def _matrix(tensors: Tensors, name: str) -> tuple[int, int]:
    if name not in tensors:
        raise EncoderError(f"the encoder must have the tensor {name}; it is missing.")
    shape = tensors[name].shape
    if len(shape) != 2:
        raise EncoderError(f"tensor {name} must be a matrix, got shape {shape}.")
    return shape[0], shape[1]


def _check(name: str, array: npt.NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise EncoderError(
            f"tensor {name} must be {np.dtype(dtype)} of shape {shape}, got {array.dtype} of shape {array.shape}."
        )
    if dtype != np.int8:
        if not np.isfinite(array).all():
            raise EncoderError(f"tensor {name} must be finite, it holds NaN or infinity.")
        if name.endswith(".scale") and array.min() <= 0:
            raise EncoderError(f"tensor {name} must be greater than 0, its least is {array.min()}.")
    elif (most := _most_of_eight(array)) > MOST_OF_EIGHT:
        raise EncoderError(
            f"eight weights of tensor {name} must add up to {MOST_OF_EIGHT} at most, as 16 bits need, got {most}."
        )


def _most_of_eight(weight: npt.NDArray[np.int8]) -> int:
    # The eight as `quantise.quantise` bounds them: of sixteen inputs in a row the first or last two of every four.
    k, n = weight.shape
    eights = np.pad(weight, ((0, -k % 16), (0, 0))).reshape(-1, 4, 2, 2, n)
    sums = (np.clip(eights, *one).sum(axis=(1, 3), dtype=np.int16) for one in ((0, 127), (-128, 0)))
    return max(int(np.abs(one).max(initial=0)) for one in sums)

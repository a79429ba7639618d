"""Run our own int8 forward pass (`native/`) on an exported encoder. It needs an x86-64 processor with AVX2.

It computes what the graph of `onnx_graph` says, with another rounding between the integer products, and the same bits
on every machine. The library is compiled when the package is installed, if there is a C compiler; without it, or on
another processor, ONNX Runtime serves instead, which is an encoder of another identity.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.encoders.spec import FloatArray
from probes.encoders.weights import EncoderWeights, Tensors
from probes.errors import DataError, EncoderError

_LIBRARY = "probes.encoders._int8_forward"

_KINDS = {"mean": 0, "max": 1, "cls": 2}


@dataclass(frozen=True)
class Target:
    """Describes an instruction set that the library is written for, and how weights must be packed for it.

    Attributes:
        name: suffix of its function.
        panel: columns that stand together, four rows of each side by side.
    """

    name: str
    panel: int

    def packed(self, weight: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Return a weight of shape (k, n) packed as (n / panel, k / 4, panel, 4)."""
        k, n = weight.shape
        return weight.reshape(k // 4, 4, n // self.panel, self.panel).transpose(2, 0, 3, 1)


#: The best first.
TARGETS = (Target("vnni", 32), Target("avx2", 16))


class _Product(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("w", "scale", "sums", "bias")),
        *((name, ctypes.c_int32) for name in ("k", "n")),
    )


class _Norm(ctypes.Structure):
    _fields_ = (("gamma", ctypes.c_void_p), ("beta", ctypes.c_void_p))


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Product) for name in ("query_key_value", "mixed", "wide", "narrow")),
        *((name, _Norm) for name in ("middle", "out")),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("hidden", "heads", "inner", "halves", "vocabulary", "longest")),
        ("epsilon", ctypes.c_float),
        ("words", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("embedded", _Norm),
        ("layer", ctypes.POINTER(_Layer)),
    )


class _Part(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("halves", ctypes.c_int32))


class _Call(ctypes.Structure):
    _fields_ = (
        ("ids", ctypes.c_void_p),
        ("parts", ctypes.POINTER(_Part)),
        *((name, ctypes.c_int32) for name in ("tokens", "n_parts")),
        *((name, ctypes.c_int64) for name in ("scratch_bytes", "n_features")),
    )


_SIZES = (ctypes.c_int64 * 4)(*map(ctypes.sizeof, (_Model, _Layer, _Part, _Call)))


class NativeRuntime:
    """Runs an encoder in the compiled int8 library: a thread-safe function that releases Python's lock.

    The only place that hands pointers to C. What they point to has the shapes of `weights.table`, and the library
    itself compares every length and index that it is given.

    Args:
        weights: of the encoder, in int8.
        parts: (kind, half layers) of the pooling.
        target: one of `targets_here`.
        library: the compiled library; None takes the installed one.

    Raises EncoderError if the weights do not fit what the library is written for.
    """

    def __init__(
        self, weights: EncoderWeights, parts: Sequence[tuple[str, int]], target: Target, library: Path | None = None
    ) -> None:
        self.name = f"native {target.name}"
        self._target = target
        # What the structures point to.
        self._arrays: list[npt.NDArray[Any]] = []
        self._vocabulary, self._longest = weights.vocabulary, weights.positions
        self._model = self._build(weights)
        if max(halves for _, halves in parts) > weights.halves:
            raise EncoderError(f"the encoder must have the half layers of {list(parts)}, it has {weights.halves}.")
        self._parts = (_Part * len(parts))(*(_Part(_KINDS[kind], halves) for kind, halves in parts))
        self._n_features = len(parts) * weights.hidden
        self._library = loaded = _load(library or library_path())
        self._encode = getattr(loaded, f"elle_encode_{target.name}")
        self._encode.restype = ctypes.c_int
        self._team: ctypes.c_void_p | None = None
        loaded.elle_scratch_bytes.restype = ctypes.c_int64
        self._scratch_bytes = int(loaded.elle_scratch_bytes(ctypes.byref(self._model), self._longest, _SIZES))
        if self._scratch_bytes < 0:
            raise EncoderError(
                "the compiled library refuses the encoder; install the package again to compile it anew."
            )
        # Buffers that no call uses at the moment; appending to a list and popping from it are atomic.
        self._free: list[npt.NDArray[np.uint8]] = []

    def __call__(self, ids: Sequence[int]) -> FloatArray:
        """Return the features (d,) of one prompt's token ids. Raises DataError for ids outside the vocabulary."""
        tokens = np.array(ids, dtype=np.int32)
        if not 0 < len(tokens) <= self._longest or tokens.min() < 0 or tokens.max() >= self._vocabulary:
            raise DataError(
                f"token ids must be 1 to {self._longest} of 0 to {self._vocabulary - 1}, got {len(tokens)}; the "
                f"tokenizer is not this encoder's."
            )
        features = np.empty(self._n_features, np.float32)
        try:
            scratch = self._free.pop()
        except IndexError:
            scratch = _aligned(self._scratch_bytes)
        call = _Call(tokens.ctypes.data, self._parts, len(tokens), len(self._parts), self._scratch_bytes, len(features))
        fault = self._encode(
            ctypes.byref(self._model),
            self._team,
            ctypes.byref(call),
            ctypes.c_void_p(scratch.ctypes.data),
            ctypes.c_void_p(features.ctypes.data),
        )
        self._free.append(scratch)
        if fault:
            raise EncoderError("the compiled library refuses a length or an id of this prompt.")
        return features

    def use_idle_core(self) -> None:
        """Let a core that would idle take a part of a lone forward pass from now on; the features keep the same bits.

        Nobody waits for that core. Does nothing if the operating system has no threads of the class SCHED_IDLE.
        """
        if self._team is not None:
            return
        new, end = self._library.elle_team_new, self._library.elle_team_end
        new.restype, end.restype = ctypes.c_void_p, None
        if address := new(ctypes.byref(self._model), ctypes.c_int32(self._longest)):
            self._team = ctypes.c_void_p(address)
            # What the helper reads outlives it. Not ended at exit: it would be waited for, and a daemon thread may be
            # in a pass; so what is read must outlive the interpreter, too.
            read = (self._model, self._arrays)
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(read))
            weakref.finalize(self, _end_team, end, self._team, read).atexit = False

    @property
    def items_helped(self) -> int:
        """The number of panels and heads that an otherwise idle core has computed so far."""
        count = self._library.elle_team_helped
        count.restype = ctypes.c_int64
        return int(count(self._team)) if self._team is not None else 0

    def _build(self, weights: EncoderWeights) -> _Model:
        hidden, heads, inner = weights.hidden, weights.heads, weights.inner
        if not weights.int8:
            raise EncoderError("the native runtime is for weights in int8, got float32.")
        if hidden % 32 or inner % 32 or (hidden // heads) % 32:
            raise EncoderError(
                f"the native runtime is for widths in multiples of 32, got {hidden}, {inner} and {heads} heads."
            )
        layers = (_Layer * -(-weights.halves // 2))()
        for half in range(weights.halves):
            self._fill(layers[half // 2], weights.tensors, half)
        pointers = self._at(weights.tensors["words"]), self._at(weights.tensors["positions"])
        sizes = hidden, heads, inner, weights.halves, weights.vocabulary, weights.positions
        return _Model(*sizes, weights.epsilon, *pointers, self._norm(weights.tensors, "state.0"), layers)

    def _fill(self, layer: _Layer, tensors: Tensors, half: int) -> None:
        name = f"layer.{half // 2}"
        if half % 2:
            layer.wide = self._product(tensors, f"{name}.intermediate.dense")
            layer.narrow = self._product(tensors, f"{name}.output.dense")
            layer.out = self._norm(tensors, f"state.{half // 2 + 1}")
        else:
            layer.query_key_value = self._product(tensors, f"{name}.attention.self.query")
            layer.mixed = self._product(tensors, f"{name}.attention.output.dense")
            layer.middle = self._norm(tensors, f"{name}.middle")

    def _product(self, tensors: Tensors, name: str) -> _Product:
        weight: npt.NDArray[np.int8] = tensors[f"{name}.w"]
        return _Product(
            self._at(self._target.packed(weight)),
            self._at(tensors[f"{name}.scale"]),
            self._at(weight.sum(axis=0, dtype=np.int32)),
            self._at(tensors[f"{name}.b"]),
            *weight.shape,
        )

    def _norm(self, tensors: Tensors, name: str) -> _Norm:
        return _Norm(*(self._at(tensors[f"{name}.{part}"]) for part in ("gamma", "beta")))

    def _at(self, array: npt.NDArray[Any]) -> int:
        aligned = _aligned(array.nbytes).view(array.dtype).reshape(array.shape)
        aligned[...] = array
        self._arrays.append(aligned)
        return aligned.ctypes.data


def _end_team(end: Any, team: ctypes.c_void_p, read: object) -> None:
    def wait() -> None:
        end(team)
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(read))

    # Not here: on a busy machine a helper takes seconds to end, and the collector runs in any thread, a loop's too.
    threading.Thread(target=wait, name="elle-idle-core-end", daemon=True).start()


def _aligned(n_bytes: int) -> npt.NDArray[np.uint8]:
    # A load across two cache lines costs two, and numpy aligns to 16 bytes only.
    whole = np.empty(n_bytes + 64, np.uint8)
    first = -whole.ctypes.data % 64
    return whole[first : first + n_bytes]


def library_path() -> Path | None:
    """Return the path of the compiled library, or None if the installation has none."""
    # The specification without the import: it is a plain library, not a module.
    spec = importlib.util.find_spec(_LIBRARY)
    return Path(spec.origin) if spec is not None and spec.origin else None


def targets_here(library: Path | None = None) -> tuple[Target, ...]:
    """Return the targets that the library has and this machine can run, the best first; none without the library."""
    path = library or library_path()
    if path is None or sys.byteorder != "little":
        return ()
    loaded = _load(path)
    return tuple(target for target in TARGETS if loaded.elle_supports(target.name.encode()))


@cache
def _load(path: Path | None) -> ctypes.CDLL:
    if path is None:
        raise EncoderError(
            "the native runtime is not compiled; install the package where a C compiler is, or let ONNX Runtime serve."
        )
    return ctypes.CDLL(str(path))

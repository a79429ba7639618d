"""Score one prompt in one call: the losses of all models, the leverage and the nearest kinds (`PromptScorer`).

Every request waits for these numbers. Between two requests the matrices leave the caches of the processor, and so does
the code, so that twenty calls of numpy take ten times as long as in a loop of their own. `native/prompt_scorer.c` does
the same in one call. It is compiled when the package is installed, if there is a C compiler. Without it numpy computes
the same numbers with another rounding.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import sys
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from probes._checks import Float32
from probes.errors import DataError
from probes.kinds.known_kinds import N_NEAREST, KnownKinds, NearestKinds
from probes.regression.linear import Leverage, LinearProbe

_LIBRARY = "probes.scoring._prompt_scorer"

#: The most features that the C function takes.
_MOST_FEATURES = 8192

_NUMBERS = ("n_features", "n_models", "n_factors", "n_directions", "n_kinds", "n_nearest")
_TABLES = ("coef", "intercept", "mean", "inverse_scale", "factor", "centre", "projection")
_WIDE_TABLES = ("twice_centres", "norms", "broad")
_SCALARS = ("tail", "floor", "temperature")


class _Scorer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in _NUMBERS),
        *((name, ctypes.c_void_p) for name in (*_TABLES, *_WIDE_TABLES)),
        *((name, ctypes.c_double) for name in _SCALARS),
    )


class ScoredPrompt(NamedTuple):
    """Holds the scores of one prompt.

    Attributes:
        loss: the predicted loss of each model, float32 values. leverage: the leverage, a float32 value. Both are not
            finite if a feature is not finite or too large.
        kinds: the nearest kinds; None if there are none, or if the leverage is not finite.
    """

    loss: tuple[float, ...]
    leverage: float
    kinds: NearestKinds | None


class PromptScorer:
    """Scores prompts, one at a time. It is thread-safe.

    Args:
        linear, leverage, kinds: the parts of a probe, which agree on the number of features; kinds may be None.
        compiled: whether the C function may be used; tests compare it with numpy.
    """

    def __init__(
        self, linear: LinearProbe, leverage: Leverage, kinds: KnownKinds | None, *, compiled: bool = True
    ) -> None:
        self._linear, self._leverage, self._kinds = linear, leverage, kinds
        self._function = _function() if compiled and linear.n_features <= _MOST_FEATURES else None
        self._structs = _struct(linear, leverage, None), _struct(linear, leverage, kinds)
        self._n_models = linear.n_targets
        self._out = ctypes.c_double * (linear.n_targets + 1 + 3 + 2 * N_NEAREST)

    def __reduce__(self) -> tuple[Any, ...]:
        # Engines send a probe to other processes, and an address means nothing there.
        return _scorer_of, (self._linear, self._leverage, self._kinds, self.is_compiled)

    @property
    def is_compiled(self) -> bool:
        """Return whether the C function scores prompts, and not numpy."""
        return self._function is not None

    def score(self, x: Float32, *, with_kinds: bool = True) -> ScoredPrompt:
        """Return the scores of a prompt from its features: float32, shape (n_features,), contiguous.

        with_kinds: whether the nearest kinds are wanted, which take as long as the rest.
        """
        kinds = self._kinds if with_kinds else None
        if self._function is None:
            return self._score_by_numpy(x, kinds)
        out, n = self._out(), self._n_models
        if self._function(ctypes.addressof(self._structs[with_kinds]), x.__array_interface__["data"][0], out):
            raise DataError("the compiled scorer refuses the probe's numbers of features, kinds or directions.")
        found = out[:]
        leverage = found[n]
        near = None if kinds is None or not math.isfinite(leverage) else kinds.named(found[n + 1 :])
        return ScoredPrompt(tuple(found[:n]), leverage, near)

    @np.errstate(over="ignore", invalid="ignore")  # an overflow of float32 is for the caller to find
    def _score_by_numpy(self, x: Float32, kinds: KnownKinds | None) -> ScoredPrompt:
        leverage = float(self._leverage.score(x))
        found = kinds.nearest(x) if kinds is not None and math.isfinite(leverage) else None
        return ScoredPrompt(tuple(self._linear.predict(x).tolist()), leverage, found)


def _scorer_of(linear: LinearProbe, leverage: Leverage, kinds: KnownKinds | None, compiled: bool) -> PromptScorer:
    return PromptScorer(linear, leverage, kinds, compiled=compiled)


def _struct(linear: LinearProbe, leverage: Leverage, kinds: KnownKinds | None) -> _Scorer:
    """Return what the C function reads. The arrays belong to the parts, which the scorer keeps."""
    arrays = {
        "coef": linear.coef,
        "intercept": linear.intercept,
        "mean": leverage.mean,
        "inverse_scale": leverage.inverse_scale,
        "factor": leverage.factor,
    }
    numbers = {
        "n_features": linear.n_features,
        "n_models": linear.n_targets,
        "n_factors": leverage.factor.shape[0],
        "n_nearest": N_NEAREST,
    }
    scalars = {"tail": leverage.tail, "floor": leverage.floor}
    if kinds is not None:
        arrays |= kinds.tables
        numbers |= {"n_directions": kinds.projection.shape[0], "n_kinds": len(kinds.names)}
        scalars |= {"temperature": kinds.temperature}
    return _Scorer(**numbers, **scalars, **{name: array.ctypes.data for name, array in arrays.items()})


@cache
def _function() -> Any:
    """Return the C function, or None if the installation has none."""
    # The specification without the import: it is a plain library, not a module.
    spec = importlib.util.find_spec(_LIBRARY)
    if spec is None or not spec.origin or sys.byteorder != "little":
        return None
    # With PyDLL the call keeps Python's lock: it takes less time than another thread would keep the lock for.
    function = ctypes.PyDLL(spec.origin).elle_score_prompt
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    function.restype = ctypes.c_int
    return function

"""Hold the frozen arrays of a fitted ridge that serving needs (`LinearProbe` and `Leverage`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes._checks import Array, Float32, Float64, read_only
from probes.errors import DataError, DimensionError


def _frozen(name: str, values: npt.ArrayLike, dtype: npt.DTypeLike, ndim: int) -> Array:
    """Return a contiguous, read-only, finite array; raise DataError otherwise."""
    with np.errstate(over="ignore"):  # a float32 overflow is reported below, in our words
        array = read_only(values, dtype)
    if array.ndim != ndim:
        raise DataError(f"{name} must have {ndim} dimension(s); got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise DataError(f"{name} must be finite in {array.dtype}; it holds NaN or infinity. Fit the probe again.")
    return array


def _require_same(names: str, of: str, *numbers: int) -> None:
    """Raise DimensionError unless these numbers are the same. `names`: the arrays that they are the sizes of."""
    if len(set(numbers)) > 1:
        raise DimensionError(f"{names} must agree on the number of {of}; got {', '.join(map(str, numbers))}.")


@dataclass(frozen=True, slots=True, eq=False)
class LinearProbe:
    """A linear map from features to losses, `X @ coef.T + intercept`, that includes the standardisation.

    coef: (m, d) float32, one row per target. intercept: (m,) float32. alpha: (m,) float64, the ridge
    penalties that were chosen; they change no prediction.
    """

    coef: Float32
    intercept: Float32
    alpha: Float64

    def __post_init__(self) -> None:
        for name, dtype, ndim in (
            ("coef", np.float32, 2),
            ("intercept", np.float32, 1),
            ("alpha", np.float64, 1),
        ):
            object.__setattr__(self, name, _frozen(name, getattr(self, name), dtype, ndim))
        sizes = self.coef.shape[0], self.intercept.shape[0], self.alpha.shape[0]
        _require_same("coef, intercept and alpha", "targets", *sizes)

    @property
    def n_features(self) -> int:
        """The number of features, d."""
        return int(self.coef.shape[1])

    @property
    def n_targets(self) -> int:
        """The number of targets, m."""
        return int(self.coef.shape[0])

    def predict(self, X: Array) -> Array:
        """Return the predicted losses (n, m) of features (n, d), or (m,) of one sample (d,).

        float32 input is neither copied nor converted. NaN in a row gives NaN for that row, because a check would cost
        more than the prediction (`DifficultyProbe.predict` does check). The result is rounded to float32.

        Raises DimensionError if X has another number of features, DataError if it is not a numeric array.
        """
        try:
            if X.ndim == 1:
                # A product of the whole matrix rounds a model's loss differently beside other models.
                one: Array = np.vecdot(self.coef, X) + self.intercept
                return one
            if X.ndim == 2:
                losses = self._products(X)
                losses += self.intercept
                return losses
        except (AttributeError, TypeError, ValueError) as error:
            self._explain(X, error)
        raise DataError(f"features must have shape ({self.n_features},) or (n, {self.n_features}); got {X.shape}.")

    def _products(self, X: Array) -> Array:
        # A matrix product of two or three columns takes BLAS 2 to 5 times as long as the same columns one by one.
        if self.coef.shape[0] <= 3:
            return np.stack([X.dot(row) for row in self.coef], axis=1)
        return np.asarray(X @ self.coef.T)

    def _explain(self, X: Array, error: Exception) -> None:
        if not isinstance(X, np.ndarray) or X.dtype.kind not in "fiub":
            raise DataError(
                f"features must be a numpy array of real numbers; got {type(X).__name__}. Use numpy.asarray."
            ) from error
        raise DimensionError(
            f"features must have {self.n_features} columns, as the probe was fitted with; got {X.shape[-1]}. "
            "Use the same encoder and pooling as at fitting time."
        ) from error


@dataclass(frozen=True, slots=True, eq=False)
class Leverage:
    """Measures how far a sample is from the training data, by its leverage `1/n + z'(Z'Z + alpha I)^-1 z`.

    It is stored as the leading k eigenvectors of Z'Z and one constant for the others, which takes k x d numbers
    instead of d x d:

        score(x) = floor + tail * |z|^2 - |factor z|^2,   z = (x - mean) * inverse_scale

    z is standardised and centred. `error_bound` bounds the relative error of `score - floor` against the
    exact leverage for every x. For samples like the training data the error is many times smaller, because `tail` is
    the average over those data.

    mean, inverse_scale: (d,) float32; a feature that never varied has inverse_scale 0 and is ignored.
    factor: (k, d) float32. tail, floor, error_bound: numbers >= 0.
    """

    mean: Float32
    inverse_scale: Float32
    factor: Float32
    tail: float
    floor: float
    error_bound: float

    def __post_init__(self) -> None:
        for name, ndim in (("mean", 1), ("inverse_scale", 1), ("factor", 2)):
            object.__setattr__(self, name, _frozen(name, getattr(self, name), np.float32, ndim))
        for name in ("tail", "floor", "error_bound"):
            value = float(getattr(self, name))
            if not (np.isfinite(value) and value >= 0):
                raise DataError(f"{name} of a leverage must be a finite number >= 0; got {value}.")
            object.__setattr__(self, name, value)
        sizes = self.mean.shape[0], self.inverse_scale.shape[0], self.factor.shape[1]
        _require_same("mean, inverse_scale and factor", "features", *sizes)

    @property
    def n_features(self) -> int:
        """The number of features, d."""
        return int(self.mean.shape[0])

    def score(self, X: Array) -> Array:
        """Return the leverage (n,) of features (n, d), or a 0-d array for one sample (d,). NaN gives NaN."""
        if X.ndim not in (1, 2) or X.shape[-1] != self.n_features:
            raise DimensionError(
                f"features must have shape ({self.n_features},) or (n, {self.n_features}); got {X.shape}. "
                "Use the same encoder and pooling as at fitting time."
            )
        Z = (X - self.mean) * self.inverse_scale
        if Z.ndim == 1:
            # Serving scores one sample at a time; einsum would take longer than the two products.
            inside = self.factor.dot(Z)
            spread = self.tail * float(Z.dot(Z)) - float(inside.dot(inside))
            return np.asarray(self.floor + (0.0 if spread < 0.0 else spread), dtype=np.float32)
        P = Z @ self.factor.T
        spread = self.tail * np.einsum("...j,...j->...", Z, Z) - np.einsum("...j,...j->...", P, P)
        # The difference of two nearly equal float32 numbers may come out slightly below 0.
        return np.asarray(self.floor + np.maximum(spread, 0.0))

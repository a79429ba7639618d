"""Check the arrays that callers pass in; every error names the argument, the row and what to do about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from probes.errors import DataError, DimensionError

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


def matrix(name: str, values: npt.ArrayLike, n_columns: int | None = None) -> Array:
    """Return `values` as a real 2-D array (n, n_columns); an array that already is one is not copied.

    Raises DataError for other types and shapes, DimensionError for another number of columns.
    """
    array = _real(name, values)
    if array.ndim != 2:
        raise DataError(f"{name} must be a matrix (n rows, columns); got shape {array.shape}. Reshape it first.")
    if n_columns is not None and array.shape[1] != n_columns:
        raise DimensionError(
            f"{name} must have {n_columns} columns; got {array.shape[1]}. "
            "Use the features and targets that this object was made for."
        )
    return array


def vector(name: str, values: npt.ArrayLike, length: int | None = None) -> Float64:
    """Return `values` as a finite float64 vector; raise DataError if it has not `length` entries (if given)."""
    array = _real(name, values)
    if array.ndim != 1:
        raise DataError(f"{name} must be a vector; got shape {array.shape}. Pass one number per row.")
    if length is not None and array.shape[0] != length:
        raise DataError(f"{name} must have one entry per row, {length}; got {array.shape[0]}.")
    refuse_non_finite(name, array)
    return array.astype(np.float64, copy=False)


def weights(values: npt.ArrayLike | None, length: int) -> Float64 | None:
    """Return finite weights >= 0, one per row, or None, which means that each row counts once."""
    if values is None:
        return None
    array = vector("sample_weight", values, length)
    if length and array.min() < 0:
        row = int(np.argmax(array < 0))
        raise DataError(f"sample_weight must be >= 0; row {row} has {array[row]}. Drop the row or use 0.")
    return array


def unit_interval(name: str, values: npt.ArrayLike, length: int | None = None) -> Float64:
    """Return a vector of numbers in [0, 1], or raise DataError naming the first row outside."""
    array = vector(name, values, length)
    outside = (array < 0) | (array > 1)
    if outside.any():
        row = int(np.argmax(outside))
        raise DataError(f"{name} must lie in [0, 1]; row {row} has {array[row]}. Rescale or drop the row.")
    return array


def read_only(values: npt.ArrayLike, dtype: npt.DTypeLike) -> Array:
    """Return a contiguous copy of an array that nobody can write to."""
    array = np.array(values, dtype=dtype, order="C")
    array.flags.writeable = False
    return array


def refuse_non_finite(name: str, array: Array) -> None:
    """Raise DataError naming the first row (and column) that holds NaN or infinity."""
    finite = np.isfinite(array)
    if finite.all():
        return
    where = tuple(int(index) for index in np.argwhere(~finite)[0])
    place = f"row {where[0]}" + (f", column {where[1]}" if len(where) > 1 else "")
    raise DataError(f"{name} must be finite; {place} holds {array[where]}. Drop or repair that row.")


def _real(name: str, values: npt.ArrayLike) -> Array:
    try:
        array: Array = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{name} must be a rectangular array of numbers: {error}.") from error
    if array.dtype.kind in "biu":
        return array.astype(np.float64)
    if array.dtype.kind != "f":
        raise DataError(f"{name} must hold real numbers; got dtype {array.dtype}. Convert it first.")
    return array

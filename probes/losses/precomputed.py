"""Read and write files of precomputed (embedding, loss) pairs: npz, parquet and safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.bounded.arrays import ARCHIVE_ERRORS, npz_places
from probes.bounded.parquet import open_parquet, read_parquet
from probes.bounded.text import path_fault
from probes.embeddings.files import EmbeddingFile, open_embeddings
from probes.errors import DataError
from probes.losses.pairs import LossPairs


def read_pairs(
    path: str | Path,
    *,
    embedding: str = "embedding",
    loss: str = "loss",
    ids: str | None = None,
    on_bad_rows: Callable[[NDArray[np.int64]], None] | None = None,
) -> LossPairs:
    """Read (embedding, loss) pairs by the names of their arrays or columns.

    npz and safetensors hold arrays `embedding` (n, d) and `loss` (n,); parquet holds a column of lists and a
    column of numbers; `ids` names a column or (npz) array of strings. No code in a file is ever executed. If
    `on_bad_rows` is given, pairs that hold NaN or infinity are left out and it is called with their row numbers;
    otherwise they are an error. Raises DataError for an unknown ending, a missing or malformed array, and if no pair
    is left.
    """
    source = Path(path)
    names = [embedding, loss, *([] if ids is None else [ids])]
    arrays = _reader_of(source)(source, names)
    if on_bad_rows is not None:
        bad = _bad_rows(arrays[embedding], arrays[loss])
        if bad.size:
            on_bad_rows(bad)
            arrays = {name: np.delete(array, bad, axis=0) for name, array in arrays.items()}
    return LossPairs(
        embeddings=arrays[embedding],
        losses=arrays[loss],
        ids=None if ids is None else tuple(map(str, arrays[ids])),
        provenance={"objective": "precomputed", "file": source.name},
    )


@dataclass(frozen=True)
class PairFile:
    """Names a file of pairs, as `read_pairs` reads it, that is read in blocks and may be of any size."""

    path: Path

    def open(self, threads: int | None = None) -> tuple[EmbeddingFile, NDArray[np.float64]]:
        """Open the embeddings, and read all losses, (n,). Raises DataError for a file that holds no pairs."""
        losses = _reader_of(self.path)(self.path, ["loss"])["loss"]
        if losses.dtype.kind not in "fiub":
            raise DataError(f"losses must be real numbers, got dtype {losses.dtype}")
        return open_embeddings(self.path, "embedding"), losses.astype(np.float64)


def _reader_of(source: Path) -> Callable[[Path, list[str]], dict[str, Any]]:
    """Return what reads arrays of a file by their names. Raises DataError for an unknown ending and a missing file."""
    readers = {".npz": _read_npz, ".parquet": _read_parquet, ".safetensors": _read_safetensors}
    if (fault := path_fault(source)) is not None:
        raise DataError(f"there is no file of pairs at {source}: it {fault}")
    if source.suffix not in readers:
        raise DataError(f"pairs must come from {', '.join(readers)}, got {source.name!r}; convert .pt files first")
    return readers[source.suffix]


def _bad_rows(embeddings: NDArray[Any], losses: NDArray[Any]) -> NDArray[np.int64]:
    """Return the rows that hold NaN or infinity, or none if the shapes do not fit, which `LossPairs` then reports."""
    if embeddings.ndim != 2 or losses.shape != embeddings.shape[:1] or losses.dtype.kind not in "fiu":
        return np.empty(0, dtype=np.int64)
    with np.errstate(over="ignore"):
        finite = np.isfinite(embeddings.astype(np.float32)).all(axis=1) & np.isfinite(losses.astype(np.float64))
    return np.flatnonzero(~finite)


def write_pairs(pairs: LossPairs, path: str | Path) -> None:
    """Write pairs as an npz that `read_pairs` reads: arrays `embedding`, `loss`, `provenance` (JSON), `id` if any."""
    target = Path(path)
    if target.suffix != ".npz":
        raise DataError(f"pairs are written as .npz, got {target.name!r}")
    arrays: dict[str, NDArray[Any]] = {"embedding": pairs.embeddings, "loss": pairs.losses}
    if pairs.ids is not None:
        arrays["id"] = np.array(pairs.ids)
    partial = target.with_name(target.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays, provenance=np.array(json.dumps(dict(pairs.provenance))))
    partial.replace(target)


def _read_npz(path: Path, names: list[str]) -> dict[str, Any]:
    npz_places(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            _require(path, names, list(archive.files))
            return {name: archive[name] for name in names}
    except ARCHIVE_ERRORS as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path.name} must be an npz of plain numeric and string arrays, and is damaged or none"
        ) from error


def _read_safetensors(path: Path, names: list[str]) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            _require(path, names, list(tensors.keys()))
            return {name: tensors.get_tensor(name) for name in names}
    except (SafetensorError, TypeError, KeyError, AttributeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path.name} must be a safetensors file, and is damaged or none") from error


def _read_parquet(path: Path, names: list[str]) -> dict[str, Any]:
    with open_parquet(path) as file:
        _require(path, names, file.schema_arrow.names)
    table = read_parquet(path, names)
    return {name: column_array(table.column(name), name) for name in names}


def column_array(column: Any, name: str) -> NDArray[Any]:
    """Return an arrow column as a numpy array: (n,) of numbers or strings, (n, d) of lists of length d."""
    import pyarrow as pa

    chunk = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if chunk.null_count:
        raise DataError(f"column {name!r} must have no missing values, got {chunk.null_count}")
    if not (
        pa.types.is_list(chunk.type) or pa.types.is_large_list(chunk.type) or pa.types.is_fixed_size_list(chunk.type)
    ):
        flat: NDArray[Any] = chunk.to_numpy(zero_copy_only=False)
        return flat
    values = chunk.flatten()
    if values.null_count or not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise DataError(f"lists of column {name!r} must hold numbers only, got {values.type} with missing values")
    width = len(values) // len(chunk) if len(chunk) else 0
    if not pa.types.is_fixed_size_list(chunk.type):
        lengths = np.diff(chunk.offsets.to_numpy(zero_copy_only=False))
        if lengths.size and (lengths != width).any():
            row = int(np.argmax(lengths != lengths[0]))
            raise DataError(
                f"lists of column {name!r} must be of one length, got {lengths[0]} and {lengths[row]} (row {row})"
            )
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(chunk), width)


def _require(path: Path, wanted: list[str], present: list[str]) -> None:
    missing = [name for name in wanted if name not in present]
    if missing:
        raise DataError(f"{path.name} must hold {missing}, it has {present}; name them with embedding=, loss=, ids=")

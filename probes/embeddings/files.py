"""Read embedding files of any size as blocks of rows in constant memory: npy, npz, safetensors and parquet."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from probes.bounded.arrays import ARCHIVE_ERRORS, ArrayPlace, npy_place, npz_places, safetensors_places
from probes.bounded.files import BoundedFileError, shown
from probes.bounded.parquet import open_parquet
from probes.bounded.text import path_fault
from probes.errors import DataError

#: Rows of a parquet file from which the usual length of its lists is taken.
_FIRST_ROWS = 1000

#: The array that is read if none is named.
_USUAL_NAME = "embedding"

#: The most numbers that an embedding may have; such a row takes 4 MB.
MOST_WIDTH = 1 << 20

# Files are read by offset, not mapped: mapped pages would count as resident memory.
_SAFETENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class EmbeddingFile(Protocol):
    """The interface of an open file of `rows` embeddings with `width` numbers each.

    Blocks can be read from any row on.
    """

    @property
    def rows(self) -> int:
        """The number of embeddings in the file, at least one."""

    @property
    def width(self) -> int:
        """The number of values in each embedding."""

    def blocks(self, start: int, block_rows: int) -> Iterator[NDArray[np.float32]]:
        """Yield (b, width) float32 arrays of rows start, start + 1, ..., b <= block_rows.

        A row that is missing, or of another width than the others, is all NaN.
        """


def open_embeddings(path: Path, name: str | None = None) -> EmbeddingFile:
    """Open an embedding file by its ending: .npy, .npz, .safetensors or .parquet.

    `name` is the array (npz, safetensors) or the column of lists (parquet). Without a name the array `embedding` is
    read, or else the only two-dimensional one. Raises DataError for an unknown ending, a missing or malformed array, a
    name for an npy file, whose array has none, or a truncated file.
    """
    openers = {
        ".npy": _open_npy,
        ".npz": _open_npz,
        ".safetensors": _open_safetensors,
        ".parquet": _open_parquet,
    }
    if (fault := path_fault(path)) is not None:
        raise DataError(f"there is no file of embeddings at {path}: it {fault}")
    if path.suffix not in openers:
        raise DataError(f"embeddings must come from one of {', '.join(openers)}; got {path.name!r}")
    return openers[path.suffix](path, name)


@dataclass(frozen=True)
class _Raw:
    """Reads an array of row-major numbers that begins at `offset` of a file or of a member of a zip archive."""

    path: Path
    member: str | None
    offset: int
    dtype: np.dtype[Any]
    rows: int
    width: int

    def blocks(self, start: int, block_rows: int) -> Iterator[NDArray[np.float32]]:
        row_bytes = self.width * self.dtype.itemsize
        if self.member is None:
            with self.path.open("rb") as file:
                yield from self._from(file, start, block_rows, row_bytes)
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
                yield from self._from(file, start, block_rows, row_bytes)

    def _from(self, file: IO[bytes], start: int, block_rows: int, row_bytes: int) -> Iterator[NDArray[np.float32]]:
        self._seek(file, self.offset + start * row_bytes)
        for first in range(start, self.rows, block_rows):
            wanted = min(block_rows, self.rows - first) * row_bytes
            try:
                data = file.read(wanted)
            except ARCHIVE_ERRORS as error:
                raise DataError(f"{self.path.name} is damaged near row {first}") from error
            if len(data) < wanted:
                raise DataError(f"{self.path.name} ends early: row {first + len(data) // row_bytes} is not all there")
            block = np.frombuffer(data, self.dtype).reshape(-1, self.width)
            # A number beyond a float32 becomes infinite. Its row is then reported as one that cannot be scored.
            with np.errstate(over="ignore"):
                numbers = _from_bfloat16(block) if self.dtype == np.uint16 else block.astype(np.float32, copy=False)
            yield numbers

    def _seek(self, file: IO[bytes], offset: int) -> None:
        try:
            file.seek(offset)  # within a compressed member this reads and drops what lies before
        except ARCHIVE_ERRORS as error:
            raise DataError(f"{self.path.name} is damaged") from error


def _from_bfloat16(block: NDArray[Any]) -> NDArray[np.float32]:
    # bfloat16 is the upper half of a float32.
    return (block.astype(np.uint32) << 16).view(np.float32)


def _open_npy(path: Path, name: str | None) -> EmbeddingFile:
    if name is not None:
        raise DataError(f"{path.name} holds one array without a name, so none can be asked for; got {shown(name)!r}")
    try:
        with path.open("rb") as file:
            place = npy_place(file)
    except BoundedFileError as error:
        raise DataError(f"{path.name} must be an npy file: {error}") from error
    return _raw(path, path.name, place)


def _open_npz(path: Path, name: str | None) -> EmbeddingFile:
    places = npz_places(path)
    chosen = _choose(path, name, {key: place.shape for key, place in places.items()})
    return _raw(path, f"{path.name}[{chosen}]", places[chosen])


def _raw(path: Path, name: str, place: ArrayPlace) -> _Raw:
    dtype = np.dtype(_SAFETENSORS[place.kind]) if place.dtype is None else place.dtype
    _check_numbers(name, place.shape, place.fortran, np.dtype(np.float32) if place.kind == "BF16" else dtype)
    rows, width = place.shape
    if place.member is None and path.stat().st_size - place.offset < rows * width * dtype.itemsize:
        raise DataError(f"{path.name} ends early: its header promises {rows} rows of {width}")
    return _Raw(path, place.member, place.offset, dtype, rows, width)


def _check_numbers(name: str, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any]) -> None:
    if len(shape) != 2 or 0 in shape or shape[1] > MOST_WIDTH:
        raise DataError(
            f"{name} must hold embeddings of shape (rows, width), at least one of each, width at most {MOST_WIDTH:,}, "
            f"got {shown(str(shape))}"
        )
    if dtype.kind != "f":
        raise DataError(f"{name} must hold floating-point numbers, got {dtype}")
    if fortran:
        raise DataError(f"{name} must be stored row by row (C order), it is in Fortran order: save a contiguous copy")


def _choose(path: Path, name: str | None, shapes: dict[str, Any]) -> str:
    if (wanted := name or _USUAL_NAME) in shapes:
        return wanted
    flat = [key for key, shape in shapes.items() if len(shape) == 2]
    if name is not None or len(flat) != 1:
        there = shown(", ".join(sorted(shapes)) or "none", 300)
        raise DataError(f"{path.name} must hold an array named {shown(wanted)!r}, it has {there}; name the right one")
    return flat[0]


def _open_safetensors(path: Path, name: str | None) -> EmbeddingFile:
    places = safetensors_places(path)
    chosen = _choose(path, name, {key: place.shape for key, place in places.items()})
    if places[chosen].kind not in _SAFETENSORS:
        kind = shown(places[chosen].kind)
        raise DataError(f"{path.name}[{chosen}] must hold one of {', '.join(_SAFETENSORS)}, got {kind}")
    return _raw(path, f"{path.name}[{chosen}]", places[chosen])


class _Parquet:
    """Reads a parquet column of lists of one length. Row groups before the wanted row are never touched."""

    def __init__(self, path: Path, column: str | None) -> None:
        self.path = path
        with open_parquet(self.path) as file:
            schema = file.schema_arrow
            lists = [field.name for field in schema if _is_list(field.type)]
            self.column = _choose(path, column, {key: (0, 0) if key in lists else (0,) for key in schema.names})
            if self.column not in lists:
                raise DataError(
                    f"column {self.column!r} of {path.name} must hold lists, got {schema.field(column).type}"
                )
            self.rows = file.metadata.num_rows
            if not self.rows:
                raise DataError(f"{path.name} must hold at least one row, got none")
            first = self._next(file.iter_batches(batch_size=_FIRST_ROWS, columns=[self.column]), 0)
        self.width = self._usual_width(first.column(0))

    def blocks(self, start: int, block_rows: int) -> Iterator[NDArray[np.float32]]:
        with open_parquet(self.path) as file:
            groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            ends = np.cumsum(groups)
            wanted = [group for group in range(len(groups)) if ends[group] > start]
            row = int(ends[wanted[0]] - groups[wanted[0]]) if wanted else self.rows
            batches = file.iter_batches(
                batch_size=block_rows, row_groups=wanted, columns=[self.column], use_threads=False
            )
            while (batch := self._next(batches, row)) is not None:
                skip = max(0, start - row)
                row += batch.num_rows
                if skip < batch.num_rows:
                    yield self._array(batch.slice(skip))
        if row != self.rows:
            raise DataError(f"{self.path.name} ends early: its footer promises {self.rows:,} rows, it has {row:,}")

    def _next(self, batches: Iterator[Any], row: int) -> Any:
        import pyarrow as pa

        try:
            return next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.path.name} is damaged near row {row}") from error

    def _usual_width(self, column: Any) -> int:
        """Return the length of the lists; if lengths differ, the commonest one among these rows."""
        import pyarrow as pa

        if not pa.types.is_floating(column.type.value_type):
            raise DataError(
                f"lists of column {self.column!r} of {self.path.name} must hold floating-point numbers, got "
                f"{column.type.value_type}"
            )
        if pa.types.is_fixed_size_list(column.type):
            return int(column.type.list_size)
        lengths = column.value_lengths().drop_null().to_numpy()
        if not lengths.any():
            raise DataError(
                f"lists of column {self.column!r} of {self.path.name} must hold numbers, the first {len(column)} rows "
                "hold none"
            )
        found, times = np.unique(lengths[lengths > 0], return_counts=True)
        width = int(found[times.argmax()])
        if width > MOST_WIDTH:
            raise DataError(
                f"lists of column {self.column!r} of {self.path.name} must have at most {MOST_WIDTH:,} numbers, got "
                f"{width:,}"
            )
        return width

    def _array(self, batch: Any) -> NDArray[np.float32]:
        """Return the embeddings of a batch of parquet rows.

        A row that is missing, or of another width than the file's, is all NaN.
        """
        import pyarrow as pa

        column = batch.column(0)
        if pa.types.is_fixed_size_list(column.type):
            usual = column.is_valid().to_numpy(zero_copy_only=False)
        else:
            lengths = column.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
            usual = lengths == self.width
        good = column if usual.all() else column.filter(pa.array(usual))
        # A number that is missing within a list comes out as NaN.
        flat = good.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        rows: NDArray[np.float32] = flat.reshape(len(good), self.width)
        if usual.all():
            return rows
        block = np.full((len(column), self.width), np.nan, dtype=np.float32)
        block[usual] = rows
        return block


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _open_parquet(path: Path, name: str | None) -> EmbeddingFile:
    return _Parquet(path, name)

"""Embedding files of any size as blocks of rows: npy, npz, safetensors and parquet, in constant memory."""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.lib.format as npy
from numpy.typing import NDArray

from probes.errors import DataError

#: Rows of a parquet file that say how long its lists usually are.
_FIRST_ROWS = 1000

# Files are read by offset, not mapped: mapped pages would count as resident memory.
_SAFETENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class EmbeddingFile(Protocol):
    """`rows` embeddings of `width` numbers each, readable in blocks from any row on."""

    @property
    def rows(self) -> int:
        """How many embeddings there are, at least one."""

    @property
    def width(self) -> int:
        """How many numbers each has."""

    def blocks(self, start: int, block_rows: int) -> Iterator[NDArray[np.float32]]:
        """Yield (b, width) float32 arrays of rows start, start + 1, ..., b <= block_rows.

        A row that is missing, or of another width than the others, is all NaN.
        """


def open_embeddings(path: Path, name: str = "embedding") -> EmbeddingFile:
    """Open an embedding file by its ending: .npy, .npz, .safetensors or .parquet.

    `name` is the array (npz, safetensors) or the column of lists (parquet); a file with a single
    two-dimensional array needs no right name. Raises DataError for an unknown ending, a missing or malformed
    array, a truncated file.
    """
    openers = {
        ".npy": _open_npy,
        ".npz": _open_npz,
        ".safetensors": _open_safetensors,
        ".parquet": _open_parquet,
    }
    if path.suffix not in openers:
        raise DataError(f"embeddings must come from one of {', '.join(openers)}; got {path.name!r}")
    if not path.is_file():
        raise DataError(f"there is no file of embeddings at {path}")
    return openers[path.suffix](path, name)


@dataclass(frozen=True)
class _Raw:
    """Row-major numbers from `offset` of a file, or of a member of a zip archive."""

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
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise DataError(f"{self.path.name} is damaged near row {first}: {error}") from error
            if len(data) < wanted:
                raise DataError(f"{self.path.name} ends early: row {first + len(data) // row_bytes} is not all there")
            block = np.frombuffer(data, self.dtype).reshape(-1, self.width)
            yield _from_bfloat16(block) if self.dtype == np.uint16 else block.astype(np.float32, copy=False)

    def _seek(self, file: IO[bytes], offset: int) -> None:
        try:
            file.seek(offset)  # within a compressed member this reads and drops what lies before
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DataError(f"{self.path.name} is damaged: {error}") from error


def _from_bfloat16(block: NDArray[Any]) -> NDArray[np.float32]:
    # bfloat16 is the upper half of a float32.
    return (block.astype(np.uint32) << 16).view(np.float32)


def _open_npy(path: Path, name: str) -> EmbeddingFile:
    with path.open("rb") as file:
        shape, dtype = _npy_header(file, path.name)
        offset = file.tell()
    if path.stat().st_size - offset < math.prod(shape) * dtype.itemsize:
        raise DataError(f"{path.name} ends early: its header promises {shape[0]} rows of {shape[1]}")
    return _Raw(path, None, offset, dtype, *shape)


def _open_npz(path: Path, name: str) -> EmbeddingFile:
    try:
        with zipfile.ZipFile(path) as archive:
            headers = {}
            for member in archive.namelist():
                with archive.open(member) as file:
                    headers[member.removesuffix(".npy")] = (member, *_npy_any_header(file), file.tell())
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise DataError(f"{path.name} must be an npz of plain numeric arrays: {error}") from error
    chosen = _choose(path, name, {key: header[1] for key, header in headers.items()})
    member, shape, fortran, dtype, offset = headers[chosen]
    _check_numbers(f"{path.name}[{chosen}]", shape, fortran, dtype)
    return _Raw(path, member, offset, dtype, *shape)


def _npy_any_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


def _npy_header(file: IO[bytes], name: str) -> tuple[tuple[int, int], np.dtype[Any]]:
    try:
        shape, fortran, dtype = _npy_any_header(file)
    except ValueError as error:
        raise DataError(f"{name} must be an npy file: {error}") from error
    _check_numbers(name, shape, fortran, dtype)
    return (shape[0], shape[1]), dtype


def _check_numbers(name: str, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any]) -> None:
    if len(shape) != 2 or 0 in shape:
        raise DataError(f"{name} must hold embeddings of shape (rows, width), at least one of each, got {shape}")
    if dtype.kind != "f":
        raise DataError(f"{name} must hold floating-point numbers, got {dtype}")
    if fortran:
        raise DataError(f"{name} must be stored row by row (C order), it is in Fortran order: save a contiguous copy")


def _choose(path: Path, name: str, shapes: dict[str, Any]) -> str:
    if name in shapes:
        return name
    flat = [key for key, shape in shapes.items() if len(shape) == 2]
    if len(flat) != 1:
        raise DataError(f"{path.name} must hold an array named {name!r}, it has {sorted(shapes)}; name the right one")
    return flat[0]


def _open_safetensors(path: Path, name: str) -> EmbeddingFile:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise DataError(f"{path.name} must be a safetensors file, its header does not fit")
        try:
            header = json.loads(file.read(length))
            tensors = {key: entry for key, entry in header.items() if key != "__metadata__"}
            chosen = _choose(path, name, {key: entry["shape"] for key, entry in tensors.items()})
            shape, kind = tuple(tensors[chosen]["shape"]), tensors[chosen]["dtype"]
            begin, end = tensors[chosen]["data_offsets"]
            promised = 8 + length + max(entry["data_offsets"][1] for entry in tensors.values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path.name} must be a safetensors file, its header cannot be read: {error}") from error
    if kind not in _SAFETENSORS:
        raise DataError(f"{path.name}[{chosen}] must hold one of {', '.join(_SAFETENSORS)}, got {kind}")
    dtype = np.dtype(_SAFETENSORS[kind])
    _check_numbers(f"{path.name}[{chosen}]", shape, False, np.dtype(np.float32))
    if end - begin != math.prod(shape) * dtype.itemsize or promised != size:
        raise DataError(f"{path.name} ends early: its header promises {shape[0]} rows of {shape[1]}")
    return _Raw(path, None, 8 + length + begin, dtype, *shape)


class _Parquet:
    """A column of lists, all of one length; row groups before the wanted row are never touched."""

    def __init__(self, path: Path, column: str) -> None:
        self.path = path
        self.column = column
        with self._open() as file:
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

    def _open(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            # A read buffer instead of pre-buffering: a row group may be larger than memory.
            return pq.ParquetFile(self.path, buffer_size=1 << 20, pre_buffer=False)
        except pa.ArrowInvalid as error:
            raise DataError(f"{self.path.name} must be a parquet file: {error}") from error

    def blocks(self, start: int, block_rows: int) -> Iterator[NDArray[np.float32]]:
        with self._open() as file:
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

    def _next(self, batches: Iterator[Any], row: int) -> Any:
        import pyarrow as pa

        try:
            return next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.path.name} is damaged near row {row}: {error}") from error

    def _usual_width(self, column: Any) -> int:
        """The length of the lists; of lists that differ, the commonest among these rows."""
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
        return int(np.bincount(lengths[lengths > 0]).argmax())

    def _array(self, batch: Any) -> NDArray[np.float32]:
        """The rows of a batch; one that is missing or of another width than the file's is all NaN."""
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


def _open_parquet(path: Path, name: str) -> EmbeddingFile:
    return _Parquet(path, name)

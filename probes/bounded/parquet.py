"""Read parquet that others wrote with a bound on its size in memory: a file of 865 KB may hold gigabytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probes.bounded.text import path_fault
from probes.errors import DataError

#: A file may decode to this many bytes, or to this many times its own size if that is more. Honest files repeat values
#: too, which take almost no space: outcomes of ten models hold each prompt ten times.
MOST_DECODED_BYTES, MOST_EXPANSION = 128 << 20, 100

#: Bytes counted for each value, whatever its type; as a Python object it takes several times as many.
_BYTES_PER_VALUE = 16

_ROWS_PER_BATCH = 1024


def open_parquet(path: Path, **options: Any) -> Any:
    """Return a `pyarrow.parquet.ParquetFile` whose footer declares no more bytes than the file may decode to.

    Raises DataError naming the file if it declares more, or if it is not a parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if (fault := path_fault(path)) is not None:
        raise DataError(f"{path} {fault}")
    try:
        file = pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False, **options)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} must be a parquet file, and is damaged or none") from error
    _check_footer(path, file.metadata)
    return file


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> Any:
    """Return a parquet file, or only these columns of it, as a `pyarrow.Table` within the bound on its size.

    Raises DataError naming the file if it is damaged or too large in memory.
    """
    import pyarrow as pa

    with open_parquet(path) as file:
        parts = [file.schema.column(index) for index in range(file.metadata.num_columns)]
        texts = [part.path for part in parts if part.physical_type == "BYTE_ARRAY"]
        schema = (
            file.schema_arrow if columns is None else pa.schema([file.schema_arrow.field(name) for name in columns])
        )
        batch_rows = _batch_rows(path, file.metadata)
    # Flat text is read as indices into its dictionary, because one long entry may be in any number of rows.
    with open_parquet(path, read_dictionary=[text for text in texts if "." not in text]) as file:
        batches = list(_batches(path, file, columns, batch_rows))
        table = pa.Table.from_batches(batches, batches[0].schema) if batches else schema.empty_table()
        return table.cast(schema)


def _batch_rows(path: Path, metadata: Any) -> int:
    # Text within lists cannot be read as indices. A batch is short enough for each row to hold the whole dictionary.
    largest = 1
    for number in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(number).column(index)
            if column.physical_type == "BYTE_ARRAY" and "." in column.path_in_schema:
                largest = max(largest, column.total_uncompressed_size)
    return max(1, min(_ROWS_PER_BATCH, most_bytes(path) // largest))


def _batches(path: Path, file: Any, columns: Sequence[str] | None, batch_rows: int) -> Iterator[Any]:
    import pyarrow as pa

    left, row = most_bytes(path), 0
    names = None if columns is None else list(columns)
    try:
        for batch in file.iter_batches(batch_size=batch_rows, columns=names, use_threads=False):
            left -= sum(map(_decoded_bytes, batch.columns))
            row += batch.num_rows
            if left < 0:
                raise _too_large(path, f"the first {row:,} rows are more than")
            yield batch
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is damaged after row {row}") from error
    if row != file.metadata.num_rows:
        raise DataError(f"{path} ends early: its footer promises {file.metadata.num_rows:,} rows, it has {row:,}.")


def most_bytes(path: Path) -> int:
    """Return how many bytes the file may decode to."""
    return max(MOST_DECODED_BYTES, MOST_EXPANSION * path.stat().st_size)


def _check_footer(path: Path, metadata: Any) -> None:
    most, promised, rows = most_bytes(path), 0, 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        rows += group.num_rows
        for index in range(group.num_columns):
            column = group.column(index)
            sizes = column.num_values, column.total_uncompressed_size, column.total_compressed_size
            if min(sizes) < 0 or group.num_rows < 0:
                raise DataError(f"{path} is damaged: row group {number} has a negative size.")
            promised += max(column.total_uncompressed_size, _BYTES_PER_VALUE * column.num_values)
        if promised > most:
            raise _too_large(path, "its footer promises more than")
    if rows != metadata.num_rows:
        raise DataError(f"{path} is damaged: its row groups have {rows:,} rows, its footer says {metadata.num_rows:,}.")


def _too_large(path: Path, what: str) -> DataError:
    size = path.stat().st_size
    return DataError(
        f"{path} has {size:,} bytes, and {what} {most_bytes(path):,} bytes decoded. "
        f"Split it into files of fewer rows if its rows repeat each other that much."
    )


def _decoded_bytes(array: Any) -> int:
    """Return the bytes of an array after every dictionary index is replaced by its entry."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_dictionary(kind):
        if len(array) == array.null_count:
            return 0
        lengths = pc.fill_null(pc.binary_length(array.dictionary), 0).to_numpy(zero_copy_only=False)
        rows = pc.drop_null(array.indices).to_numpy(zero_copy_only=False)
        return int(lengths.astype(np.int64)[rows].sum()) + _BYTES_PER_VALUE * len(array)
    if pa.types.is_struct(kind):
        return sum(map(_decoded_bytes, array.flatten())) + _BYTES_PER_VALUE * len(array)
    if pa.types.is_map(kind):
        return _decoded_bytes(array.keys) + _decoded_bytes(array.items) + _BYTES_PER_VALUE * len(array)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _decoded_bytes(array.flatten()) + _BYTES_PER_VALUE * len(array)
    return max(int(array.nbytes), _BYTES_PER_VALUE * len(array))

"""Check the headers of npy, npz and safetensors files before a number of theirs becomes a size."""

from __future__ import annotations

import io
import lzma
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.lib.format as npy

from probes.bounded.files import BoundedFileError, parse_json, shown
from probes.errors import DataError

#: The most bytes that the header of an npy array and of a safetensors file may have, and the most arrays in a file.
MOST_NPY_HEADER, MOST_SAFETENSORS_HEADER, MOST_ARRAYS = 10_000, 16 << 20, 10_000

#: Compressed arrays may inflate to this many bytes, or to this many times the size of the file if that is more.
MOST_INFLATED_BYTES, MOST_INFLATION = 128 << 20, 100

#: The exceptions that reading a damaged or hostile archive can raise.
ARCHIVE_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class ArrayPlace:
    """One array of a file: its shape, its number format, and where its first byte lies in the file or archive member.

    offset: within the file, or within the member of a zip archive. member: the name of that member. kind: the number
    format as the file names it. fortran: whether the array is stored column by column.
    """

    shape: tuple[int, ...]
    kind: str
    offset: int
    dtype: np.dtype[Any] | None = None
    fortran: bool = False
    member: str | None = None


def npy_place(file: IO[bytes]) -> ArrayPlace:
    """Return the array of an npy file that is open at its beginning. Raises BoundedFileError if it is no npy file."""
    begin = file.read(npy.MAGIC_LEN)
    version = (begin[-2], begin[-1]) if len(begin) == npy.MAGIC_LEN and begin.startswith(npy.MAGIC_PREFIX) else None
    if version not in {(1, 0), (2, 0), (3, 0)}:
        raise BoundedFileError("it does not begin as an npy file of version 1, 2 or 3 does")
    width = 2 if version == (1, 0) else 4
    field = file.read(width)
    length = int.from_bytes(field, "little")
    if len(field) < width or length > MOST_NPY_HEADER:
        raise BoundedFileError(
            f"the header of an npy array must have at most {MOST_NPY_HEADER:,} bytes, got {length:,}"
        )
    header = io.BytesIO(field + file.read(length))
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        shape, fortran, dtype = read(header)
    except (SyntaxError, RecursionError, MemoryError, OverflowError, TypeError, ValueError) as error:
        # What Python says of a header quotes it, or names parts of Python's own.
        raise BoundedFileError("the header of an npy array cannot be read") from error
    if any(isinstance(size, bool) or size < 0 for size in shape):
        raise BoundedFileError(
            f"the shape of an npy array must hold whole numbers of 0 or more, got {shown(str(shape))}"
        )
    return ArrayPlace(shape, str(dtype), file.tell(), dtype, fortran)


def npz_places(path: Path) -> dict[str, ArrayPlace]:
    """Return where each array of an npz file is, by name.

    Raises DataError naming the file for another format, and for arrays that would inflate beyond the bound.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _places_in(archive, max(MOST_INFLATED_BYTES, MOST_INFLATION * path.stat().st_size))
    except BoundedFileError as error:
        raise DataError(f"{path.name} must be an npz of plain numeric arrays: {error}") from error
    except ARCHIVE_ERRORS as error:
        raise DataError(f"{path.name} must be an npz of plain numeric arrays, and is damaged or none") from error


def _places_in(archive: zipfile.ZipFile, most_bytes: int) -> dict[str, ArrayPlace]:
    members, found = archive.infolist(), {}
    if len(members) > MOST_ARRAYS:
        raise BoundedFileError(f"it must hold at most {MOST_ARRAYS:,} arrays, got {len(members):,}")
    if (inflated := sum(member.file_size for member in members)) > most_bytes:
        raise BoundedFileError(f"it must inflate to at most {most_bytes:,} bytes, its directory says {inflated:,}")
    for member in members:
        with archive.open(member) as file:
            place = npy_place(file)
        size = place.offset + math.prod(place.shape) * (place.dtype.itemsize if place.dtype else 0)
        if size != member.file_size and place.kind != "object":
            name = shown(member.filename)
            raise BoundedFileError(f"{name} has {member.file_size:,} bytes, its header says {size:,}")
        found[member.filename.removesuffix(".npy")] = replace(place, member=member.filename)
    return found


def safetensors_places(path: Path) -> dict[str, ArrayPlace]:
    """Return where each array of a safetensors file is, by name, without a `dtype`; raise DataError naming the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MOST_SAFETENSORS_HEADER):
            raise DataError(f"{path.name} must be a safetensors file, its header does not fit")
        try:
            header = parse_json(file.read(length))
        except BoundedFileError as error:
            raise DataError(f"{path.name} must be a safetensors file, its header cannot be read: {error}") from error
    if not isinstance(header, dict) or len(header) > MOST_ARRAYS:
        raise DataError(f"{path.name} must be a safetensors file of at most {MOST_ARRAYS:,} arrays")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    places = {name: _tensor_place(path, name, entry, 8 + length) for name, entry in entries.items()}
    ends = [8 + length + entry["data_offsets"][1] for entry in entries.values()]
    if max(ends, default=size) != size:
        raise DataError(f"{path.name} ends early or late: its header promises {max(ends):,} bytes, it has {size:,}")
    return places


def _tensor_place(path: Path, name: str, entry: Any, start: int) -> ArrayPlace:
    expected: Mapping[str, type] = {"dtype": str, "shape": list, "data_offsets": list}
    if not isinstance(entry, dict) or any(not isinstance(entry.get(key), kind) for key, kind in expected.items()):
        raise DataError(f"{path.name} must be a safetensors file, its entry {shown(name)!r} cannot be read")
    numbers = [*entry["shape"], *entry["data_offsets"]]
    if any(not isinstance(one, int) or isinstance(one, bool) or one < 0 for one in numbers):
        raise DataError(f"{path.name}[{shown(name)}] must have a shape and offsets of whole numbers, 0 or more")
    if len(entry["data_offsets"]) != 2 or entry["data_offsets"][0] > entry["data_offsets"][1]:
        raise DataError(f"{path.name}[{shown(name)}] must have two offsets, the first not after the second")
    return ArrayPlace(tuple(entry["shape"]), entry["dtype"], start + entry["data_offsets"][0])

"""Read the rows of JSONL, JSON, CSV and parquet files, for every command that reads rows."""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.bounded.parquet import read_parquet
from probes.bounded.text import OTHER_BOMS, JsonFaultError, decode_json, decode_text, os_fault, path_fault
from probes.errors import DataError
from router.quoting import kind_of

#: Suffixes of the files that `read_rows` reads.
SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")

#: The longest prompt and the longest cell, in bytes. A real prompt is shorter; the bound catches columns that hold no
#: prompts.
MAX_PROMPT_BYTES = 16 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_DELIMITERS = ",;\t"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
#: `0,5` and `12,75` have a decimal comma. `1,000` may be a thousand, so it is not read as a number.
_DECIMAL_COMMA = re.compile(r"[+-]?(0,\d+|\d+,(\d{1,2}|\d{4,}))")


@dataclass(frozen=True, slots=True)
class Place:
    """Says where a row was read: the file, and from 1 the number of its line (text), record (JSON) or row (parquet)."""

    path: Path
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.path}, {self.unit} {self.number}"


@dataclass(frozen=True, slots=True)
class Row:
    """Holds a row of a file: its place, and its values by column. Empty CSV cells are absent."""

    place: Place
    values: Mapping[str, Any]


#: A function that is called with the place of a row that cannot be read, and with what is wrong with it.
OnBadRow = Callable[[Place, str], None]


def refuse(place: Place, problem: str) -> None:
    """Raise DataError for a row that cannot be read; callers that must not lose a row pass this as `on_bad_row`."""
    raise DataError(f"{place} {problem}.")


def read_rows(path: Path, on_bad_row: OnBadRow = refuse, *, old_windows: bool = False) -> list[Row]:
    """Return the rows of a file, whose suffix says in which format it is.

    Text is UTF-8 or, with a byte-order mark, UTF-16 or UTF-32; byte-order marks are dropped. JSON Lines end at a line
    feed, a carriage return, or both. A `.json` file is a list of objects, one object, an object whose `data`
    is a list of objects, or JSON Lines. CSV is separated by commas, semicolons or tabs, whichever its header has most;
    with `old_windows` it may also be Windows-1252, as spreadsheets on Windows save it.

    Calls `on_bad_row` for each row that cannot be read. If the whole file cannot be read, raises DataError, which names
    the file.
    """
    suffix = path.suffix.lower()
    read_csv = functools.partial(_read_csv, old_windows=old_windows)
    readers: dict[str, Callable[[Path, OnBadRow], list[Row]]] = {
        ".jsonl": _read_json_lines, ".ndjson": _read_json_lines, ".json": _read_json,
        ".csv": read_csv, ".tsv": read_csv, ".parquet": _read_parquet,
    }  # fmt: skip
    if (fault := path_fault(path)) is not None:
        raise DataError(f"data file {path} {fault}.")
    if suffix not in readers:
        raise DataError(f"{path} must end in {', '.join(SUFFIXES)}; got {suffix or 'no suffix'}.{_way_out(suffix)}")
    try:
        return readers[suffix](path, on_bad_row)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {os_fault(error)}.") from error


def _way_out(suffix: str) -> str:
    if suffix in {".pkl", ".pickle"}:
        return " A pickle runs code when opened: convert it with pandas first."
    if suffix in {".xlsx", ".xls", ".ods", ".numbers"}:
        return " Save it as CSV first."
    return " Unpack it first." if suffix in {".gz", ".zip", ".zst", ".bz2", ".xz"} else ""


def number_of(value: Any) -> float | None:
    """Return a number, which may be written as text (`0.5`, `1e-3`, `0,5`), as float, or None for anything else.

    True and false are no numbers. NaN and infinity are returned as they are.
    """
    if isinstance(value, str):
        text = value.strip()
        if _DECIMAL_COMMA.fullmatch(text):
            text = text.replace(",", ".")
        return float(text) if _NUMBER.fullmatch(text) else None
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _read_json_lines(path: Path, on_bad_row: OnBadRow) -> list[Row]:
    return list(_json_lines(path, _utf8(path), on_bad_row))


def _json_lines(path: Path, data: bytes, on_bad_row: OnBadRow) -> Iterator[Row]:
    # Only LF, CR and CRLF end a line: JSON text may hold every other character that `str.splitlines` splits at.
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for number, line in enumerate(io.BytesIO(data), start=1):
        line = line.removeprefix(_BOM)  # Files that were joined have such marks in between.
        if not line.strip():
            continue
        place = Place(path, "line", number)
        try:
            value = decode_json(line)
        except ValueError as error:
            on_bad_row(place, f"must be JSON: {error}")
            continue
        if isinstance(value, dict):
            yield Row(place, value)
        else:
            on_bad_row(place, f"must be a JSON object, got {kind_of(value)}")


def _read_json(path: Path, on_bad_row: OnBadRow) -> list[Row]:
    data = _utf8(path)
    try:
        loaded = decode_json(data)
    except ValueError as error:
        if isinstance(error, JsonFaultError) and error.is_followed:
            return list(_json_lines(path, data, on_bad_row))  # The file is JSON Lines under the name of JSON.
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} must be JSON: {error}.") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("data"), list):
        loaded = loaded["data"]  # List endpoints answer in this form.
    rows = []
    for number, value in enumerate(loaded if isinstance(loaded, list) else [loaded], start=1):
        place = Place(path, "record", number)
        if isinstance(value, dict):
            rows.append(Row(place, value))
        else:
            on_bad_row(place, f"must be an object, got {kind_of(value)}")
    return rows


def _read_csv(path: Path, on_bad_row: OnBadRow, *, old_windows: bool) -> list[Row]:
    text = (_old_windows(path) if old_windows else None) or read_text(path)
    first = text.partition("\n")[0].rstrip("\r")
    skipped = 0
    if first.lower().startswith("sep=") and len(first) == len("sep=") + 1:  # written by spreadsheets
        delimiter, text, skipped = first[-1], text.partition("\n")[2], 1
    else:
        bare = re.sub(r'"[^"]*"', "", first)
        delimiter = max(_DELIMITERS, key=bare.count)
    # By default the csv module refuses cells of more than 128 KiB, and a chat may be longer.
    csv.field_size_limit(MAX_PROMPT_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    try:
        header = _header(path, next(reader, []))
        begin = reader.line_num + 1 + skipped
        for cells in reader:
            place = Place(path, "line", begin)
            begin = reader.line_num + 1 + skipped
            if any(cells[len(header) :]):
                on_bad_row(place, f"has {len(cells)} cells, more than the header's {len(header)}")
            elif any(cells):
                rows.append(
                    Row(place, {name: cell for name, cell in zip(header, cells, strict=False) if cell and name})
                )
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num + skipped} cannot be read as CSV: {error}.") from error
    return rows


def _header(path: Path, cells: list[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    named = [name for name in header if name]
    if repeated := sorted({name for name in named if named.count(name) > 1}):
        raise DataError(f"{path} must name each column once; {', '.join(repeated)} stands more than once.")
    return header


def _read_parquet(path: Path, on_bad_row: OnBadRow) -> list[Row]:
    import pyarrow as pa

    try:
        table = _without_nanoseconds(read_parquet(path))
        rows = table.to_pylist()
    except DataError:  # It is a ValueError, and names the file already.
        raise
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise DataError(f"{path} holds values that cannot be read, such as a time beyond the year 9999.") from error
    binary = [name for name, kind in zip(table.column_names, table.schema.types, strict=True) if _is_binary(kind)]
    for row in rows:
        row.update({name: row[name].decode("utf-8", "replace") for name in binary if row[name] is not None})
    return [Row(Place(path, "row", number), row) for number, row in enumerate(rows, start=1)]


def _without_nanoseconds(table: Any) -> Any:
    """Return an arrow table with its points in time in microseconds, which Python's have; others write finer ones."""
    import pyarrow as pa

    for index, column in enumerate(table.schema):
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            coarse = table.column(index).cast(pa.timestamp("us", column.type.tz), safe=False)
            table = table.set_column(index, column.name, coarse)
    return table


def _is_binary(kind: Any) -> bool:
    """Return whether an arrow type is bytes, in which some databases export text."""
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def read_text(path: Path) -> str:
    """Return a text file in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark. Raises DataError naming the file."""
    if (fault := path_fault(path)) is not None:
        raise DataError(f"{path} {fault}.")
    try:
        return decode_text(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {os_fault(error)}.") from error
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def _old_windows(path: Path) -> str | None:
    """Return the text of a file that is Windows-1252, as spreadsheets on Windows save CSV; None for any other file."""
    data = path.read_bytes()
    if data.startswith((_BOM, *OTHER_BOMS)) or b"\x00" in data or (_CONTROLS & set(data)):
        return None
    try:
        data.decode()
    except UnicodeDecodeError:
        try:
            return data.decode("cp1252")
        except UnicodeDecodeError:
            return None
    return None


#: Bytes that no text has: control characters other than tabs, ends of lines and form feeds.
_CONTROLS = set(range(32)) - set(b"\t\n\r\f")

_WORD = re.compile(r"\w*[^\W\x00-\x7f]\w*")


def word_of_old_windows(path: Path) -> str | None:
    """Return a word of a CSV file that is read as Windows-1252, to show to the user; None for any other file.

    The word has a letter by which a person sees whether this is right, as in `Größe`; the text `?` stands for no word.
    """
    if path.suffix.lower() not in {".csv", ".tsv"} or path_fault(path) is not None:
        return None
    text = _old_windows(path)
    word = _WORD.search(text) if text is not None else None
    return None if text is None else word[0][:40] if word is not None else "?"


def _utf8(path: Path) -> bytes:
    """Return the bytes of a text file as UTF-8 without a byte-order mark. They may hold bytes that are no UTF-8."""
    data = path.read_bytes()
    if not data.startswith(OTHER_BOMS):
        return data.removeprefix(_BOM)
    try:
        return decode_text(data).encode("utf-8", "surrogatepass")
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}.") from error

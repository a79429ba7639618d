"""Read text in the usual encodings, and say in plain words why a file, a text or a JSON value cannot be read."""

from __future__ import annotations

import difflib
import itertools
import json
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from probes.bounded.json_keys import RepeatedKeyError, loads, place_in
from probes.errors import ProbesError

_BOMS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}

#: The byte-order marks of text that is not UTF-8.
OTHER_BOMS = tuple(mark for mark, name in _BOMS.items() if name != "utf-8-sig")

#: How files begin that people take for text.
_KINDS_OF_FILES = {
    b"\x1f\x8b": "a gzip file; unpack it first",
    b"PK\x03\x04": "a zip archive or a spreadsheet; unpack it, or save it as CSV in UTF-8",
    b"BZh": "a bzip2 file; unpack it first",
    b"\xfd7zXZ": "an xz file; unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd file; unpack it first",
    b"PAR1": "a parquet file; give it the ending .parquet",
    b"\x93NUMPY": "an npy file of numpy",
    b"\x80\x04": "a pickle, which runs code when opened; convert it first",
    b"\x80\x05": "a pickle, which runs code when opened; convert it first",
    b"\x89PNG": "a picture",
    b"%PDF": "a PDF",
    b"SQLite format 3": "a database of SQLite; export it first",
}

#: What the JSON reader of Python says, in our words.
_JSON_FAULTS = {
    "Extra data": "something follows the JSON value",
    "Expecting value": "a value is missing",
    "Expecting property name enclosed in double quotes": "a key in double quotes is missing",
    "Expecting ':' delimiter": "a colon is missing",
    "Expecting ',' delimiter": "a comma or an end is missing",
    "Unterminated string starting at": "a text begins that does not end",
    "Illegal trailing comma before end of object": "a comma stands before the end",
    "Illegal trailing comma before end of array": "a comma stands before the end",
}

#: How many names of a folder are compared with a name that is not there.
_MOST_NAMES = 10_000

#: Where files of the system stand that stand for what a shell pipes in.
_PIPED = ("/dev/fd/", "/dev/stdin", "/proc/")


def path_fault(path: Path) -> str | None:
    """Return why a path cannot be read as a file, as in "does not exist"; None if it is a file.

    A named pipe, a socket and a device are refused, because reading them may never end. What a shell pipes in passes
    (`/dev/stdin`, `<(...)`).
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link to a file that does not exist" if path.is_symlink() else not_there(path)
    except (OSError, ValueError) as error:
        return f"cannot be read: {os_fault(error)}"
    if stat.S_ISDIR(mode):
        return "is a folder and not a file"
    if stat.S_ISREG(mode) or str(path).startswith(_PIPED):
        return None
    return "is a pipe, a socket or a device and not a file"


def not_there(path: Path) -> str:
    """Return the words for a path that does not exist: "does not exist, but data.csv does" if that was mistyped."""
    mistyped = path
    while not mistyped.parent.exists() and mistyped.parent != mistyped:
        mistyped = mistyped.parent
    try:
        names = [entry.name for entry in itertools.islice(mistyped.parent.iterdir(), _MOST_NAMES)]
    except OSError:
        return "does not exist"
    for name in difflib.get_close_matches(mistyped.name, sorted(filter(str.isprintable, names)), 1, cutoff=0.75):
        if (meant := mistyped.with_name(name) / path.relative_to(mistyped)).exists():
            return f"does not exist, but {meant} does"
    return "does not exist"


def did_you_mean(name: str, known: Iterable[str], show: Callable[[str], str] = str, *, cutoff: float = 0.6) -> str:
    """Return a question with the nearest known name for the end of a message, or an empty text if none is near.

    For example: " Did you mean gpt-4?". show: how the name is written. cutoff: the least likeness, 0 to 1.
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" Did you mean {show(near[0])}?" if near else ""


def os_fault(error: Exception) -> str:
    """Return what the system, or a reader of ours, says of a file, without the number of the error and the path."""
    said = error.strerror if isinstance(error, OSError) else str(error)
    return said or "the system gives no reason"


def decode_text(data: bytes) -> str:
    """Return text in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark, without the mark.

    Raises ValueError that says what the data are instead, if that is known, and what to do.
    """
    encoding = next((name for mark, name in _BOMS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(_encoding_fault(data, encoding, error)) from None


def _encoding_fault(data: bytes, encoding: str, error: UnicodeDecodeError) -> str:
    for begin, kind in _KINDS_OF_FILES.items():
        if data.startswith(begin):
            return f"it must be text in UTF-8, and is {kind}"
    if encoding != "utf-8":
        return f"it begins as {encoding.removesuffix('-sig').upper()} and is damaged at byte {error.start:,}"
    return f"it must be text in UTF-8, and is not at byte {error.start:,}; save it as UTF-8"


def looks_like_utf16(data: bytes) -> bool:
    """Return whether every other of the first bytes is zero, as in UTF-16 text without a byte-order mark."""
    first = data[:200]
    return len(first) >= 4 and (not any(first[::2]) or not any(first[1::2])) and any(first)


class JsonFaultError(ValueError):
    """A text is not JSON.

    is_followed: whether it begins with a whole JSON value, which something follows, as in JSON Lines.
    """

    def __init__(self, message: str, *, is_followed: bool) -> None:
        super().__init__(message)
        self.is_followed = is_followed


def decode_json(text: str | bytes) -> Any:
    """Return the value of a JSON text. Raises ValueError, which says in plain words what is wrong and where."""
    whole = decode_text(text) if isinstance(text, bytes) else text
    try:
        return loads(whole)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise JsonFaultError(json_fault(error), is_followed=error.msg == "Extra data") from error
    except ValueError as error:
        raise ValueError(json_fault(error)) from error


def json_fault(error: ValueError) -> str:
    """Return what is wrong with a JSON text that Python's reader or `json_keys.loads` refused, and where."""
    if isinstance(error, RepeatedKeyError):
        return str(error)
    if not isinstance(error, json.JSONDecodeError):
        # Python converts no integer of more than 4,300 digits.
        return "it holds a whole number of too many digits"
    if looks_like_utf16(error.doc[:200].encode(errors="replace")):
        return "it seems to be UTF-16 without a byte-order mark; save it as UTF-8"
    return f"{_JSON_FAULTS.get(error.msg, 'it is malformed')} {place_in(error.doc, error.pos)}"


def fields_fault(error: Exception) -> str:
    """Return in plain words why the fields of a file cannot be read, as in "it lacks 'step'"."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return str(error).rstrip(".") if isinstance(error, ProbesError) else "it holds a value of a wrong kind"


def kind_of(value: Any) -> str:
    """Return what a decoded value is, in the words of JSON: "a text", "a list", "nothing"."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return "a list"
    return "something else"

"""Read files that others wrote with bounds on bytes, nesting and the size of numbers."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from probes.bounded.json_keys import loads
from probes.bounded.secrets import mask_secrets
from probes.bounded.text import json_fault, path_fault

#: The most levels of nested objects and lists that JSON may have; probe.json has 6.
MOST_DEPTH = 64

_PIECE = 1 << 20


class BoundedFileError(ValueError):
    """The file is too large, or holds values that no file of ours holds; the message does not name the file."""


class BoundedJsonError(BoundedFileError):
    """The contents are not JSON in UTF-8."""


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Return the contents of a file of at most `most_bytes` bytes.

    Raises BoundedFileError for a larger one, without reading more than that, and for a folder, a named pipe, a socket
    or a device. Raises OSError as `open` does.
    """
    if path.exists() and (fault := path_fault(path)) is not None:
        raise BoundedFileError(f"it {fault}")
    pieces, left = [], most_bytes
    with path.open("rb") as file:
        # Read to the end, not up to the size at the start: a pipe has no size, and a file may grow.
        while left >= 0 and os.fstat(file.fileno()).st_size <= most_bytes and (piece := file.read(_PIECE)):
            pieces.append(piece)
            left -= len(piece)
        if left < 0 or os.fstat(file.fileno()).st_size > most_bytes:
            raise BoundedFileError(f"it must have at most {most_bytes:,} bytes")
    return b"".join(pieces)


def parse_json(data: bytes) -> Any:
    """Decode JSON in UTF-8 with finite numbers, integers within 64 bits, valid text, and at most 64 levels.

    No object in it may name a key twice.

    Raises BoundedFileError that says what is wrong.
    """
    try:
        text = data.decode("utf-8")
        found = loads(text, parse_constant=_refuse, parse_float=_float, parse_int=_int)
    except RecursionError:
        raise BoundedJsonError(f"it must not be nested more than {MOST_DEPTH} levels deep") from None
    except BoundedFileError:
        raise
    except UnicodeDecodeError as error:
        raise BoundedJsonError(f"it must be JSON in UTF-8, and is not at byte {error.start:,}") from error
    except ValueError as error:
        raise BoundedJsonError(f"it must be JSON in UTF-8: {json_fault(error)}") from error
    _check(found)
    return found


def _refuse(name: str) -> float:
    raise BoundedFileError(f"it must hold finite numbers; got {name}")


def _float(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise BoundedFileError(f"it must hold finite numbers; got {shown(digits)}")
    return value


def _int(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= (value := int(digits)) < 2**63:
        raise BoundedFileError(f"it must hold whole numbers of 64 bits at most, got {shown(digits)}")
    return value


def _check(value: object) -> None:
    # This goes level by level, because recursion would fail on deep nesting.
    level, depth = [value], 0
    while level:
        if depth > MOST_DEPTH:
            raise BoundedFileError(f"it must not be nested more than {MOST_DEPTH} levels deep")
        inner: list[object] = []
        for one in level:
            if isinstance(one, dict):
                inner += one
                inner += one.values()
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, str) and not one.isascii():
                _check_text(one)
        level, depth = inner, depth + 1


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BoundedFileError(f"it must hold valid Unicode, got a lone surrogate at {error.start} of a text") from None


def shown(text: str, most: int = 60) -> str:
    """Return the text for a message: keys in it are masked, and a long one is cut to its beginning and its length."""
    return "".join(beginning_and_rest(text, most))


def beginning_and_rest(text: str, most: int) -> tuple[str, str]:
    """Return the parts of what `shown` returns: the text without its keys, cut at `most` characters, and its length.

    The second part is empty if nothing was cut, as in `("no model ***", "")`; else it is `... (900 characters)`.
    """
    # What lies far behind the cut is not searched for keys.
    masked = mask_secrets(text[: most + 1000])
    return (masked, "") if len(text) <= most else (masked[:most], f"... ({len(text):,} characters)")

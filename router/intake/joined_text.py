"""Join pieces of text to one long text, piece by piece, so that no single step keeps other threads waiting.

`str.join` is one step during which no other thread runs. Most of it is spent in taking fresh memory from the system
(the attack `bodies.picture` of `benchmarks.attack`).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from typing import Any

#: Whether this Python is the one whose C interface is used here.
_IS_CPYTHON = sys.implementation.name == "cpython"

#: The largest character that `str.isascii` allows, and the largest of each size in which Python keeps a text.
_SIZES = (0x7F, 0xFF, 0xFFFF, sys.maxunicode)

#: Shorter texts are joined by Python.
_SHORT = 256 * 1024


def joined(pieces: Sequence[str]) -> str:
    """Return one text made of the pieces in their order, as `"".join(pieces)` does."""
    length = sum(map(len, pieces))
    if length <= _SHORT or not _IS_CPYTHON:
        return "".join(pieces)
    return _filled(length, _largest(pieces), pieces)


def _largest(pieces: Sequence[str]) -> int:
    """Return the largest character that Python makes room for in a text that holds these pieces."""
    largest = _SIZES[0]
    for piece in pieces:
        if largest < _SIZES[-1] and not piece.isascii():
            found = ord(max(piece))
            largest = max(largest, next(size for size in _SIZES if found <= size))
    return largest


def _filled(length: int, largest: int, pieces: Sequence[str]) -> str:
    # The memory is taken from the system where it is written for the first time, and so in the pieces' steps.
    text = _NEW(length, largest)
    try:
        at = 0
        for piece in pieces:
            # A text may be written to as long as nobody else refers to it, so it is no object of Python's yet.
            at += _COPY(text, at, piece, 0, len(piece))
        whole: str = ctypes.cast(text, ctypes.py_object).value
        return whole
    finally:
        _FORGET(text)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    # A function of our own: the types of `ctypes.pythonapi.NAME` are those of everybody in the process who calls it.
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


if _IS_CPYTHON:
    # https://docs.python.org/3/c-api/unicode.html#creating-and-accessing-unicode-strings
    _NEW = _function("PyUnicode_New", ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_uint32)
    _COPY = _function(
        "PyUnicode_CopyCharacters",
        *(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.py_object, ctypes.c_ssize_t, ctypes.c_ssize_t),
    )
    _FORGET = _function("Py_DecRef", None, ctypes.c_void_p)

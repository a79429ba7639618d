"""Decode and encode large answers of upstreams without keeping other requests waiting.

Python's own decoder and encoder are one call each, during which no other thread runs: a million values take a tenth of
a second. The functions here are slower, but let other threads run all the time. They work in one thread, on one answer
after the other.
"""

from __future__ import annotations

import asyncio
import json
import json.scanner
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

#: An answer is large if it holds more values than this, or more characters of text.
LARGE_VALUES, LARGE_TEXT = 1000, 64 * 1024

#: Characters of a text that are encoded in one call.
_PIECE = 64 * 1024

# With a second thread the event loop would have to wait for two threads instead of one.
_THREAD = ThreadPoolExecutor(1, thread_name_prefix="large-answers")


async def apart(job: Callable[..., T], *arguments: object) -> T:
    """Run a job in the thread for large answers and return its result."""
    return await asyncio.get_running_loop().run_in_executor(_THREAD, job, *arguments)


def is_large(value: Any) -> bool:
    """Return whether a JSON value has so many values or so much text that encoding it would delay other requests.

    It looks at `LARGE_VALUES` values at most.
    """
    waiting, n_values, n_characters = [value], 0, 0
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            n_characters += len(one)
        elif isinstance(one, Mapping | list | tuple):
            n_values += len(one)
            if n_values > LARGE_VALUES:
                return True
            waiting.extend(one.values() if isinstance(one, Mapping) else one)
        if n_characters > LARGE_TEXT:
            return True
    return False


class PatientDecoder(json.JSONDecoder):
    """Decodes JSON like `json.JSONDecoder`, but returns to Python between values, so that other threads can run."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scan_once = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined]


def json_in_pieces(value: Any) -> bytes:
    """Return the JSON of a value without spaces, as `json.dumps` writes it. Keys must be text."""
    pieces: list[str] = []
    _write(value, pieces.append)
    return "".join(pieces).encode()


def _write(value: Any, write: Callable[[str], None]) -> None:
    if isinstance(value, str) and len(value) > _PIECE:
        write('"')
        for begin in range(0, len(value), _PIECE):
            write(json.dumps(value[begin : begin + _PIECE])[1:-1])
        write('"')
    elif isinstance(value, Mapping):
        before = "{"
        for key, item in value.items():
            write(f"{before}{json.dumps(key)}:")
            _write(item, write)
            before = ","
        write("{}" if before == "{" else "}")
    elif isinstance(value, list | tuple):
        before = "["
        for item in value:
            write(before)
            _write(item, write)
            before = ","
        write("[]" if before == "[" else "]")
    else:
        write(json.dumps(value))

"""Decode and encode large answers of upstreams without keeping other requests waiting.

Python's own decoder and encoder are one call each, during which no other thread runs: 200,000 values take 20 ms. The
functions here are slower, but let other threads run all the time. They work in one thread, on one answer after the
other.
"""

from __future__ import annotations

import asyncio
import functools
import json
import json.scanner
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from router.plain_json import PIECE

T = TypeVar("T")

#: An answer is large if it holds more values than this, or more characters of text.
LARGE_VALUES, LARGE_TEXT = 1000, 64 * 1024

#: Pieces of a text that are joined in one step.
PIECES_AT_ONCE = 1024

#: Fields of an OpenAI answer that a library in between may read.
_KNOWN_FIELDS = frozenset({"id", "object", "created", "model", "choices", "usage", "error"})

# With a second thread the event loop would have to wait for two threads instead of one.
_THREAD = ThreadPoolExecutor(1, thread_name_prefix="large-answers")


async def apart(job: Callable[..., T], *arguments: object) -> T:
    """Run a job in the thread for large answers and return its result."""
    return await asyncio.get_running_loop().run_in_executor(_THREAD, job, *arguments)


class SetAside:
    """Holds the large parts of an OpenAI answer, which a library in between need not see: it would copy each value.

    These are token probabilities and fields that the API does not have.
    """

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._probabilities: dict[int, Any] = {}

    def take_from(self, answer: Any) -> None:
        """Take the large parts out of a decoded answer and keep them; an answer in another shape stays as it is."""
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list):
            return
        for name in [name for name, value in answer.items() if name not in _KNOWN_FIELDS and is_large(value)]:
            self._fields[name] = answer.pop(name)
        for index, choice in enumerate(choices):
            if isinstance(choice, dict) and is_large(choice.get("logprobs")):
                self._probabilities[index] = choice.pop("logprobs")

    def put_back(self, answer: dict[str, Any]) -> None:
        """Put the parts back into the answer, each into the choice with the index that it was taken from."""
        for name, value in self._fields.items():
            answer.setdefault(name, value)
        choices = answer.get("choices") or []
        for index, value in self._probabilities.items():
            if index < len(choices):
                choices[index]["logprobs"] = value


def is_large(value: Any) -> bool:
    """Return whether a JSON value has so many values or so much text that encoding it would delay other requests.

    It looks at `LARGE_VALUES` values at most.
    """
    return holds_more(value, n_values=LARGE_VALUES, n_characters=LARGE_TEXT)


def holds_more(value: Any, *, n_values: float, n_characters: float = math.inf) -> bool:
    """Return whether a JSON value holds more values, or more characters of text, than these two numbers."""
    waiting, values, characters = [value], 0, 0
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            characters += len(one)
        elif isinstance(one, Mapping | list | tuple):
            values += len(one)
            if values > n_values:
                return True
            waiting.extend(one.values() if isinstance(one, Mapping) else one)
        if characters > n_characters:
            return True
    return False


class PatientDecoder(json.JSONDecoder):
    """Decodes JSON like `json.JSONDecoder`, but returns to Python between values, so that other threads can run."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scan_once = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined]


class Pieces:
    """Joins very many pieces to one long text, block by block, because joining all of them at once is one long step.

    backwards: whether what is added stands before what was added earlier.
    """

    def __init__(self, *, backwards: bool = False) -> None:
        self._step = -1 if backwards else 1
        self._blocks: list[bytes] = []
        self._latest: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """Add the next piece."""
        self._latest.append(piece)
        if len(self._latest) >= PIECES_AT_ONCE:
            self._blocks.append(b"".join(self._latest[:: self._step]))
            self._latest.clear()

    def joined(self) -> bytes:
        """Return the whole text."""
        return b"".join([*self._blocks, b"".join(self._latest[:: self._step])][:: self._step])


def json_in_pieces(value: Any, *, ascii_only: bool = True) -> bytes:
    """Return the JSON of a value without spaces, as `json.dumps` writes it. Keys must be text.

    Raises ValueError for a number that is not finite, and for half of a surrogate pair unless `ascii_only`.
    """
    pieces = Pieces()
    dumps = functools.partial(json.dumps, ensure_ascii=ascii_only, allow_nan=False)
    _write(value, lambda text: pieces.add(text.encode()), dumps)
    return pieces.joined()


def _write(value: Any, write: Callable[[str], None], dumps: Callable[[Any], str]) -> None:
    if isinstance(value, str) and len(value) > PIECE:
        write('"')
        for begin in range(0, len(value), PIECE):
            write(dumps(value[begin : begin + PIECE])[1:-1])
        write('"')
    elif isinstance(value, Mapping):
        before = "{"
        for key, item in value.items():
            write(f"{before}{dumps(key)}:")
            _write(item, write, dumps)
            before = ","
        write("{}" if before == "{" else "}")
    elif isinstance(value, list | tuple):
        before = "["
        for item in value:
            write(before)
            _write(item, write, dumps)
            before = ","
        write("[]" if before == "[" else "]")
    else:
        write(dumps(value))

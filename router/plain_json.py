"""JSON that others wrote, made safe: what any JSON reader, protobuf and every door can carry, or an error."""

from __future__ import annotations

import itertools
import json
import math
import sys
from typing import Any

#: Levels of objects and lists that an answer may nest. Protobuf reads 100 messages within each other, and one level of
#: a `google.protobuf.Struct` takes three of them.
MAX_ANSWER_DEPTH = 32

#: Levels that a request may nest. Its tools hold JSON schemas, which nest further than answers do.
MAX_REQUEST_DEPTH = 100

#: Of the integers that a double can hold the longest has 309 digits.
_LARGEST = int(sys.float_info.max)


class NotPlainJsonError(ValueError):
    """A text or value that is no plain JSON; the message says why, as in "it holds NaN", and quotes nothing of it."""


def loads(text: str | bytes) -> Any:
    """Return the value of a JSON text of an upstream.

    Raises NotPlainJsonError for what is not JSON in UTF-8, and for what `check` refuses.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except NotPlainJsonError:
        raise
    except RecursionError:
        raise NotPlainJsonError(f"it nests deeper than {MAX_ANSWER_DEPTH} levels") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NotPlainJsonError("it is malformed") from error
    except ValueError as error:
        # Python converts no integer of more than 4,300 digits.
        raise NotPlainJsonError("it holds an integer beyond the range of a double") from error
    check(value)
    return value


def check(value: Any, *, max_depth: int = MAX_ANSWER_DEPTH) -> None:
    """Raise NotPlainJsonError if a decoded JSON value nests too deeply or holds a number that no double can hold.

    JSON has no NaN and no Infinity, but Python reads `1e999` as one. Half surrogates pass: see `whole_text`.
    """
    level, depth = [value], 0
    while level:
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.append(item.values())
            elif isinstance(item, list | tuple):
                below.append(item)
            elif isinstance(item, float):
                if not math.isfinite(item):
                    raise NotPlainJsonError("it holds a number that is not finite")
            elif isinstance(item, int) and not -_LARGEST <= item <= _LARGEST:
                raise NotPlainJsonError("it holds an integer beyond the range of a double")
        depth += bool(below)
        if depth > max_depth:
            raise NotPlainJsonError(f"it nests deeper than {max_depth} levels")
        level = list(itertools.chain.from_iterable(below))


def whole_text(text: str) -> str:
    """Return the text as UTF-8 can hold it: pairs of surrogates joined, a lone half replaced by U+FFFD.

    JSON can escape half of a surrogate pair, as in "\\ud83d", and models that stream cut emoji in two.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class TextPieces:
    """The pieces of a streamed text, each as UTF-8 can hold it: half of a surrogate pair waits for its other half."""

    def __init__(self) -> None:
        self._held = ""

    def next(self, piece: str) -> str:
        """Return what can be sent now of everything that has come."""
        text = self._held + piece
        self._held = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" else ""
        return whole_text(text[:-1] if self._held else text)


def _refuse_constant(name: str) -> Any:
    raise NotPlainJsonError(f"it holds {name}, which is not JSON")

"""Read and check JSON that others wrote, so that every JSON reader, protobuf and every door can carry it."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from probes.bounded.json_keys import RepeatedKeyError

#: The deepest nesting of objects and lists in an answer. Protobuf reads 100 messages within each other, and one level
#: of a `google.protobuf.Struct` takes three of them.
MAX_ANSWER_DEPTH = 32

#: The deepest nesting in a request. Its tools hold JSON schemas, which nest more deeply than answers do.
MAX_REQUEST_DEPTH = 100

#: Characters of a long text that are encoded in one step.
PIECE = 64 * 1024

#: The largest integer that a double can hold. It has 309 digits.
_LARGEST = int(sys.float_info.max)
_MOST_DIGITS = 310


class NotPlainJsonError(ValueError):
    """The text or value is not plain JSON. The message says why, as in "it holds NaN", and quotes nothing of it."""


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as a text of JSON lines: an object on each line, as every reader of outcomes and logs takes them."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def loads(text: str | bytes, decoder: type[json.JSONDecoder] = json.JSONDecoder) -> Any:
    """Decode a JSON text that an upstream sent, with `decoder`, and return its value.

    Raises NotPlainJsonError if the text is not JSON in UTF-8, and if `check` refuses the value.
    """
    try:
        value = json.loads(text, cls=decoder, parse_constant=_refuse_constant)
    except NotPlainJsonError:
        raise
    except RecursionError:
        raise NotPlainJsonError(f"it nests deeper than {MAX_ANSWER_DEPTH} levels") from None
    except RepeatedKeyError as error:
        raise NotPlainJsonError(str(error)) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NotPlainJsonError("it is malformed") from error
    except ValueError as error:
        # Python refuses to convert an integer of more than 4,300 digits.
        raise NotPlainJsonError("it holds an integer beyond the range of a double") from error
    check(value)
    return value


def loads_mended(text: bytes, decoder: type[json.JSONDecoder] = json.JSONDecoder) -> Any:
    """Decode a JSON text that an upstream sent as `loads` does, but mend what providers are known to get wrong.

    A number beyond the range of a double becomes the nearest double, NaN becomes null, and bytes that are not UTF-8
    become U+FFFD. vLLM writes the log-probability of what cannot happen as -Infinity.

    Raises NotPlainJsonError for anything else that is not plain JSON.
    """
    try:
        return loads(text, decoder)
    except NotPlainJsonError as error:
        try:
            whole = text.decode(json.detect_encoding(text), "replace")
            value = json.loads(whole, cls=decoder, parse_int=_read_integer)
        except (ValueError, RecursionError):
            raise error from None
        return mended(value)


def with_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a copy of a JSON value in which `change` was applied to everything that is no object and no list."""
    if isinstance(value, dict):
        return {key: with_leaves(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [with_leaves(item, change) for item in value]
    return change(value)


def mended(value: Any, *, max_depth: int = MAX_ANSWER_DEPTH) -> Any:
    """Return a decoded value with numbers that plain JSON can hold, as `loads_mended` describes them.

    Raises NotPlainJsonError if it nests too deeply.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else math.copysign(sys.float_info.max, value)
    if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
        return sys.float_info.max if value > 0 else -sys.float_info.max
    if isinstance(value, dict | list | tuple):
        if not max_depth:
            raise NotPlainJsonError(f"it nests deeper than {MAX_ANSWER_DEPTH} levels")
        if isinstance(value, dict):
            return {key: mended(item, max_depth=max_depth - 1) for key, item in value.items()}
        return [mended(item, max_depth=max_depth - 1) for item in value]
    return value


def check(value: Any, *, max_depth: int = MAX_ANSWER_DEPTH) -> None:
    """Raise NotPlainJsonError if a decoded JSON value nests too deeply or holds a number that no double can hold.

    JSON has no Infinity, but Python reads `1e999` as one. Half surrogates pass; `whole_text` replaces them.
    """
    below: list[Iterable[Any]] = [(value,)]
    depth = 0
    while below:
        # Without a list of the level: making a long one is a single step.
        level, below = itertools.chain.from_iterable(below), []
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


def whole_text(text: str) -> str:
    """Return the text as UTF-8 can hold it: surrogate pairs are joined, and a lone half is replaced by U+FFFD.

    JSON can escape half of a surrogate pair, as in "\\ud83d", and a stream may cut an emoji in two.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def utf8_pieces(text: str) -> Iterator[bytes]:
    """Yield the bytes of `whole_text` in pieces, so that a long text is encoded in steps that keep nobody waiting."""
    begin = 0
    while begin < len(text):
        end = begin + PIECE
        if _is_first_half(text[end - 1 : end]) and "\udc00" <= text[end : end + 1] <= "\udfff":
            end += 1
        yield whole_text(text[begin:end]).encode()
        begin = end


class TextPieces:
    """Makes each piece of a streamed text valid UTF-8. It holds back half of a surrogate pair until the other comes."""

    def __init__(self) -> None:
        self._held = ""

    def next(self, piece: str) -> str:
        """Take the next piece of the text, and return the part that can be sent now."""
        text = self._held + piece
        self._held = text[-1] if _is_first_half(text[-1:]) else ""
        return whole_text(text[:-1] if self._held else text)


def _read_integer(digits: str) -> int | float:
    """Return an integer, or an infinity for one of more digits than a double can have, which Python may refuse."""
    return int(digits) if len(digits) <= _MOST_DIGITS else math.copysign(math.inf, -1 if digits[0] == "-" else 1)


def _is_first_half(character: str) -> bool:
    return "\ud800" <= character <= "\udbff"


def _refuse_constant(name: str) -> Any:
    raise NotPlainJsonError(f"it holds {name}, which is not JSON")

"""Plain JSON values <-> google.protobuf.Struct, whose only number type is double."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf import struct_pb2

from router.errors import InvalidRequestError
from router.plain_json import MAX_ANSWER_DEPTH, whole_text

#: Up to here a double tells all integers apart.
_EXACT = 2**53


def dict_from_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """Return the plain values of a Struct; integral values come back as integers."""
    return {key: _plain(value) for key, value in struct.fields.items()}


def dict_from_request(struct: struct_pb2.Struct, field: str) -> dict[str, Any]:
    """Return the same of a caller's Struct. Raises InvalidRequestError, naming `field`, for NaN and Infinity."""
    plain = dict_from_struct(struct)
    if not _is_finite(plain):
        raise InvalidRequestError(f"{field} must hold plain JSON values, got a number that is not finite.", field=field)
    return plain


def struct_from_request(values: Mapping[str, Any], field: str) -> struct_pb2.Struct:
    """Return a Struct of a caller's values. Raises InvalidRequestError, naming `field`, for what it cannot hold.

    That is what is not JSON, half surrogates, integers that a double would change, and nesting beyond 32 levels.
    """
    try:
        return _struct(values, text=str, number=_exact)
    except UnicodeEncodeError as error:
        message = f"{field} must be valid Unicode, got half of a surrogate pair."
        raise InvalidRequestError(message, field=field) from error
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"{field} must hold plain JSON values: {error}.", field=field) from error


def struct_from_answer(body: Mapping[str, Any]) -> struct_pb2.Struct:
    """Return a Struct of an upstream's answer, which `router.plain_json.check` has let through.

    Half surrogates become U+FFFD and integers beyond 2^53 the nearest double: the answer is paid for and must arrive.
    """
    return _struct(body, text=whole_text, number=float)


def _plain(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {key: _plain(item) for key, item in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= _EXACT else number
    return None if kind is None or kind == "null_value" else getattr(value, kind)


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _struct(
    values: Mapping[str, Any], *, text: Callable[[str], str], number: Callable[[float], float]
) -> struct_pb2.Struct:
    """A Struct of these values; `text` and `number` say what becomes of what protobuf cannot hold as it is."""

    def fill_fields(struct: struct_pb2.Struct, items: Mapping[str, Any], levels: int) -> None:
        for key, item in items.items():
            if not isinstance(key, str):
                raise TypeError(f"keys must be text, got {type(key).__name__}")
            fill(struct.fields[text(key)], item, levels)

    def fill(value: struct_pb2.Value, item: Any, levels: int) -> None:
        if item is None:
            value.null_value = struct_pb2.NULL_VALUE
        elif isinstance(item, bool):
            value.bool_value = item
        elif isinstance(item, str):
            value.string_value = text(item)
        elif isinstance(item, int | float):
            value.number_value = number(item)
        elif not isinstance(item, Iterable) or isinstance(item, bytes):
            raise TypeError(f"{type(item).__name__} is not JSON")
        elif levels < 1:
            raise ValueError(f"nested deeper than {MAX_ANSWER_DEPTH} levels")
        elif isinstance(item, Mapping):
            value.struct_value.SetInParent()
            fill_fields(value.struct_value, item, levels - 1)
        else:
            value.list_value.SetInParent()
            for one in item:
                fill(value.list_value.values.add(), one, levels - 1)

    if not isinstance(values, Mapping):
        raise TypeError(f"an object is needed, got {type(values).__name__}")
    struct = struct_pb2.Struct()
    fill_fields(struct, values, MAX_ANSWER_DEPTH - 1)
    return struct


def _exact(number: float) -> float:
    try:
        double = float(number)
    except OverflowError:
        double = math.inf
    if not math.isfinite(double):
        raise ValueError("a number that is not finite is not JSON")
    if double != number:
        raise ValueError("an integer beyond 2^53 would be changed on the wire; send it as text")
    return double

"""Convert between plain JSON values and google.protobuf.Struct, whose only number type is double."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf import struct_pb2

from router.errors import InvalidRequestError
from router.plain_json import MAX_ANSWER_DEPTH, whole_text
from router.quoting import kind_of

#: Up to this magnitude a double represents every integer exactly.
_EXACT = 2**53


def dict_from_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """Return the plain values of a Struct; whole numbers come back as integers."""
    return {key: _plain(value) for key, value in struct.fields.items()}


def dict_from_request(struct: struct_pb2.Struct, field: str) -> dict[str, Any]:
    """Return the plain values of a Struct that a caller sent.

    Raises InvalidRequestError, which names `field`, for NaN and Infinity.
    """
    plain = dict_from_struct(struct)
    if not _is_finite(plain):
        raise InvalidRequestError(f"{field} must hold plain JSON values, got a number that is not finite.", field=field)
    return plain


def struct_from_request(values: Mapping[str, Any], field: str) -> struct_pb2.Struct:
    """Return the values that a caller sends as a google.protobuf.Struct.

    Raises InvalidRequestError, which names `field`, if a value is not JSON, holds half of a surrogate pair, is an
    integer that a double would change, or is nested deeper than 32 levels.
    """
    try:
        return _struct(values, text=str, number=_exact)
    except UnicodeEncodeError as error:
        message = f"{field} must be valid Unicode, got half of a surrogate pair."
        raise InvalidRequestError(message, field=field) from error
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"{field} must hold plain JSON values: {error}.", field=field) from error


def struct_from_answer(body: Mapping[str, Any]) -> struct_pb2.Struct:
    """Return an upstream's answer as a google.protobuf.Struct. It must have passed `router.plain_json.check`.

    Half of a surrogate pair becomes U+FFFD, and an integer beyond 2^53 the nearest double: the caller has paid for the
    answer, so it must arrive even if it cannot arrive unchanged.
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
    """Return these values as a google.protobuf.Struct.

    text: makes valid Unicode of a string, or raises.
    number: makes a double of a number, or raises.
    """

    def fill_fields(struct: struct_pb2.Struct, items: Mapping[str, Any], levels: int) -> None:
        for key, item in items.items():
            if not isinstance(key, str):
                raise TypeError(f"keys must be text, got {kind_of(key)}")
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
            raise TypeError(f"{kind_of(item)} is not JSON")
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
        raise TypeError(f"an object is needed, got {kind_of(values)}")
    struct = struct_pb2.Struct()
    fill_fields(struct, values, MAX_ANSWER_DEPTH - 1)
    return struct


def _exact(number: float) -> float:
    """Return the number as a double of the same value. Raises ValueError if the double is another number."""
    try:
        double = float(number)
    except OverflowError:
        double = math.inf
    if not math.isfinite(double):
        raise ValueError("a number that is not finite is not JSON")
    if double != number:
        raise ValueError("an integer beyond 2^53 would be changed on the wire; send it as text")
    return double

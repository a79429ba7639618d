"""Read the scores of a request: numbers that other systems made of it, such as a decision model's probability."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from router.errors import InvalidRequestError
from router.quoting import quoted

#: The header, and the key of gRPC metadata, that holds one score: `x-elle-score-confidence: 0.7`.
SCORE_HEADER_PREFIX = "x-elle-score-"
#: The header that holds several scores as a JSON object: `{"confidence": 0.7}`.
SCORES_HEADER = "x-elle-scores"
#: The key of the body's `metadata` that holds scores: an object, or its JSON text.
SCORES_KEY = "elle_scores"

#: The largest number of scores in a request, and the longest name of one.
MAX_SCORES, MAX_NAME = 32, 64

_LONGEST_NUMBER, _LONGEST_JSON = 64, 8192


def scores_of(given: Mapping[str, Any], headers: Mapping[str, str], parameters: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of a request by name in small letters; empty if it has none. Every door uses this.

    A value that is no number becomes NaN: the policy that wants it abstains and says so, and no other one minds.

    Args:
        given: scores that the caller stated in the field `scores` of the request; they are preferred to all others.
        headers: the headers of the call, with names in any case; they come next.
        parameters: the other fields of the body; `metadata.elle_scores` comes last.

    Raises InvalidRequestError for more than MAX_SCORES scores, a name longer than MAX_NAME characters, two names that
    differ in case only, and for a header or a key that holds no JSON object.
    """
    if given:
        return _checked(given.items(), "scores")
    found: list[tuple[str, Any]] = []
    for name, text in headers.items() if headers else ():
        key = name.lower()
        if key == SCORES_HEADER:
            found += _object(text, SCORES_HEADER).items()
        elif key.startswith(SCORE_HEADER_PREFIX):
            found.append((key.removeprefix(SCORE_HEADER_PREFIX), text))
    if found:
        return _checked(found, SCORES_HEADER)
    if not parameters:
        return {}
    metadata = parameters.get("metadata")
    held = metadata.get(SCORES_KEY) if isinstance(metadata, Mapping) else None
    return {} if held is None else _checked(_object(held, f"metadata.{SCORES_KEY}").items(), f"metadata.{SCORES_KEY}")


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if isinstance(value, str) and len(value) <= _LONGEST_JSON:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, Mapping):
        raise InvalidRequestError(
            f'{where} must be a JSON object of numbers, such as {{"confidence": 0.7}}.', field=where
        )
    return value


def _checked(pairs: Iterable[tuple[str, Any]], where: str) -> dict[str, float]:
    scores: dict[str, float] = {}
    for name, value in pairs:
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise InvalidRequestError(
                f"names of {where} must be text of 1 to {MAX_NAME} characters, got {quoted(name)}.", field=where
            )
        if name.lower() in scores:
            raise InvalidRequestError(f"{where} must name each score once, got {quoted(name)} twice.", field=where)
        if len(scores) == MAX_SCORES:
            raise InvalidRequestError(f"{where} must hold at most {MAX_SCORES} scores, got more.", field=where)
        scores[name.lower()] = _number(value)
    return scores


def _number(value: Any) -> float:
    """Return a number, which may be written as text, as a float; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    if isinstance(value, str) and (len(value) > _LONGEST_NUMBER or "_" in value):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan

"""Decode the JSON of an upstream within bounds; texts with many values are refused, and long ones use a thread."""

from __future__ import annotations

import json
from typing import Any

from router import plain_json
from router.answering.reading.large_answers import PatientDecoder, apart, is_large
from router.errors import UpstreamUnavailableError
from router.intake.long_strings import find_long_strings, shorten

#: Commas and opening brackets that a JSON text may hold, those in its strings too. The longest answers in one piece
#: hold token probabilities: so many are 1,800 tokens with twenty alternatives each. With more, single steps of C that
#: hold Python's lock (checking in a library, freeing what was decoded) would keep every other caller waiting.
MAX_SIGNS = 200_000

#: Texts of more signs are decoded so that other threads have their turn meanwhile.
FEW_SIGNS = 20_000

#: Bytes in which signs are counted in one step.
_PIECE_BYTES = 64 * 1024

#: Longer texts are decoded in a thread.
LONG_BYTES = 32 * 1024


async def decoded(content: bytes) -> Any:
    """Return the value of a JSON text that an upstream sent.

    Raises UpstreamUnavailableError if it is invalid or too large.
    """
    try:
        if len(content) <= LONG_BYTES:
            return plain_json.loads_mended(content)
        return await apart(loads_in_pieces, content)
    except plain_json.NotPlainJsonError as error:
        raise UpstreamUnavailableError(f"the upstream sent an answer that is no plain JSON: {error}.") from error


def loads_in_pieces(content: bytes) -> Any:
    """Decode a long JSON text that an upstream sent, so that other threads can run meanwhile, and return its value.

    Raises UpstreamUnavailableError if it holds more than `MAX_SIGNS` signs; NotPlainJsonError as `plain_json.loads`.
    """
    signs = sum(signs_in(content[at : at + _PIECE_BYTES]) for at in range(0, len(content), _PIECE_BYTES))
    if signs > MAX_SIGNS:
        raise too_many_values()
    decoder = PatientDecoder if signs > FEW_SIGNS else json.JSONDecoder
    if not json.detect_encoding(content).startswith("utf-8"):
        # In UTF-16 and UTF-32 a byte is no character.
        return plain_json.loads_mended(content, decoder)
    try:
        short = shorten(content, find_long_strings(content))
    except ValueError as error:
        raise plain_json.NotPlainJsonError("it is malformed") from error
    return short.restore(plain_json.loads_mended(short.raw, decoder))


def too_many_values() -> UpstreamUnavailableError:
    """Return the error of an answer of more than `MAX_SIGNS` signs.

    It does not count against the candidate: what a caller asks for decides how many values an answer holds.
    """
    error = UpstreamUnavailableError(
        f"the upstream sent JSON of more than {MAX_SIGNS:,} commas and brackets in one piece, the most that is read; "
        f"ask for fewer `top_logprobs`, or for a stream."
    )
    error.counts = False
    return error


def signs_in(content: bytes) -> int:
    """Return how many commas and opening brackets the bytes hold, which bounds the number of JSON values in them."""
    return sum(map(content.count, (b",", b"[", b"{")))


async def checked(value: Any) -> Any:
    """Return a value that a library decoded from an upstream's answer, with numbers that plain JSON can hold.

    Raises UpstreamUnavailableError if it nests too deeply.
    """
    try:
        return await apart(_mended, value) if is_large(value) else _mended(value)
    except plain_json.NotPlainJsonError as error:
        raise UpstreamUnavailableError(f"the upstream sent an answer that is no plain JSON: {error}.") from error


def _mended(value: Any) -> Any:
    try:
        plain_json.check(value)
    except plain_json.NotPlainJsonError:
        return plain_json.mended(value)
    return value

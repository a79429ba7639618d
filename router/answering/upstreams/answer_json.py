"""Decode the JSON of an upstream: count it first, decode long texts off the event loop, and blame the upstream."""

from __future__ import annotations

from typing import Any

from router import plain_json
from router.answering.upstreams.large_answers import PatientDecoder, apart, is_large
from router.errors import UpstreamUnavailableError

#: Commas and opening brackets that a JSON text may hold, those in its strings too. A decoder makes an object of 100
#: bytes for each two of them.
MAX_SIGNS = 1_000_000

#: Texts of more signs are decoded so that other threads have their turn meanwhile.
FEW_SIGNS = 20_000

#: Longer texts are decoded in a thread.
_LONG_BYTES = 32 * 1024


async def decoded(content: bytes) -> Any:
    """Return the value of a JSON text. Raises UpstreamUnavailableError if it is invalid or too large."""
    signs = signs_in(content) if len(content) > FEW_SIGNS else 0
    if signs > MAX_SIGNS:
        raise UpstreamUnavailableError(f"the upstream sent JSON of more than {MAX_SIGNS:,} values.")
    try:
        if len(content) <= _LONG_BYTES:
            return plain_json.loads(content)
        if signs <= FEW_SIGNS:
            return await apart(plain_json.loads, content)
        return await apart(plain_json.loads, content, PatientDecoder)
    except plain_json.NotPlainJsonError as error:
        raise UpstreamUnavailableError(f"the upstream sent an answer that is no plain JSON: {error}.") from error


def signs_in(content: bytes) -> int:
    """Return the number of commas and opening brackets, those within strings included."""
    return sum(map(content.count, (b",", b"[", b"{")))


async def checked(value: Any) -> Any:
    """Return a value that a library decoded. Raises UpstreamUnavailableError if plain JSON cannot hold it."""
    try:
        await apart(plain_json.check, value) if is_large(value) else plain_json.check(value)
    except plain_json.NotPlainJsonError as error:
        raise UpstreamUnavailableError(f"the upstream sent an answer that is no plain JSON: {error}.") from error
    return value

"""The JSON of an upstream, decoded: counted before, away from the event loop where it is long, the upstream's fault."""

from __future__ import annotations

import asyncio
from typing import Any

from router import plain_json
from router.errors import UpstreamUnavailableError

#: Commas and opening brackets that a JSON text may hold, those in its strings too. A decoder makes an object of 100
#: bytes for each two of them, and lets nobody else run meanwhile.
MAX_SIGNS = 1_000_000

#: Longer texts are decoded in a thread.
_LONG_BYTES = 64 * 1024


async def decoded(content: bytes) -> Any:
    """Return the value of a JSON text. Raises UpstreamUnavailableError for what is none, or is too much of one."""
    if len(content) > MAX_SIGNS and signs_in(content) > MAX_SIGNS:
        raise UpstreamUnavailableError(f"the upstream sent JSON of more than {MAX_SIGNS:,} values.")
    try:
        if len(content) <= _LONG_BYTES:
            return plain_json.loads(content)
        return await asyncio.to_thread(plain_json.loads, content)
    except plain_json.NotPlainJsonError as error:
        raise UpstreamUnavailableError(f"the upstream sent an answer that is no plain JSON: {error}.") from error


def signs_in(content: bytes) -> int:
    """Return how many commas and opening brackets there are, strings not told apart."""
    return sum(map(content.count, (b",", b"[", b"{")))


def checked(value: Any) -> Any:
    """Return a value that a library decoded. Raises UpstreamUnavailableError where no plain JSON can hold it."""
    try:
        plain_json.check(value)
    except plain_json.NotPlainJsonError as error:
        raise UpstreamUnavailableError(f"the upstream sent an answer that is no plain JSON: {error}.") from error
    return value

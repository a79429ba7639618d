"""A request over HTTP on its way in: its body, its deadline, and whether its client is still there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import Any

from router.errors import InvalidRequestError, RequestTooLargeError
from router.intake.bounds import HeldBytes
from router.quoting import quoted

log = logging.getLogger(__name__)

#: Seconds that the caller waits at most, as a decimal number; without it the candidates' own timeouts hold.
TIMEOUT_HEADER = "x-elle-timeout-s"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientDisconnectedError(Exception):
    """Nobody is there any more to be answered."""


async def read_body(receive: Receive, headers: Mapping[str, str], limit: int, held: HeldBytes) -> list[bytes]:
    """The whole body, in pieces. uvicorn throws away what a client sends after it was refused."""
    # Also because a web page may post any other type, or none, to whatever listens on its reader's machine.
    kind = headers.get("content-type")
    if (kind or "").partition(";")[0].strip().lower() != "application/json":
        raise InvalidRequestError(f"content-type must be application/json, got {quoted(kind)}.", field="content-type")
    if headers.get("content-encoding", "identity") != "identity":
        raise InvalidRequestError(
            f"the body must come without content-encoding, got {quoted(headers['content-encoding'])}."
        )
    declared = headers.get("content-length", "")
    chunks, size = [], int(declared) if declared.isdecimal() else 0
    if size <= limit:
        size, more = 0, True
        while more and size <= limit:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnectedError
            chunks.append(message.get("body", b""))
            held.add(len(chunks[-1]))
            size, more = size + len(chunks[-1]), message.get("more_body", False)
    if size > limit:
        raise RequestTooLargeError(
            f"the body must be at most {limit:,} bytes, got {size:,} or more; send less, or raise --max-body-bytes."
        )
    return chunks


async def while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work; stop it as soon as the client has gone. Raises what it raises, or ClientDisconnectedError."""
    ours, gone = asyncio.current_task(), False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        if ours is not None:
            ours.cancel()

    watching = asyncio.create_task(watch())
    try:
        # On its way out it closes the upstream's connection too.
        await work
    except asyncio.CancelledError:
        # Ours, unless the server ends at the same moment.
        if not gone or ours is None or ours.uncancel() > 0:
            raise
        raise ClientDisconnectedError from None
    except Exception as error:
        if not gone:
            raise
        if ours is not None:
            ours.uncancel()
        log.info("after its client had gone, a request failed: %s", type(error).__name__)
        raise ClientDisconnectedError from None
    finally:
        watching.cancel()


def timeout_of(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the caller waits at most, or None. Raises InvalidRequestError for what is no number."""
    said = headers.get(TIMEOUT_HEADER)
    if said is None:
        return None
    try:
        # Python reads 1_0 as ten, and nobody else does.
        seconds = float(said.replace("_", "?"))
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds < float("inf"):
        raise InvalidRequestError(
            f"header {TIMEOUT_HEADER} must be a number of seconds above 0, got {quoted(said)}.", field=TIMEOUT_HEADER
        )
    return seconds

"""Read the body and the deadline of an HTTP request, and notice if its client disconnects."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import Any

from router.errors import InvalidRequestError, RequestTooLargeError
from router.intake.bounds import HeldBytes
from router.quoting import quoted

log = logging.getLogger(__name__)

#: The header with the most seconds that the caller waits, as a decimal number. Without it only the candidates' own
#: timeouts hold.
TIMEOUT_HEADER = "x-elle-timeout-s"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientDisconnectedError(Exception):
    """The client has closed its connection, so nobody would read an answer."""


async def read_body(receive: Receive, headers: Mapping[str, str], limit: int, held: HeldBytes) -> list[bytes]:
    """Read the whole body of an HTTP request, and return its chunks.

    limit: most bytes of the body.
    held: the budget that the bytes are counted in.

    Raises InvalidRequestError, RequestTooLargeError, OverloadedError or ClientDisconnectedError. If a request is
    refused early, uvicorn throws away the rest of its body.
    """
    # Any web page may post other content types to a server on its reader's own machine, but not this one.
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
    """Run a coroutine and return its result, but cancel it as soon as the client disconnects.

    Raises ClientDisconnectedError if the client disconnects, or else what the coroutine raises.
    """
    task, is_gone = asyncio.current_task(), False

    async def watch() -> None:
        nonlocal is_gone
        while (await receive())["type"] != "http.disconnect":
            pass
        is_gone = True
        if task is not None:
            task.cancel()

    watching = asyncio.create_task(watch())
    try:
        # If it is cancelled here, it closes the connection to the upstream.
        await work
    except asyncio.CancelledError:
        # If the server shuts down at the same moment, a second cancellation is left, which must go on.
        if not is_gone or task is None or task.uncancel() > 0:
            raise
        raise ClientDisconnectedError from None
    except Exception as error:
        if not is_gone:
            raise
        if task is not None:
            task.uncancel()
        log.info("after its client had gone, a request failed: %s", type(error).__name__)
        raise ClientDisconnectedError from None
    finally:
        watching.cancel()


def timeout_of(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds the caller waits at most, or None if the request does not say so.

    Raises InvalidRequestError if the header is no positive number.
    """
    said = headers.get(TIMEOUT_HEADER)
    if said is None:
        return None
    try:
        # Python reads "1_0" as ten, which no other language does, so such a number is refused.
        seconds = float(said.replace("_", "?"))
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds < float("inf"):
        raise InvalidRequestError(
            f"header {TIMEOUT_HEADER} must be a number of seconds above 0, got {quoted(said)}.", field=TIMEOUT_HEADER
        )
    return seconds

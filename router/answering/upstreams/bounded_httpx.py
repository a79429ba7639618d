"""Bound the HTTP answers that LiteLLM reads, and record which phase each of its calls reached.

LiteLLM's clients are all made of `httpx.AsyncClient`, whose `send` every request passes. It reads what it is sent to
the end, into memory; here an answer ends at its bound. Only calls inside `bounded` are touched. Needs httpx.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import httpx

from router import plain_json
from router.answering.reading.answer_json import LONG_BYTES, loads_in_pieces, too_many_values
from router.answering.reading.large_answers import apart, holds_more
from router.answering.upstreams.bounded_bodies import ODD_NUMBER, BoundedBody, BoundedErrorBody, raise_reported
from router.answering.upstreams.candidate_keys import leaked_variable
from router.answering.upstreams.litellm_call import Call, Phase
from router.errors import DispatchError, UpstreamDeniedError, UpstreamNotFoundError

#: The words of the error that ends a request which must not be sent.
NOTHING_SENT = "nothing is sent"

#: Where LiteLLM sends the requests of an OpenAI-compatible provider that has no URL.
OPENAI_HOST = "api.openai.com"

#: Values of an answer that LiteLLM gets to see: it checks, copies and writes them in steps that nothing interrupts.
MOST_FOR_LITELLM = 10_000


_CALL: ContextVar[Call | None] = ContextVar("elle_litellm_call", default=None)


@contextlib.contextmanager
def bounded(call: Call) -> Iterator[None]:
    """Bound the answers to HTTP requests that are sent within this context, and record their progress in `call`."""
    _install()
    token = _CALL.set(call)
    try:
        yield
    finally:
        _CALL.reset(token)


class ContentTypes(list[str]):
    """The types of content parts that LiteLLM lets a user's message have: every type, where it hands on all of them."""

    def __contains__(self, item: object) -> bool:
        """Return whether LiteLLM may build a request with a part of this type in the call in progress."""
        call = _CALL.get()
        return super().__contains__(item) or (call is not None and call.passes_parts)


async def _decode_apart(response: httpx.Response, content: bytes, call: Call) -> None:
    """Decode the response here in pieces, so that LiteLLM does not do it in one call that holds up every thread.

    Raises UpstreamUnavailableError if more is left than LiteLLM can work through.
    """
    try:
        value = await apart(loads_in_pieces, content)
    except plain_json.NotPlainJsonError:
        # LiteLLM finds it in its own way.
        return
    call.aside.take_from(value)
    if holds_more(value, n_values=MOST_FOR_LITELLM):
        raise too_many_values()
    setattr(response, "json", lambda **_: value)  # noqa: B010  (mypy knows it as a method)


def _not_for_this_host(name: str, host: str) -> UpstreamDeniedError:
    error = UpstreamDeniedError(
        f"LiteLLM would send the value of {name} to {host}, and the candidate names no `api_key_env`. Nothing was sent."
    )
    error.counts = False
    return error


def _no_url(who: str) -> UpstreamNotFoundError:
    error = UpstreamNotFoundError(
        f"{who} cannot be asked as it is set up: it names no `api_base`, and LiteLLM would send its requests to "
        f"{OPENAI_HOST} instead. Nothing was sent."
    )
    error.counts = False
    return error


def _refuse_rehearsals(clients: type, method: str) -> None:
    """Let a client that LiteLLM uses for some providers send nothing while a call is rehearsed."""
    send = getattr(clients, method)

    @functools.wraps(send)
    def guarded(client: Any, *arguments: Any, **options: Any) -> Any:
        call = _CALL.get()
        if call is not None and call.is_rehearsal:
            raise httpx.UnsupportedProtocol(NOTHING_SENT)
        return send(client, *arguments, **options)

    setattr(clients, method, guarded)


@functools.cache
def _install() -> None:
    """Replace `httpx.AsyncClient.send` by a function that bounds what it reads, once for the process."""
    _refuse_rehearsals(httpx.Client, "send")
    _refuse_rehearsals(importlib.import_module("aiohttp").ClientSession, "_request")
    send: Any = httpx.AsyncClient.send

    @functools.wraps(send)
    async def bounded_send(
        client: httpx.AsyncClient, request: httpx.Request, *, stream: bool = False, **options: Any
    ) -> httpx.Response:
        call = _CALL.get()
        if call is None:
            return await send(client, request, stream=stream, **options)  # type: ignore[no-any-return]
        # Before it follows a redirect httpx reads the body to its end.
        options["follow_redirects"] = False
        request.headers["accept-encoding"] = "identity"
        call.phase, call.status = max(call.phase, Phase.SENDING), None
        if not call.is_openai and request.url.host == OPENAI_HOST:
            call.refusal = _no_url(call.who)
        if call.is_rehearsal or call.refusal is not None:
            raise httpx.UnsupportedProtocol(NOTHING_SENT)
        if not call.has_key and (name := leaked_variable(f"{request.url} {request.headers.raw}")) is not None:
            call.refusal = _not_for_this_host(name, request.url.host)
            raise httpx.UnsupportedProtocol(NOTHING_SENT)
        try:
            response: httpx.Response = await send(client, request, stream=True, **options)
        except httpx.RequestError as error:
            if not isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
                call.phase = max(call.phase, Phase.REACHED)
            raise
        call.phase, call.status = Phase.ANSWERED, response.status_code
        call.notes.note_head(response.headers.raw)
        response.stream = (BoundedBody if response.is_success else BoundedErrorBody)(response, call)
        try:
            if not stream:
                content = await response.aread()
                if response.is_success:
                    await raise_reported(content, call)
                if len(content) > LONG_BYTES or ODD_NUMBER.search(content):
                    await _decode_apart(response, content, call)
        except DispatchError as error:
            call.refusal = error
            await response.aclose()
            raise
        except BaseException:
            await response.aclose()
            raise
        return response

    setattr(httpx.AsyncClient, "send", bounded_send)  # noqa: B010  (mypy knows it as a method)

"""Bound the HTTP answers that LiteLLM reads, and record which phase each of its calls reached.

LiteLLM's clients are all made of `httpx.AsyncClient`, whose `send` every request passes. It reads what it is sent to
the end, into memory; here an answer ends at its bound. Only calls inside `bounded` are touched. Needs httpx.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import httpx

from router import plain_json
from router.answering.formats.readable_answers import readable_answer
from router.answering.reading.answer_json import LONG_BYTES, loads_in_pieces, too_many_values
from router.answering.reading.large_answers import apart, holds_more
from router.answering.upstreams.bounded_bodies import ODD_NUMBER, BoundedBody, BoundedErrorBody, raise_reported
from router.answering.upstreams.candidate_keys import leaked_variable
from router.answering.upstreams.litellm_call import Call, Phase, is_chat
from router.answering.upstreams.upstream_http import bound_heads
from router.errors import DispatchError, UpstreamDeniedError, UpstreamNotFoundError, UpstreamRejectedError

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


async def _decode_apart(response: httpx.Response, content: bytes, call: Call) -> None:
    """Decode the response here in pieces, so that LiteLLM does not do it in one call that holds up every thread.

    Raises UpstreamUnavailableError if more is left than LiteLLM can work through.
    """
    try:
        value = await apart(loads_in_pieces, content)
    except plain_json.NotPlainJsonError:
        # LiteLLM finds it in its own way.
        return
    value = readable_answer(value, streamed=False)
    call.aside.take_from(value)
    if holds_more(value, n_values=MOST_FOR_LITELLM):
        raise too_many_values()
    setattr(response, "json", lambda **_: value)  # noqa: B010  (mypy knows it as a method)


def _readable(content: bytes) -> bytes:
    """Return an answer as LiteLLM reads it; one that it can read, or that is no chat completion, as it is."""
    try:
        value = plain_json.loads_mended(content)
    except plain_json.NotPlainJsonError:
        # LiteLLM finds it in its own way.
        return content
    made = readable_answer(value, streamed=False)
    return content if made is value else json.dumps(made).encode()


def _not_for_this_host(name: str, host: str) -> UpstreamDeniedError:
    error = UpstreamDeniedError(
        f"LiteLLM would send the value of {name} to {host}, and the candidate names no `api_key_env`. Nothing was sent."
    )
    error.counts = False
    return error


def _with_additions(request: httpx.Request, content: bytes, call: Call, *, streamed: bool = True) -> httpx.Request:
    """Return a request with what LiteLLM leaves out of its body, or the very request if its body is no chat.

    streamed: whether the body is sent piece by piece.
    """
    # A signature covers the body.
    is_signed = request.headers.get("authorization", "").startswith("AWS4-")
    made = _body_with_additions(content, call, is_signed=is_signed)
    if made is None:
        return request
    headers = httpx.Headers([one for one in request.headers.raw if one[0].lower() != b"content-length"])
    pieces = call.additions.pieces_of(made)
    headers["content-length"] = str(sum(map(len, pieces)))
    body: Any = _Pieces(pieces) if streamed and len(pieces) > 1 else b"".join(pieces)
    return httpx.Request(request.method, request.url, headers=headers, content=body, extensions=request.extensions)


class _Pieces:
    """Yields the pieces of a body, as often as it is asked to."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


def _body_with_additions(content: bytes, call: Call, *, is_signed: bool = False) -> bytes | None:
    """Return a body with the additions of a call; None if they cannot be written into it.

    If the parts of a chat would be lost, the call is refused.
    """
    made = None if is_signed else call.additions.put_into(content)
    if made is None and (call.additions.is_lost_in(content) or (call.additions.contents and is_chat(content))):
        call.refusal = _lost_parts(call.who)
    call.has_additions = call.has_additions or made is not None
    return made


def _lost_parts(who: str) -> UpstreamRejectedError:
    error = UpstreamRejectedError(
        f"{who} cannot be sent content parts of a type that nobody here knows, because its provider's format is not "
        "OpenAI's. Nothing was sent."
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


def _watch_plain_clients() -> None:
    """Let clients that LiteLLM uses for a few providers, or for their tokens, send nothing while a call is rehearsed.

    Their requests get their additions too.
    """
    send, sessions = httpx.Client.send, importlib.import_module("aiohttp").ClientSession
    session_request = sessions._request

    @functools.wraps(send)
    def guarded_send(client: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        call = _CALL.get()
        if call is not None and not call.is_rehearsal and not call.additions.is_empty:
            request = _with_additions(request, request.read(), call, streamed=False)
        if call is not None and (call.is_rehearsal or call.refusal is not None):
            raise httpx.UnsupportedProtocol(NOTHING_SENT)
        return send(client, request, **options)

    @functools.wraps(session_request)
    async def guarded_request(session: Any, *arguments: Any, **options: Any) -> Any:
        call, body = _CALL.get(), options.get("json")
        if call is not None and session.connector is not None:
            bound_heads(session.connector)
        if call is not None and not call.is_rehearsal and not call.additions.is_empty and body is not None:
            made = await apart(_body_with_additions, json.dumps(body).encode(), call)
            if made is not None:
                options |= {"json": None, "data": b"".join(call.additions.pieces_of(made))}
                options["headers"] = {**(options.get("headers") or {}), "Content-Type": "application/json"}
        if call is not None and (call.is_rehearsal or call.refusal is not None):
            raise httpx.UnsupportedProtocol(NOTHING_SENT)
        return await session_request(session, *arguments, **options)

    setattr(httpx.Client, "send", guarded_send)  # noqa: B010  (mypy knows it as a method)
    sessions._request = guarded_request


@functools.cache
def _install() -> None:
    """Replace `httpx.AsyncClient.send` by a function that bounds what it reads, once for the process."""
    _watch_plain_clients()
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
        if not call.is_rehearsal and not call.additions.is_empty:
            request = await apart(_with_additions, request, await request.aread(), call)
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
        call.notes.left_out = call.left_out
        response.stream = (BoundedBody if response.is_success else BoundedErrorBody)(response, call)
        try:
            if not stream:
                content = await response.aread()
                if response.is_success:
                    await raise_reported(content, call)
                if len(content) > LONG_BYTES or ODD_NUMBER.search(content):
                    await _decode_apart(response, content, call)
                elif response.is_success:
                    setattr(response, "_content", _readable(content))  # noqa: B010  (it has no other place)
        except DispatchError as error:
            call.refusal = error
            await response.aclose()
            raise
        except BaseException:
            await response.aclose()
            raise
        return response

    setattr(httpx.AsyncClient, "send", bounded_send)  # noqa: B010  (mypy knows it as a method)

"""Bound the HTTP answers that LiteLLM reads, and record which phase each of its calls reached.

LiteLLM's clients are all made of `httpx.AsyncClient`, whose `send` every request passes. It reads what it is sent to
the end, into memory; here an answer ends at its bound. Only calls inside `bounded` are touched. Needs httpx.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import importlib
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import httpx

from router import plain_json
from router.answering.upstreams.answer_json import (
    FEW_SIGNS,
    LONG_BYTES,
    MAX_SIGNS,
    loads_in_pieces,
    signs_in,
    too_many_values,
)
from router.answering.upstreams.candidate_keys import leaked_variable
from router.answering.upstreams.large_answers import SetAside, apart, holds_more
from router.answering.upstreams.sse import MAX_LINES, STREAM_FACTOR, too_long
from router.answering.upstreams.upstream_http import PACKED, unpacked
from router.errors import DispatchError, UpstreamDeniedError, UpstreamNotFoundError, UpstreamUnavailableError
from router.intake.answer_budget import HeldAnswer

#: Bytes of the body of an error that LiteLLM gets to see. It searches them half a dozen times with regular expressions,
#: each time 4 KB in some 4 ms, during which no other thread runs.
MAX_ERROR_BYTES = 4 * 1024

#: The words of the error that ends a request which must not be sent.
NOTHING_SENT = "nothing is sent"

#: Where LiteLLM sends the requests of an OpenAI-compatible provider that has no URL.
OPENAI_HOST = "api.openai.com"

#: Values of an answer that LiteLLM gets to see: it checks, copies and writes them in steps that nothing interrupts.
MOST_FOR_LITELLM = 10_000


class Phase(enum.IntEnum):
    """The phases of a call to a provider, by which we tell who is at fault if it fails."""

    #: The request is being made of what the caller sent. What fails here is the caller's.
    BUILDING = 0
    #: It was made and given to the HTTP client. What fails here is a URL or header that cannot be sent.
    SENDING = 1
    #: The network was asked, in vain.
    REACHED = 2
    #: The provider answered with a status.
    ANSWERED = 3


@dataclass(slots=True)
class Call:
    """Records how far one call of a provider through LiteLLM came, and the bounds of its answer.

    Attributes:
        max_answer_bytes: as `Candidate` has it.
        streamed: whether the answer is a stream, which may be longer.
        has_key: whether it is made with a key.
        is_rehearsal: whether it is only built, and not sent.
        is_openai: whether it may go to OpenAI's own host.
        who: the candidate, as messages name it.
        phase: how far it came.
        status: the HTTP status of the last answer; None before there was one.
        refusal: our own error, of an answer beyond its bound or a key that must not be sent, because LiteLLM would make
            something else of it.
        held: the bytes of the answer in the budget of all answers.
        aside: the large parts of an answer that LiteLLM does not get to see.
    """

    max_answer_bytes: int
    streamed: bool
    has_key: bool = True
    is_rehearsal: bool = False
    is_openai: bool = True
    who: str = "the candidate"
    phase: Phase = Phase.BUILDING
    status: int | None = None
    refusal: DispatchError | None = None
    held: HeldAnswer = field(default_factory=HeldAnswer)
    aside: SetAside = field(default_factory=SetAside)

    @property
    def max_bytes(self) -> int:
        """The most bytes that are read of a successful answer; a stream may be longer than a whole answer."""
        return self.max_answer_bytes * (STREAM_FACTOR if self.streamed else 1)


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


class _Gauge:
    """Counts the bytes and lines of an answer so far, and says when they are too many.

    Readers gather whole lines and events before they decode.
    """

    def __init__(self, call: Call, *, of_events: bool) -> None:
        self._call, self._of_events = call, of_events
        self._total = self._line = self._signs = self._lines = 0

    def add(self, part: bytes) -> UpstreamUnavailableError | None:
        """Count the next part of the answer, and return an error if the answer is now beyond its bounds, else None."""
        most = self._call.max_answer_bytes
        self._total += len(part)
        last = part.rfind(b"\n") if self._call.streamed else -1
        if last >= 0:
            self._line = self._signs = 0
        self._line += len(part) - last - 1
        self._signs += signs_in(part[last + 1 :])
        try:
            self._call.held.hold(self._line if self._call.streamed else self._total)
        except UpstreamUnavailableError as error:
            return error
        if self._of_events:
            # Lines since the last event, or since the last data if there is none in this part.
            blank = max(part.rfind(b"\n\n"), part.rfind(b"\n\r\n")) if b"data" in part else -1
            self._lines = part.count(b"\n", blank + 2) + (0 if blank >= 0 else self._lines)
        if self._line > most or self._total > self._call.max_bytes:
            return too_long(most if self._line > most else self._call.max_bytes)
        # LiteLLM decodes each event of a stream in one step. An event holds a few tokens.
        if self._signs > (FEW_SIGNS if self._call.streamed else MAX_SIGNS):
            return too_many_values()
        if self._lines > MAX_LINES:
            return UpstreamUnavailableError(f"the upstream sent {MAX_LINES:,} lines without an event.")
        return None


class _Body(httpx.AsyncByteStream):
    """Wraps the body of a successful response, and raises an error as soon as the body exceeds its bound."""

    def __init__(self, response: httpx.Response, call: Call) -> None:
        self._inner: Any = response.stream
        self._call = call
        of_events = response.headers.get("content-type", "").strip().lower().startswith("text/event-stream")
        self._gauge = _Gauge(call, of_events=call.streamed and of_events)
        # Nobody else must unpack it, in one piece.
        encoding = response.headers.pop("content-encoding", "identity").strip().lower()
        self._packed = encoding in PACKED

    def _parts(self) -> AsyncIterable[bytes]:
        return unpacked(self._inner) if self._packed else self._inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._parts():
            if (error := self._gauge.add(part)) is not None:
                self._call.refusal = error
                raise httpx.ReadError("the answer is longer than the bound on one answer")
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()


class _ErrorBody(_Body):
    """Wraps the body of an error response, and cuts it at its bound without raising an error."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_ERROR_BYTES
        async for part in self._parts():
            yield part[:left]
            left -= len(part)
            if left <= 0:
                return


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
        call.refusal = too_many_values()
        raise call.refusal
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
        response.stream = (_Body if response.is_success else _ErrorBody)(response, call)
        try:
            if not stream and len(content := await response.aread()) > LONG_BYTES:
                await _decode_apart(response, content, call)
        except BaseException:
            await response.aclose()
            raise
        return response

    setattr(httpx.AsyncClient, "send", bounded_send)  # noqa: B010  (mypy knows it as a method)

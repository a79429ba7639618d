"""Ask one candidate once in the API format of the request, with request and answer passed on as they were written.

Candidates `openai/...` with an `api_base` get the body of a chat completion byte for byte but for `model`, with the
headers of the OpenAI SDK. Candidates `anthropic/...` get the body of a message in the same way, and candidates that
speak the Responses API the body of such a request. LiteLLM is only asked
what kind of failure one is.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import json
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from router.answering.formats.reported_errors import as_reported
from router.answering.formats.whole_as_events import events_of_whole
from router.answering.reading.answer_json import decoded
from router.answering.reading.call_notes import CallNotes
from router.answering.reading.large_answers import apart, is_large, json_in_pieces
from router.answering.reading.sse import begin_of, events_in
from router.answering.upstreams import litellm_upstream
from router.answering.upstreams.candidate_keys import NO_KEY
from router.answering.upstreams.destinations import (
    Destination,
    Destinations,
    KeptCall,
    count_tokens_url,
    upstream_name,
)
from router.answering.upstreams.litellm_errors import translated, wants_a_key
from router.answering.upstreams.upstream_http import (
    MAX_ERROR_BYTES,
    Body,
    HttpAnswer,
    UpstreamHttp,
    trusted_authorities,
)
from router.errors import InvalidRequestError
from router.policies.candidates.candidate import Candidate
from router.values import ApiFormat, RouteQuery

if TYPE_CHECKING:
    import ssl


class DirectUpstream:
    """Asks candidates over a pool of connections. It belongs to the event loop in which `create` made it."""

    def __init__(self, sdk: Any, http: UpstreamHttp) -> None:
        self._sdk, self._http = sdk, http
        self._destinations = Destinations(sdk)

    @classmethod
    async def create(cls) -> DirectUpstream:
        """Return a new instance; everything that takes time is done in a thread. LiteLLM must be loaded."""

        def prepare() -> tuple[Any, ssl.SSLContext]:
            trusted = trusted_authorities()
            # It is asked for headers only; its own client would read the authorities once more.
            client = importlib.import_module("httpx").AsyncClient(verify=trusted)
            return importlib.import_module("openai").AsyncOpenAI(api_key=NO_KEY, http_client=client), trusted

        sdk, trusted = await asyncio.to_thread(prepare)
        return cls(sdk, UpstreamHttp(trusted))

    async def complete(self, candidate: Candidate, base: str | None, query: RouteQuery, notes: CallNotes) -> Any:
        """Return the JSON value that the upstream answers with, before anything in it is checked.

        Raises DispatchError.
        """
        return await _whole(candidate, self._post(candidate, base, query, notes), candidate.max_answer_bytes, notes)

    async def stream(
        self, candidate: Candidate, base: str | None, query: RouteQuery, notes: CallNotes
    ) -> AsyncGenerator[Any, None]:
        """Yield the JSON values of the stream. Closing it ends the call. Errors are those of `complete`.

        An upstream may answer in one piece all the same; the events that say the same are yielded.
        """
        passes_pings = query.api_format is ApiFormat.ANTHROPIC_MESSAGES
        with translated(candidate.described):
            answered = await self._post(candidate, base, query, notes, stream=True)
            try:
                begin, parts = await begin_of(answered.parts(), notes)
                if begin.startswith(b"{"):
                    answer = await decoded(await answered.read(candidate.max_answer_bytes, notes.held, parts))
                    # An answer in one piece is whole.
                    notes.is_done = True
                    for event in events_of_whole(answer):
                        yield event
                    return
                async with contextlib.aclosing(_values(candidate, parts, notes, passes_pings)) as values:
                    async for value in values:
                        yield value
            finally:
                notes.held.release()
                answered.close()

    async def aclose(self) -> None:
        """Close the connections to the upstreams."""
        await self._http.aclose()
        await self._sdk.close()

    async def count_tokens(self, candidate: Candidate, base: str | None, query: RouteQuery) -> Any:
        """Return what a candidate that speaks Anthropic's API counts for a request. Raises DispatchError."""
        asked = self._post(candidate, base, query, notes := CallNotes(), counts=True)
        return await _whole(candidate, asked, MAX_ERROR_BYTES, notes)

    async def ask_kept(self, candidate: Candidate, base: str | None, call: KeptCall, notes: CallNotes) -> Any:
        """Return the JSON value with which a candidate answers a call about a response that it keeps.

        Raises DispatchError.
        """
        asked = self._send_kept(candidate, base, call, notes)
        return await _whole(candidate, asked, candidate.max_answer_bytes, notes)

    async def stream_kept(
        self, candidate: Candidate, base: str | None, call: KeptCall, notes: CallNotes
    ) -> AsyncGenerator[Any, None]:
        """Yield the events with which a candidate answers such a call. Closing it ends the call."""
        with translated(candidate.described):
            answered = await self._send_kept(candidate, base, call, notes)
            try:
                async with contextlib.aclosing(_values(candidate, answered.parts(), notes)) as values:
                    async for value in values:
                        yield value
            finally:
                notes.held.release()
                answered.close()

    async def _send_kept(self, candidate: Candidate, base: str | None, call: KeptCall, notes: CallNotes) -> HttpAnswer:
        destination = self._destinations.of_kept(candidate, base, call)
        return await self._send(candidate, call.method, destination, (), notes)

    async def _post(
        self,
        candidate: Candidate,
        base: str | None,
        query: RouteQuery,
        notes: CallNotes,
        *,
        stream: bool = False,
        counts: bool = False,
    ) -> HttpAnswer:
        destination, body = self._destinations.of(candidate, base, query), await _body(candidate, query, stream=stream)
        url = count_tokens_url(destination.url) if counts else destination.url
        destination = replace(destination, url=url, headers={**destination.headers, **query.headers})
        return await self._send(candidate, "POST", destination, body, notes)

    async def _send(
        self, candidate: Candidate, method: str, destination: Destination, body: Body, notes: CallNotes
    ) -> HttpAnswer:
        answered = await self._http.send(
            method, destination.url, body, destination.headers, timeout_s=candidate.timeout_s
        )
        notes.note_head(answered.headers)
        if not answered.is_success:
            raise await self._refusal(candidate, destination, answered)
        return answered

    async def _refusal(self, candidate: Candidate, destination: Destination, answered: HttpAnswer) -> Exception:
        """Return the error that LiteLLM would raise for an unsuccessful answer."""
        body = await answered.error_body()
        if answered.status == 401 and not destination.has_key:
            return wants_a_key(candidate.described)
        httpx = importlib.import_module("httpx")
        response = httpx.Response(
            answered.status, headers=answered.headers, content=body, request=httpx.Request("POST", destination.url)
        )
        return await litellm_upstream.error_of_status(candidate, response)


async def _whole(candidate: Candidate, asking: Awaitable[HttpAnswer], max_bytes: int, notes: CallNotes) -> Any:
    """Return the JSON value of an answer in one piece. Raises DispatchError."""
    with translated(candidate.described):
        answered = await asking
        return await decoded(await answered.read(max_bytes, notes.held))


async def _values(
    candidate: Candidate, parts: AsyncIterable[bytes], notes: CallNotes, passes_pings: bool = False
) -> AsyncGenerator[Any, None]:
    """Yield the JSON values of the events in a body."""
    events = events_in(parts, max_bytes=candidate.max_answer_bytes, notes=notes)
    async with contextlib.aclosing(events):
        async for event in events:
            if event.is_last:
                notes.is_done = True
                break
            if not event.is_empty and (passes_pings or not event.is_ping):
                value = await decoded(event.data)
                yield as_reported(value) if event.is_error else value


async def _body(candidate: Candidate, query: RouteQuery, *, stream: bool) -> Body:
    """Return the caller's body with the candidate's model, or else one that is serialised as the OpenAI SDK does."""
    model = upstream_name(candidate, query.api_format)
    if query.body is not None:
        return query.body.with_model(json.dumps(model).encode())
    fields: dict[str, Any] = {
        "input" if query.api_format is ApiFormat.OPENAI_RESPONSES else "messages": query.messages,
        "model": model,
        **({"stream": True} if stream else {}),
        **query.parameters,
    }
    if stream and query.api_format is ApiFormat.OPENAI_CHAT:
        fields.setdefault("stream_options", {"include_usage": True})
    try:
        if is_large(fields):
            return (await apart(functools.partial(json_in_pieces, ascii_only=False), fields),)
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=dict)
        return (text.encode(),)
    except (TypeError, ValueError, RecursionError) as error:
        # The encoder's own words may quote the prompt.
        raise InvalidRequestError(
            "messages and parameters must be plain JSON values whose strings are valid Unicode."
        ) from error

"""Bound the bodies of HTTP answers that LiteLLM reads, and let it see only what it can read. Needs httpx."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import Any

import httpx

from router.answering.formats.readable_answers import OpenChoices, readable_answer
from router.answering.formats.reported_errors import as_reported, error_in
from router.answering.formats.whole_as_events import events_of_whole
from router.answering.reading.answer_json import FEW_SIGNS, LONG_BYTES, MAX_SIGNS, decoded, signs_in, too_many_values
from router.answering.reading.large_answers import json_in_pieces
from router.answering.reading.small_parts import in_small_parts
from router.answering.reading.sse import BLANK, DONE, TAIL_S, ServerSentEvent, begin_of, events_in, too_long
from router.answering.upstreams.litellm_call import Call
from router.answering.upstreams.upstream_http import PACKED, unpacked
from router.errors import DispatchError, UpstreamUnavailableError

#: Bytes of the body of an error that LiteLLM gets to see. It searches them half a dozen times with regular expressions,
#: each time 4 KB in some 4 ms, during which no other thread runs.
MAX_ERROR_BYTES = 4 * 1024

#: An event without any of these holds nothing on which LiteLLM stumbles.
_MENDED_FIELDS = (b'"choices"', b'"candidates"', b'"usage"')

#: A text without any of these reports no error.
_WORDS_OF_ERRORS = (b"error", b"failed")

#: What numbers look like that no double holds, or none that JSON has. LiteLLM stumbles over some of them.
ODD_NUMBER = re.compile(rb"NaN|Infinity|(?<![0-9])[0-9]{300}|[0-9][eE]\+?[0-9]{3}")

#: A delta that brings nothing, in which LiteLLM looks for something.
_NULL_DELTA = re.compile(rb'"delta"\s*+:\s*+null')

#: How an event says why an answer ended. Within a text these quotes would have backslashes. Some providers send an
#: empty reason, or the word null, until then.
_ENDED = re.compile(rb'"(finish_reason|finishReason|stop_reason)"\s*+:\s*+"(?!"|null")')


#: How providers say how many tokens an answer has: `prompt_tokens`, `inputTokens`, `promptTokenCount`, `eval_count`.
_COUNTED = re.compile(rb'"(?!max)[A-Za-z_]{0,40}(?:[tT]oken|[cC]ount)[A-Za-z_]{0,40}"\s*+:\s*+[0-9]')

#: The header in which Bedrock says it, and the form of its streams, in which it cannot be looked for.
_COUNTING_HEADER, _BINARY_EVENTS = "token-count", "application/vnd.amazon.eventstream"

#: So long may the beginning of a body be and not tell whether it is in one piece.
_UNCLEAR_BYTES = 4096

#: Bytes of what came before in which the beginning of such a number may lie.
_OVERLAP = 128


class _Gauge:
    """Counts the bytes of an answer that consists of no events, and says when they are too many.

    Readers gather whole lines before they decode.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._total = self._line = self._signs = 0

    def add(self, part: bytes) -> None:
        """Count the next part of the answer. Raises UpstreamUnavailableError if the answer is now beyond its bounds."""
        most = self._call.max_answer_bytes
        self._total += len(part)
        last = part.rfind(b"\n") if self._call.streamed else -1
        if last >= 0:
            self._line = self._signs = 0
        self._line += len(part) - last - 1
        self._signs += signs_in(part[last + 1 :])
        self._call.notes.held.hold(self._line if self._call.streamed else self._total)
        if self._line > most or self._total > self._call.max_bytes:
            raise too_long(most if self._line > most else self._call.max_bytes)
        # LiteLLM decodes each line of a stream in one step. A line holds a few tokens.
        if self._signs > (FEW_SIGNS if self._call.streamed else MAX_SIGNS):
            raise too_many_values()


class BoundedBody(httpx.AsyncByteStream):
    """Wraps the body of a successful response: it is bounded, and an error that it reports is raised as ours.

    Of a stream of events LiteLLM gets to see only the events that bring something, each whole. Its readers stumble over
    others.
    """

    def __init__(self, response: httpx.Response, call: Call) -> None:
        self._inner: Any = response.stream
        self._call = call
        of_events = response.headers.get("content-type", "").strip().lower().startswith("text/event-stream")
        self._of_events = call.streamed and of_events
        named = any(name.endswith(_COUNTING_HEADER) for name in response.headers)
        call.has_usage = named or response.headers.get("content-type", "").startswith(_BINARY_EVENTS)
        # Nobody else must unpack it, in one piece.
        encoding = response.headers.pop("content-encoding", "identity").strip().lower()
        self._packed = encoding in PACKED

    def _parts(self) -> AsyncIterable[bytes]:
        return in_small_parts(unpacked(self._inner) if self._packed else self._inner)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            begin, parts = b"", self._noting_usage(self._parts())
            if self._call.streamed:
                begin, parts = await begin_of(parts, self._call.notes)
            is_of_events = self._of_events and not begin.startswith(b"{")
            async with contextlib.aclosing(self._events(parts) if is_of_events else self._pieces(parts)) as pieces:
                async for piece in pieces:
                    yield piece
        except DispatchError as error:
            self._call.refusal = error
            raise httpx.ReadError("the answer is an error, or longer than the bound on one answer") from error

    async def _noting_usage(self, parts: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        before = b""
        async for part in parts:
            if not self._call.has_usage:
                self._call.has_usage = _COUNTED.search(before + part) is not None
                before = part[-_OVERLAP:]
            yield part

    async def _events(self, parts: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        events = events_in(parts, max_bytes=self._call.max_answer_bytes, notes=self._call.notes)
        has_begun, has_ended, choices = False, False, OpenChoices()
        async with contextlib.aclosing(events):
            while True:
                try:
                    async with asyncio.timeout(TAIL_S if has_ended else None):
                        event = await anext(events)
                except StopAsyncIteration:
                    return
                except (TimeoutError, httpx.HTTPError, DispatchError):
                    # Nothing that goes wrong behind a whole answer spoils it.
                    if has_ended:
                        return
                    raise
                if event.is_empty or event.is_ping:
                    continue
                if event.is_last and not has_begun:
                    # LiteLLM would make an empty answer of it.
                    raise UpstreamUnavailableError(f"{self._call.who} sent no answer.")
                if event.is_last and not has_ended and choices.end is not None:
                    # Some of LiteLLM's readers take the answer for cut off, although its provider says that it is over.
                    self._call.n_ended += 1
                    yield ServerSentEvent(b"", json_in_pieces(choices.end)).raw
                has_begun = True
                if signs_in(event.data) > FEW_SIGNS:
                    raise too_many_values()
                if event.is_error:
                    await raise_reported(json_in_pieces(as_reported(await decoded(event.data))), self._call)
                await raise_reported(event.data, self._call)
                self._call.n_ended += len(_ENDED.findall(event.data))
                has_ended = self._call.n_ended > 0
                event = await _readable(event, choices)
                yield _NULL_DELTA.sub(b'"delta":{}', event.raw)

    async def _pieces(self, parts: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        gauge, first, is_whole = _Gauge(self._call), list[bytes](), None if self._call.streamed else False
        async for part in parts:
            self._call.notes.note_life()
            gauge.add(part)
            if is_whole is False:
                yield part
                continue
            first.append(part)
            if is_whole is None and (is_whole := _is_in_one_piece(b"".join(first))) is False:
                yield await self._without_report(b"".join(first))
        if is_whole is not False:
            yield await _as_stream(await self._without_report(b"".join(first)))

    async def _without_report(self, content: bytes) -> bytes:
        """Raise the error that came in place of a stream, if it is one; else return what came."""
        if len(content) <= LONG_BYTES:
            await raise_reported(content, self._call)
        return content

    async def aclose(self) -> None:
        """Close the body that this one wraps."""
        await self._inner.aclose()


def _is_in_one_piece(begin: bytes) -> bool | None:
    """Return whether a body, of which this is the beginning, is one JSON object in place of a stream; None if unclear.

    Some providers stream JSON objects, each on a line of its own.
    """
    begin = begin.lstrip(BLANK)
    if not begin.startswith(b"{"):
        return False
    line, _, _ = begin.partition(b"\n")
    if b'"choices"' in begin or len(begin) > _UNCLEAR_BYTES:
        return True
    return False if line != begin and line.rstrip().endswith(b"}") else None


async def _as_stream(content: bytes) -> bytes:
    """Return an answer in one piece as the events of a stream, which LiteLLM reads; anything else as it is."""
    try:
        events = [readable_answer(one, streamed=True) for one in events_of_whole(await decoded(content))]
    except UpstreamUnavailableError:
        return content
    if len(events) > 1:
        return b"".join(ServerSentEvent(one["type"].encode(), json_in_pieces(one)).raw for one in events)
    return ServerSentEvent(b"", json_in_pieces(events[0])).raw + ServerSentEvent(b"", DONE).raw


async def _readable(event: ServerSentEvent, choices: OpenChoices) -> ServerSentEvent:
    """Return an event that LiteLLM can read, and note which choices of a chat have begun in it."""
    is_odd = ODD_NUMBER.search(event.data) is not None
    if not is_odd and not any(name in event.data for name in _MENDED_FIELDS):
        return event
    try:
        value = await decoded(event.data)
    except UpstreamUnavailableError:
        if is_odd:
            raise
        # LiteLLM finds it in its own way.
        return event
    readable = readable_answer(value, streamed=True)
    choices.note(readable)
    return ServerSentEvent(event.name, json_in_pieces(readable)) if is_odd or readable is not value else event


async def raise_reported(content: bytes, call: Call) -> None:
    """Raise the error that a JSON text from a provider reports; anything else is LiteLLM's to read."""
    if call.report is None or not any(word in content for word in _WORDS_OF_ERRORS):
        return
    try:
        report = error_in(await decoded(content))
    except UpstreamUnavailableError:
        return
    if report is not None:
        raise await call.report(report, call.notes)


class BoundedErrorBody(BoundedBody):
    """Wraps the body of an error response, and cuts it at its bound without raising an error."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_ERROR_BYTES
        self._call.error_body.clear()
        async for part in self._parts():
            self._call.error_body += part[:left]
            yield part[:left]
            left -= len(part)
            if left <= 0:
                return

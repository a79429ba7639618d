"""Hand calls about a response on to the candidate that keeps it: `/v1/responses/ID` and the paths below it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlencode

from router.answering.reading.call_notes import CallNotes
from router.answering.undecided.kept_responses import ask_kept, stream_kept
from router.answering.upstreams.destinations import KeptCall
from router.errors import InvalidRequestError, UnknownResponseError
from router.gateways.http.decision_format import ANSWERED_BY_HEADER
from router.gateways.http.exchange import Exchange
from router.gateways.http.http_reply import JSON_HEADERS
from router.gateways.http.kept_responses.noted_response import settle_response
from router.quoting import quoted

#: An id of a response as providers write it. It becomes a part of a path, so it must not lead anywhere else.
_RESPONSE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:=+-]{0,1023}", re.ASCII)

#: Most bytes of what follows the question mark, and most parameters in it.
MAX_QUERY_BYTES, _MAX_PARAMETERS = 4096, 100

#: A parameter of Azure's URLs, which are asked here without it, and the one that asks for events.
_VERSION, _STREAM = "api-version", "stream"


async def answer_kept(exchange: Exchange, chunks: Sequence[bytes]) -> None:
    """Send what the candidate says that gave the response which the path names, as it says it. Raises RouterError.

    Only the caller that got the response is answered. For everybody else it does not exist.
    """
    response_id, slash, below = exchange.path.partition("/responses/")[2].partition("/")
    method = "GET" if exchange.method == "HEAD" else exchange.method
    parameters = _parameters(exchange.query_string)
    is_streamed = method == "GET" and not below and _is_streamed(parameters)
    router = exchange.engine.router
    keeper = None
    if _RESPONSE_ID.fullmatch(response_id):
        keeper = router.memory.giver(response_id, exchange.whose["caller"], router.policies)
    if keeper is None:
        raise UnknownResponseError(
            f"no response {quoted(response_id)} is known that you got from this service. It knows one as long as "
            "a session (`--session-ttl-s`), for the credential that created it; later only its provider can be asked.",
            field="response_id",
        )
    query = urlencode(parameters)
    call = KeptCall(method, response_id, f"{slash}{below}{query and '?' + query}")
    await (_stream if is_streamed else _whole)(exchange, keeper, call)


async def _whole(exchange: Exchange, keeper: tuple[str, str], call: KeptCall) -> None:
    notes = CallNotes()
    answer = await ask_kept(exchange.engine.dispatcher, keeper, call, notes, exchange.remaining_s)
    settle_response(exchange, keeper, call.response_id, answer)
    candidate = exchange.engine.dispatcher.candidate(*keeper)
    headers = {**notes.rate_limits, ANSWERED_BY_HEADER: candidate.name}
    await exchange.reply.whole(200, headers | JSON_HEADERS, answer)


async def _stream(exchange: Exchange, keeper: tuple[str, str], call: KeptCall) -> None:
    reply = exchange.reply
    stream = stream_kept(exchange.engine.dispatcher, keeper, call, CallNotes(), exchange.remaining_s)
    async with contextlib.aclosing(stream) as events, reply.commented(exchange.engine.comment_after_s):
        async for event in events:
            settle_response(exchange, keeper, call.response_id, event)
            await reply.event(event)
    await reply.end_events()


def _parameters(raw: bytes) -> list[tuple[str, str]]:
    """Return the parameters of a URL, which are handed on. Raises InvalidRequestError."""
    if len(raw) > MAX_QUERY_BYTES:
        raise InvalidRequestError(
            f"what follows the question mark of the URL must be at most {MAX_QUERY_BYTES:,} bytes, got {len(raw):,}."
        )
    try:
        found = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS)
    except ValueError as error:
        raise InvalidRequestError(
            f"what follows the question mark of the URL must be at most {_MAX_PARAMETERS} parameters in UTF-8, "
            "percent-encoded where they are not ASCII."
        ) from error
    return [(name, value) for name, value in found if name != _VERSION]


def _is_streamed(parameters: Sequence[tuple[str, str]]) -> bool:
    value = dict(parameters).get(_STREAM, "false")
    if value.lower() not in {"true", "false"}:
        raise InvalidRequestError(f"stream must be true or false, got {quoted(value)}.", field=_STREAM)
    return value.lower() == "true"

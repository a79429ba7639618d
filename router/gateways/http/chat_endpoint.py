"""Answer one chat over HTTP: decide, and send the answer whole or as events (`answer_chat`)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from router.answering.completion import Completion
from router.attempts import Delivery
from router.decision import RoutingDecision
from router.gateways.http.decision_format import RECORD_FIELD, decision_record
from router.gateways.http.exchange import Exchange, is_large_body
from router.gateways.http.http_reply import JSON_HEADERS
from router.gateways.http.kept_responses.noted_response import noted_response
from router.values import RouteQuery


async def answer_chat(exchange: Exchange, chunks: Sequence[bytes]) -> None:
    """Decide which candidate answers a chat, and send its answer. Raises RouterError.

    chunks: the body of the request, in the pieces in which it arrived.
    """
    query, is_streamed = await exchange.read(chunks)
    decision = await exchange.engine.router.adecide(
        query, **exchange.whose, timeout_s=exchange.remaining_s, large=is_large_body(chunks)
    )
    exchange.reply.decision = decision
    await (_stream if is_streamed else _complete)(exchange, query, decision)


async def _complete(exchange: Exchange, query: RouteQuery, decision: RoutingDecision) -> None:
    with noted_response(exchange, query, decision) as note:
        completion = await exchange.engine.dispatcher.complete(query, decision, timeout_s=exchange.remaining_s)
        record = _record(exchange, decision, completion.delivery)
        note(completion)
    await exchange.reply.whole(200, JSON_HEADERS, {**completion.body, RECORD_FIELD: record | _cost(completion)})


async def _stream(exchange: Exchange, query: RouteQuery, decision: RoutingDecision) -> None:
    record: dict[str, Any] = {}
    reply = exchange.reply
    stream = exchange.engine.dispatcher.stream(query, decision, timeout_s=exchange.remaining_s)
    async with contextlib.AsyncExitStack() as stack:
        note = stack.enter_context(noted_response(exchange, query, decision))
        steps = await stack.enter_async_context(contextlib.aclosing(stream))
        await stack.enter_async_context(reply.commented(exchange.engine.comment_after_s))
        async for step in steps:
            if step.delivery is not None:
                record = _record(exchange, decision, step.delivery)
            note(step)
            carries = exchange.api.carries_record(step.body, has_cost=step.usage is not None)
            marked = (
                exchange.api.with_record(step.body, record | _cost(step)) if carries else _without_record(step.body)
            )
            await reply.event(marked)
            if step.delivery is not None:
                # The list of attempts may be long, so only the first event carries it.
                record = {key: value for key, value in record.items() if key != "attempts"}
    await reply.end_events()


def _record(exchange: Exchange, decision: RoutingDecision, delivery: Delivery | None) -> dict[str, Any]:
    """Return the decision record, and remember who answered for the headers and for the session."""
    exchange.reply.delivery = delivery
    if delivery is not None and delivery.fell_back:
        exchange.engine.router.remember_answer(decision, delivery.answered_by, caller=exchange.whose["caller"])
    return decision_record(decision, delivery)


def _without_record(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a chunk without a record that the upstream wrote: only ours is the router's word."""
    return {key: value for key, value in body.items() if key != RECORD_FIELD} if RECORD_FIELD in body else body


def _cost(completion: Completion) -> dict[str, float]:
    usage = completion.usage
    return {} if usage is None or usage.cost_usd is None else {"cost_usd": usage.cost_usd}

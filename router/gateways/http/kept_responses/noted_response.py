"""Note who gave a response of the Responses API, and settle what one used that was given in the background."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from router.answering.completion import Completion, usage_of
from router.answering.formats.lookup import format_of
from router.answering.formats.openai_responses import response_in
from router.decision import RoutingDecision
from router.errors import DispatchError
from router.gateways.http.exchange import Exchange
from router.observing.observer import AnswerOutcome, SettledEvent
from router.values import ApiFormat, RouteQuery

#: How an answer ended whose response has this status. A response with another status goes on.
_OUTCOMES: Mapping[str, AnswerOutcome] = {
    "completed": AnswerOutcome.ANSWERED,
    "incomplete": AnswerOutcome.ANSWERED,
    "failed": AnswerOutcome.FAILED,
    "cancelled": AnswerOutcome.ABANDONED,
}


@contextlib.contextmanager
def noted_response(
    exchange: Exchange, query: RouteQuery, decision: RoutingDecision
) -> Iterator[Callable[[Completion], None]]:
    """Note who gives the response of a chat, whose provider alone keeps it. Other APIs have no responses.

    What is yielded takes the answer, or its steps. If the response then goes on in the background, it is noted at the
    end of the context that its cost is still to be settled.
    """
    noted: Mapping[str, Any] = {}
    is_counted, charged_usd, answered_by = False, None, ""
    memory, caller = exchange.engine.router.memory, exchange.whose["caller"]

    def note(step: Completion) -> None:
        nonlocal noted, is_counted, answered_by
        response = response_in(step.body)
        is_counted = is_counted or step.usage is not None
        if isinstance(response_id := response.get("id"), str) and exchange.reply.delivery is not None:
            noted, answered_by = response, exchange.reply.delivery.answered_by
            memory.note_response(decision, response_id, answered_by, caller)

    try:
        yield note if query.api_format is ApiFormat.OPENAI_RESPONSES else lambda step: None
    except DispatchError:
        # Nothing is charged for an answer that broke off.
        charged_usd = 0.0
        raise
    finally:
        if noted.get("background") is True and not is_counted and _outcome_of(noted) is None:
            charged_usd = (decision.expected_usd(answered_by) or 0.0) if charged_usd is None else charged_usd
            memory.note_unsettled(decision, noted["id"], charged_usd, caller)


def settle_response(exchange: Exchange, keeper: tuple[str, str], response_id: str, body: Mapping[str, Any]) -> None:
    """Tell observers what a response used, once for each that was given in the background, when it has ended.

    Args:
        exchange: the request by which it is fetched.
        keeper: the names of the policy and of the candidate that gave it.
        response_id: its id.
        body: what the candidate says of it, or one event of that.
    """
    response = response_in(body)
    if (outcome := _outcome_of(response)) is None:
        return
    engine = exchange.engine
    unsettled = engine.router.memory.take_unsettled(response_id, exchange.whose["caller"], keeper[0])
    if unsettled is None:
        return
    counts = format_of(ApiFormat.OPENAI_RESPONSES).tally()(response)
    usage = None if counts is None else usage_of(counts, engine.dispatcher.prices(*keeper))
    event = SettledEvent(
        unsettled.decision_id,
        engine.router.policies[keeper[0]].ref,
        answered_by=keeper[1],
        outcome=outcome,
        input_tokens=usage.input_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        # A response that failed without any tokens costs nothing. What else a provider does not count is unknown.
        cost_usd=usage.cost_usd if usage else 0.0 if outcome is AnswerOutcome.FAILED else None,
        charged_usd=unsettled.charged_usd,
    )
    # The account of the caller is known in the context of this request only.
    tell = functools.partial(contextvars.copy_context().run, engine.dispatcher.observers.settled, event)
    engine.router.memory.settle_once(unsettled.key, tell)


def _outcome_of(response: Mapping[str, Any]) -> AnswerOutcome | None:
    status = response.get("status")
    return _OUTCOMES.get(status) if isinstance(status, str) else None

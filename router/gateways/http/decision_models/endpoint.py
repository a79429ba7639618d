"""Answer `POST /v1/systemone` and OpenAI's `POST /v1/decisions`: decide, and tell the tier instead of asking it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.asking.task_keys import task_of
from router.decision import Reason
from router.errors import InvalidRequestError, UndecidedError
from router.gateways.http.decision_models.answers import answer_question, decisions_reply, systemone_reply
from router.gateways.http.decision_models.questions import (
    TierQuestion,
    questions_of_decisions,
    questions_of_systemone,
)
from router.gateways.http.decision_models.state import chat_in_state
from router.gateways.http.exchange import Exchange, is_large_body
from router.gateways.http.http_reply import JSON_HEADERS
from router.gateways.http.request_body import overrides_from_model
from router.quoting import quoted
from router.values import Message, RouteQuery

#: The reasons of decisions that say nothing about the prompt.
_UNDECIDED = frozenset({Reason.ABSTAINED, Reason.FAILED_OPEN})


@dataclass(frozen=True, slots=True)
class Protocol:
    """Reads the bodies of one protocol of decision models, and writes its replies."""

    questions: Callable[[Mapping[str, Any]], tuple[TierQuestion, ...]]
    chat: Callable[[Mapping[str, Any]], tuple[Message, ...]]
    reply: Callable[..., dict[str, Any]]


async def answer_systemone(exchange: Exchange, chunks: Sequence[bytes]) -> None:
    """Answer the questions of a body of `/v1/systemone`. Raises RouterError; see `_answer`."""
    await _answer(exchange, chunks, _SYSTEMONE)


async def answer_decisions(exchange: Exchange, chunks: Sequence[bytes]) -> None:
    """Answer the questions of a body of OpenAI's `/v1/decisions`. Raises RouterError; see `_answer`."""
    await _answer(exchange, chunks, _DECISIONS)


async def _answer(exchange: Exchange, chunks: Sequence[bytes], protocol: Protocol) -> None:
    """Decide the text of a request, and send the answers to its questions.

    Raises UndecidedError if the router abstains: an abstention must not look like an answer.
    """
    router = exchange.engine.router

    def read(fields: Mapping[str, Any]) -> tuple[tuple[TierQuestion, ...], RouteQuery]:
        model = fields.get("model")
        if not isinstance(model, str):
            raise InvalidRequestError(f"model must be text, such as 'elle', got {quoted(model)}.", field="model")
        overrides = overrides_from_model(model, router.policies)
        task = task_of("", exchange.headers, {"metadata": fields.get("metadata")})
        return protocol.questions(fields), RouteQuery(protocol.chat(fields), overrides=overrides, task=task)

    questions, query = await exchange.read_as(chunks, read)
    decision = await router.adecide(
        query, **exchange.whose, timeout_s=exchange.remaining_s, large=is_large_body(chunks)
    )
    exchange.reply.decision = decision
    if decision.reason in _UNDECIDED:
        raise UndecidedError(
            f"the router did not judge this text ({decision.reason.value}); use the tier that you fall back to, which "
            f"should be that of {decision.chosen!r}."
        )
    policy = router.policies[decision.policy.name].rules.file
    answers = [answer_question(question, decision, policy) for question in questions]
    body = protocol.reply(policy.name, questions, answers, decision.input_tokens_estimate)
    await exchange.reply.whole(200, JSON_HEADERS, body)


def _chat_of_input(body: Mapping[str, Any]) -> tuple[Message, ...]:
    given = body.get("input")
    if isinstance(given, Mapping):
        raise InvalidRequestError("input must be text or a list of messages, got an object.", field="input")
    return chat_in_state(given, "input")


_SYSTEMONE = Protocol(questions_of_systemone, lambda body: chat_in_state(body.get("state")), systemone_reply)
_DECISIONS = Protocol(questions_of_decisions, _chat_of_input, decisions_reply)

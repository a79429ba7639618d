"""The answers of candidates, in the API format of the request, with their usage and cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from router.answering.formats.answer_format import AnswerTokens, UsageReader
from router.answering.formats.lookup import format_of
from router.attempts import Delivery
from router.intake.answer_budget import HeldAnswer
from router.policies.candidates.candidate import Prices
from router.values import RouteQuery


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of an answer as the provider counted them, and their cost in US dollars at the policy's prices.

    Input that came out of the provider's prompt cache costs what cached input costs, if the policy has that price. The
    cost is None if the policy has no prices.
    """

    input_tokens: int
    output_tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Completion:
    """Holds one whole answer of a candidate, or one step of a streamed answer.

    Attributes:
        text: text of the answer, of its first choice if there are several; it may be empty.
        body: the provider's answer or chunk, in the API format of the request.
        usage: None if the provider did not report it, and in all steps of a stream but the last.
        delivery: who answered after which attempts; in a stream only the first step has it.
        held: the bytes of a whole answer in the budget of all answers, for as long as this object lives.
    """

    text: str
    body: Mapping[str, Any]
    usage: Usage | None
    delivery: Delivery | None = None
    held: HeldAnswer | None = field(default=None, repr=False, compare=False)


def completion_of(
    query: RouteQuery,
    body: Mapping[str, Any],
    prices: Prices | None,
    delivery: Delivery | None,
    tally: UsageReader | None = None,
    *,
    is_counted: bool = True,
) -> Completion:
    """Return the text, usage and cost of a provider's answer, or of one chunk of a stream, as a `Completion`.

    Args:
        query: the request, which says in which API format the answer is.
        body: the answer or the chunk.
        prices: prices of the candidate; None if they are unknown.
        delivery: who answered; None for all chunks but the first.
        tally: the counter of the stream that the chunk belongs to; None for a whole answer.
        is_counted: whether the tokens in the body are what the provider says, and not what a translation filled in.
    """
    answers = format_of(query.api_format)
    counts = (tally or answers.tally())(body)
    text = answers.text_of(body, streamed=tally is not None)
    usage = usage_of(counts, prices) if counts is not None and is_counted else None
    return Completion(text, body, usage, delivery)


def usage_of(counts: AnswerTokens, prices: Prices | None) -> Usage:
    """Return the tokens of an answer with their cost at these prices."""
    cost_usd = None
    if prices is not None:
        cached = min(counts.cached, counts.input)
        cost_usd = prices.cost_usd(counts.input, counts.output, cached_input_tokens=cached)
    return Usage(counts.input, counts.output, cost_usd)

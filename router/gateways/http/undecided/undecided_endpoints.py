"""Answer requests that are handed on to one candidate undecided: counts of tokens, and embeddings."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from router.answering.formats.answer_format import as_count
from router.answering.undecided.single_calls import counted_tokens, embeddings_of
from router.asking.ask import extract
from router.gateways.http.decision_format import ANSWERED_BY_HEADER
from router.gateways.http.exchange import Exchange
from router.gateways.http.http_reply import JSON_HEADERS
from router.identity.spending import charging
from router.policies.candidates.candidate import Candidate, Prices
from router.policies.loading import ServedPolicy
from router.policies.policy_file import PolicyFile
from router.policies.rules import speaks_anthropic
from router.values import RouteQuery

#: The header that says that the tokens were not counted but estimated from the length of the text.
ESTIMATED_HEADER = "x-elle-estimated"

#: Bytes of a body that make a token, for the expected cost of embeddings.
_BYTES_OF_TOKEN = 4


async def answer_embeddings(exchange: Exchange, chunks: Sequence[bytes]) -> None:
    """Send the embeddings that a candidate answers with: the pinned one, or else the safe default of the policy.

    Nothing is decided, because embeddings of two models cannot be compared. The token of the caller pays for them.

    Raises NoEligibleCandidateError if the candidate does not serve embeddings, LimitExceededError if the caller's
    budget is used up, and DispatchError if the candidate fails.
    """
    query, policy = await _read(exchange, chunks)
    candidate = query.overrides.pin or policy.rules.file.safe_default
    dispatcher = exchange.engine.dispatcher
    prices = dispatcher.prices(policy.ref.name, candidate)
    expected_usd = _cost_usd(prices, sum(map(len, chunks)) / _BYTES_OF_TOKEN)
    with charging(expected_usd or 0.0) as charge:
        answer = await embeddings_of(dispatcher, query, policy.ref.name, candidate, timeout_s=exchange.remaining_s)
        usage = answer.get("usage")
        charge(_cost_usd(prices, as_count(usage.get("prompt_tokens")) if isinstance(usage, dict) else None))
    await exchange.reply.whole(200, {**JSON_HEADERS, ANSWERED_BY_HEADER: candidate}, answer)


async def _read(exchange: Exchange, chunks: Sequence[bytes]) -> tuple[RouteQuery, ServedPolicy]:
    """Return the query of a body and the policy that it names."""
    query, _ = await exchange.read(chunks)
    return query, exchange.engine.router.policy(query.overrides.policy)


def _cost_usd(prices: Prices | None, n_tokens: float | None) -> float | None:
    return None if prices is None or n_tokens is None else prices.cost_usd(n_tokens, 0)


async def answer_token_count(exchange: Exchange, chunks: Sequence[bytes]) -> None:
    """Send the number of input tokens of a message, as in `{"input_tokens": 12}`.

    Nothing is decided, so a count changes no session and costs no forward pass. The count is that of the pinned
    candidate, or else of the safe default, or else of the strongest candidate that speaks Anthropic's API. Without any
    it is an estimate of four bytes a token, and the header `ESTIMATED_HEADER` says so.

    Raises DispatchError if the candidate cannot be asked, UnknownModelError, and InvalidRequestError.
    """
    query, policy = await _read(exchange, chunks)
    candidate = counting_candidate(policy.rules.file, query.overrides.pin)
    if candidate is not None:
        counted = await counted_tokens(exchange.engine.dispatcher, query, policy.ref.name, candidate.name)
        await exchange.reply.whole(200, JSON_HEADERS, counted)
        return
    router = exchange.engine.router
    ask = await router.intake.run_in_thread(functools.partial(extract, query, max_bytes=router.max_prompt_bytes))
    headers = {**JSON_HEADERS, ESTIMATED_HEADER: "true"}
    await exchange.reply.whole(200, headers, {"input_tokens": ask.input_tokens_estimate})


def counting_candidate(policy: PolicyFile, pin: str | None) -> Candidate | None:
    """Return the candidate that counts the tokens of a request, or None if no candidate speaks Anthropic's API."""
    if pin is not None:
        pinned = policy.candidates[policy.names.index(pin)]
        return pinned if speaks_anthropic(pinned) else None
    able = [candidate for candidate in policy.candidates if speaks_anthropic(candidate)]
    usual = [candidate for candidate in able if candidate.name == policy.safe_default]
    return [*able, *usual][-1] if able else None

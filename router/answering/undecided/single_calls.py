"""Ask a named candidate once: for a count of tokens, or for embeddings. No other candidate answers in its place."""

from __future__ import annotations

from typing import Any

from router.answering.dispatch import Dispatcher
from router.answering.time_limits import time_limit
from router.errors import NoEligibleCandidateError
from router.policies.rules import speaks_api
from router.values import RouteQuery, SpokenApi


async def counted_tokens(dispatcher: Dispatcher, query: RouteQuery, policy: str, candidate: str) -> dict[str, Any]:
    """Return what a candidate that speaks Anthropic's API counts for a request, as in `{"input_tokens": 12}`.

    Raises DispatchError if it does not count. Nothing is tried again.
    """
    await dispatcher.upstream.load()
    asked = dispatcher.candidate(policy, candidate)
    async with time_limit(asked, asked.timeout_s):
        return await dispatcher.upstream.count_tokens(asked, query)


async def embeddings_of(
    dispatcher: Dispatcher, query: RouteQuery, policy: str, candidate: str, *, timeout_s: float | None = None
) -> dict[str, Any]:
    """Return the embeddings that a candidate answers with. Nothing is tried again.

    timeout_s: seconds until the caller's deadline; None if there is none.

    Raises NoEligibleCandidateError if the candidate does not serve embeddings, and DispatchError if it fails.
    """
    asked = dispatcher.candidate(policy, candidate)
    if not speaks_api(asked, SpokenApi.EMBEDDINGS):
        raise NoEligibleCandidateError(
            f"candidate {candidate!r} ({asked.model}) serves no embeddings. Name one that does as `model`, or say "
            "`speaks: [embeddings]` in the policy if its URL serves them."
        )
    await dispatcher.upstream.load()
    async with time_limit(asked, asked.timeout_s if timeout_s is None else min(asked.timeout_s, timeout_s)):
        return await dispatcher.upstream.embed(asked, query)

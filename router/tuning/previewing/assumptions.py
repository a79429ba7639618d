"""Say on what the costs of a preview rest: whose token counts, which prices, and what is known of sessions."""

from __future__ import annotations

from collections.abc import Iterator

from router.policies.candidates.candidate import Candidate, Prices
from router.policies.loading import ServedPolicy
from router.tuning.previewing.logged_requests import RequestLog
from router.tuning.previewing.prompt_caches import TokenCounts


def say_assumptions(served: ServedPolicy, log: RequestLog, tokens: TokenCounts) -> tuple[str, ...]:
    """Return what the costs of a replay rest on, one sentence or two for each point."""
    return tuple(_sentences(served, log, tokens))


def _sentences(served: ServedPolicy, log: RequestLog, tokens: TokenCounts) -> Iterator[str]:
    file, prices = served.rules.file, served.rules.prices
    unpriced = [one.name for one, price in zip(file.candidates, prices, strict=True) if price is None]
    if unpriced:
        yield (
            f"The policy states no prices of {', '.join(unpriced)}, so what they cost is not known. Give each of them "
            "`prices` in the policy."
        )
    yield "Costs are list prices of the policy: " + "; ".join(map(_say_prices, file.candidates, prices)) + "."
    n = len(log.requests)
    if file.score is not None:
        yield (
            f"The policy judges by the score {file.score.name!r} of each request, which a log does not hold, so every "
            f"request is taken to go to {file.safe_default}. Evaluate such a policy with `elle evaluate --policy`."
        )
    if tokens.n_estimated_inputs:
        yield (
            f"The log lacks the input tokens of {tokens.n_estimated_inputs:,} of {n:,} requests; four bytes of text "
            "count as one token."
        )
    if tokens.n_estimated_outputs:
        lengths = ", ".join(f"{one.name} {one.expected_output_tokens}" for one in file.candidates)
        yield (
            f"The log lacks the answers of {tokens.n_estimated_outputs:,} of {n:,} requests; each is taken to have the "
            f"candidate's expected_output_tokens ({lengths}), or the request's own bound if that is lower."
        )
    if tokens.n_estimated_outputs < n:
        yield "Where the log knows the length of an answer, every candidate is taken to answer at that length."
    yield from _about_sessions(served, log, tokens)
    yield "Nothing here says how good the answers are; `elle evaluate` and `elle tune` say that, from outcomes."


def _about_sessions(served: ServedPolicy, log: RequestLog, tokens: TokenCounts) -> Iterator[str]:
    file, prices = served.rules.file, served.rules.prices
    if not any(part is not None for part in tokens.parts):
        yield (
            "The log names no session of several requests, so every request is decided by itself and no prompt cache "
            "is priced."
        )
        return
    windows = ", ".join(f"{one.name} {one.prompt_cache_s:g} s" for one in file.candidates)
    yield (
        "In a session, what a candidate read before is billed at its price of cached input, if the chat still begins "
        f"with it and the cache is warm ({windows}). Caches are not shared between sessions, have no smallest length, "
        "and cost nothing to fill."
    )
    uncached = [
        one.name
        for one, price in zip(file.candidates, prices, strict=True)
        if price is not None and price.cached_input_usd_per_million_tokens is None
    ]
    if uncached:
        yield (
            f"The policy states no cached_input_usd_per_million_tokens of {', '.join(uncached)}, so cached input is "
            "billed there at the full price."
        )
    if log.n_without_time:
        yield (
            f"The log lacks the time of {log.n_without_time:,} of {len(log.requests):,} requests; each is taken to "
            "follow at once on the one before it, so caches are warm."
        )


def _say_prices(candidate: Candidate, prices: Prices | None) -> str:
    if prices is None:
        return f"{candidate.name} unknown"
    cached = prices.cached_input_usd_per_million_tokens
    kept = "" if cached is None else f" (cached {cached:g})"
    return (
        f"{candidate.name} {prices.input_usd_per_million_tokens:g}{kept} / {prices.output_usd_per_million_tokens:g} "
        "USD per million input / output tokens"
    )

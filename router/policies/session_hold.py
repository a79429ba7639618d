"""Whether a session keeps the candidate that answered it last."""

from __future__ import annotations

from collections.abc import Sequence

from router.asking.ask import Ask
from router.policies.eligibility import expected_cost_usd
from router.policies.policy_file import FixedRule, PolicyFile
from router.policies.rules import Rules, rule_in_force
from router.values import CandidateRisk, HeldCandidate, Overrides


def holder_index(
    file: PolicyFile, overrides: Overrides, eligible: Sequence[int], held: HeldCandidate | None
) -> int | None:
    """Return the index of the candidate that the session may keep; None if there is none, or no choice at all."""
    if held is None or len(eligible) == 1 or not _keeps_sessions(file, overrides):
        return None
    # A candidate that the policy no longer has, or that may not answer this request, is released.
    return next((index for index in eligible if file.names[index] == held.candidate), None)


def eligible_in_tool_loop(
    file: PolicyFile, overrides: Overrides, eligible: tuple[int, ...], held: HeldCandidate
) -> tuple[int, ...]:
    """Return who may take over inside a tool loop if the session's candidate may not go on.

    No weaker candidate takes over while one at least as strong may: of (cheap, middle, strong) with `middle` held and
    ineligible, only `strong` is left. If nobody so strong may answer, everybody eligible may.
    """
    if held.candidate not in file.names or not _keeps_sessions(file, overrides):
        return eligible
    floor = file.names.index(held.candidate)
    if floor in eligible:
        return eligible
    return tuple(index for index in eligible if index >= floor) or eligible


def keeps_holder(
    rules: Rules,
    ask: Ask,
    held: HeldCandidate,
    holder: CandidateRisk,
    chosen: CandidateRisk,
) -> bool:
    """Return whether `holder`, who answered the session last and whose risk is in bounds, answers in place of `chosen`.

    Inside a tool loop the holder stays. At a human turn a stronger candidate takes over
    freely; a weaker one takes over if it is cheaper with a cold prompt cache than the holder is with a warm one.
    """
    file = rules.file
    holder_at, chosen_at = file.names.index(holder.candidate), file.names.index(chosen.candidate)
    if ask.in_tool_loop:
        return True
    if chosen_at >= holder_at:
        return False
    candidate = file.candidates[holder_at]
    cached = min(held.input_tokens, ask.input_tokens_estimate) if held.idle_s <= candidate.prompt_cache_s else 0
    staying = expected_cost_usd(candidate, rules.prices[holder_at], ask, cached_input_tokens=cached)
    leaving = chosen.expected_cost_usd
    return staying is not None and leaving is not None and leaving >= staying


def _keeps_sessions(file: PolicyFile, overrides: Overrides) -> bool:
    """Return whether the last answer of a session counts: neither under a pin nor under a fixed rule."""
    fixed = isinstance(rule_in_force(file, overrides), FixedRule) and overrides.max_risk is None
    return file.sessions != "ignore" and overrides.pin is None and not fixed

"""Decide whether a session keeps the candidate that answered it last: inside tool loops, and for its prompt cache."""

from __future__ import annotations

from router.decision import CandidateRisk
from router.policies.eligibility import Eligibility, warm_cost_usd
from router.policies.policy_file import FixedRule
from router.policies.rules import rule_in_force
from router.values import HeldCandidate


def holder_index(eligibility: Eligibility, held: HeldCandidate | None) -> int | None:
    """Return the index of the candidate that the session may keep, or None if there is no such candidate.

    There is none either if only one candidate may answer, because then there is nothing to choose.
    """
    if held is None or len(eligibility.eligible) == 1 or not _keeps_sessions(eligibility):
        return None
    # A session gives up a candidate that the policy no longer has, or that may not answer this request.
    names = eligibility.rules.names
    return next((index for index in eligibility.eligible if names[index] == held.candidate), None)


def eligible_in_tool_loop(eligibility: Eligibility, held: HeldCandidate) -> tuple[int, ...]:
    """Return the indices of the candidates that may go on with a tool loop if the session's candidate may not.

    No weaker candidate takes over while a stronger one may answer. For example: the candidates are cheap, middle and
    strong, and middle is held but not eligible; then only strong is left. If no candidate at or above the held one may
    answer, every eligible candidate may.
    """
    names, eligible = eligibility.rules.names, eligibility.eligible
    if held.candidate not in names or not _keeps_sessions(eligibility):
        return eligible
    floor = names.index(held.candidate)
    if floor in eligible:
        return eligible
    return tuple(index for index in eligible if index >= floor) or eligible


def keeps_holder(eligibility: Eligibility, held: HeldCandidate, holder: int, chosen: CandidateRisk) -> bool:
    """Return whether the session's candidate, at index `holder`, answers in place of the candidate that the rule chose.

    Inside a tool loop it always does. At a human turn a stronger candidate takes over freely; a weaker one takes over
    only if it is cheaper with a cold prompt cache than the holder is with a warm one.
    """
    rules, ask = eligibility.rules, eligibility.ask
    # In the middle of a tool loop another model would have to read the whole chat anew and go on with calls that it did
    # not make.
    if ask.in_tool_loop:
        return True
    if rules.names.index(chosen.candidate) >= holder:
        return False
    cost_of_holder = warm_cost_usd(rules, holder, ask, held)
    cost_of_chosen = chosen.expected_cost_usd
    # If a price is unknown, nobody knows whether the warm cache is worth it, and what the rule chose stands.
    return cost_of_holder is not None and cost_of_chosen is not None and cost_of_chosen >= cost_of_holder


def _keeps_sessions(eligibility: Eligibility) -> bool:
    """Return whether the policy considers at all who answered the session last.

    It does not under a pin or a fixed rule.
    """
    file, overrides = eligibility.rules.file, eligibility.overrides
    fixed = isinstance(rule_in_force(file, overrides), FixedRule) and overrides.max_risk is None
    return file.sessions != "ignore" and overrides.pin is None and not fixed

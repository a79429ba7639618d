"""Say which candidates may answer in place of the chosen one. Pure functions.

docs/decisions/0005-dispatch.md explains the rule.
"""

from __future__ import annotations

from router.decision import CandidateRisk, Reason, RoutingDecision
from router.policies.candidates.candidate import Candidate
from router.policies.policy_file import PolicyFile

#: Decisions for exactly this candidate. Any other one would be a substitution that the caller did not ask for, or a
#: stronger one, which the limits of the caller rule out.
_NO_FALLBACK = frozenset({Reason.PINNED, Reason.FIXED, Reason.OVER_LIMIT})

#: Decisions that do not depend on this prompt's risks, so only the tiers say which candidates are stronger.
_BY_TIER = frozenset({Reason.ABSTAINED, Reason.FAILED_OPEN, Reason.SESSION_HELD})


def candidates_to_ask(file: PolicyFile, decision: RoutingDecision) -> tuple[Candidate, ...]:
    """Return the chosen candidate, followed by those that may answer in its place, in the order of the policy.

    The order of the policy is cheapest first. If the policy says `fallback: none` there is only the chosen one.
    """
    names = (decision.chosen,) if file.fallback == "none" else names_to_ask(decision)
    return tuple(file.candidates[file.names.index(name)] for name in names)


def names_to_ask(decision: RoutingDecision) -> tuple[str, ...]:
    """Return the names of the chosen candidate and of those that may answer in its place, in the order of the policy.

    These are the eligible candidates whose risk is at most that of the chosen one, or those of a higher tier if the
    decision was not made by risks.
    """
    if decision.reason in _NO_FALLBACK:
        return (decision.chosen,)
    tier = [row.candidate for row in decision.candidates].index(decision.chosen)
    chosen, by_tier = decision.candidates[tier], decision.reason in _BY_TIER
    others = (
        row.candidate
        for index, row in enumerate(decision.candidates)
        if index != tier and row.eligible and _may_answer_for(chosen, row, higher_tier=index > tier, by_tier=by_tier)
    )
    return (decision.chosen, *others)


def _may_answer_for(chosen: CandidateRisk, other: CandidateRisk, *, higher_tier: bool, by_tier: bool) -> bool:
    if by_tier or chosen.risk is None or other.risk is None:
        return higher_tier
    return other.risk <= chosen.risk


def may_read_more(candidate: Candidate, than: Candidate) -> bool:
    """Return whether a request that was too long for `than` may fit into the context window of `candidate`.

    It may if the policy gives `candidate` a longer window, or none; it may not if the window of `than` is unknown.
    """
    if than.context_window_tokens is None:
        return False
    return candidate.context_window_tokens is None or candidate.context_window_tokens > than.context_window_tokens

"""Who may answer in place of the chosen candidate: the floor of a decision. Pure.

docs/decisions/0005-dispatch.md says why it is drawn as it is.
"""

from __future__ import annotations

from router.policies.policy_file import Candidate, PolicyFile
from router.values import CandidateRisk, Reason, RoutingDecision

#: Decisions whose very point is this candidate; anybody else would be a substitution behind the caller's back.
_NOBODY_ELSE = frozenset({Reason.PINNED, Reason.FIXED})

#: Decisions that were not made by this prompt's risks, so the tiers alone say what is up.
_BY_TIER = frozenset({Reason.ABSTAINED, Reason.FAILED_OPEN, Reason.SESSION_HELD})


def ladder(file: PolicyFile, decision: RoutingDecision) -> tuple[Candidate, ...]:
    """The chosen candidate, then those that may stand in for it, in the order of the policy: cheapest first."""
    names = (decision.chosen,) if file.fallback == "none" else stand_ins(decision)
    return tuple(file.candidates[file.names.index(name)] for name in names)


def stand_ins(decision: RoutingDecision) -> tuple[str, ...]:
    """Names of the chosen candidate and of those at or above the floor, as `ladder` of a policy that falls back."""
    if decision.reason in _NOBODY_ELSE:
        return (decision.chosen,)
    tier = [row.candidate for row in decision.candidates].index(decision.chosen)
    chosen, by_tier = decision.candidates[tier], decision.reason in _BY_TIER
    others = (
        row.candidate
        for index, row in enumerate(decision.candidates)
        if index != tier and row.eligible and _is_up(chosen, row, higher_tier=index > tier, by_tier=by_tier)
    )
    return (decision.chosen, *others)


def _is_up(chosen: CandidateRisk, other: CandidateRisk, *, higher_tier: bool, by_tier: bool) -> bool:
    if by_tier or chosen.risk is None or other.risk is None:
        return higher_tier
    return other.risk <= chosen.risk


def reads_more(candidate: Candidate, than: Candidate) -> bool:
    """Whether a request too long for `than` is worth sending to `candidate`: only where the policy says so."""
    if than.context_window_tokens is None:
        return False
    return candidate.context_window_tokens is None or candidate.context_window_tokens > than.context_window_tokens

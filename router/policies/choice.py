"""Choose the candidate that answers, from eligibility, judgement and session. Pure: no I/O, no clock, no randomness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from router.decision import CandidateRisk, Reason
from router.errors import NoEligibleCandidateError
from router.policies.candidates.candidate import Candidate
from router.policies.eligibility import Eligibility, assess_candidates, say_why_none
from router.policies.policy_file import CostRule, FixedRule, GainRule
from router.policies.rules import Judgement, risk_bound, rule_in_force
from router.policies.session_hold import eligible_in_tool_loop, holder_index, keeps_holder
from router.values import HeldCandidate


@dataclass(frozen=True, slots=True)
class Choice:
    """Names the chosen candidate and the reason; a decision record copies them.

    The fields mean the same as those of `router.decision.RoutingDecision`, but for `would_choose`: here it is the
    candidate itself, or None if nothing took the place of what the rule chose.
    """

    chosen: Candidate
    reason: Reason
    candidates: tuple[CandidateRisk, ...]
    threshold: float | None = None
    gain: float | None = None
    would_choose: Candidate | None = None
    propensity: float = 1.0

    @property
    def abstained(self) -> bool:
        """Return whether the router declined to judge the prompt, so that the safe default answers."""
        return self.reason is Reason.ABSTAINED


def choose(
    eligibility: Eligibility,
    judgement: Judgement | None,
    *,
    judging_failed: bool = False,
    held: HeldCandidate | None = None,
) -> Choice:
    """Choose the candidate that answers a request.

    Args:
        eligibility: which candidates may answer, as `check_eligibility` returns it.
        judgement: what the probe says about the prompt; None if the prompt was not judged.
        judging_failed: True if judging was tried and failed; the safe default then answers.
        held: the candidate that answered the request's session last; None without a session or for a new one.

    Raises NoEligibleCandidateError if the rule is fixed to a candidate that may not answer.
    """
    if judgement is not None:
        e = eligibility
        candidates = _with_risks(e.candidates, judgement)
        eligibility = Eligibility(e.rules, e.ask, e.overrides, candidates, e.eligible, e.kept_by)
    if held is not None and eligibility.ask.in_tool_loop:
        eligibility = replace(eligibility, eligible=eligible_in_tool_loop(eligibility, held))
    selection = _apply_policy(eligibility, judgement, judging_failed=judging_failed)
    holder = holder_index(eligibility, held)
    if (
        held is not None
        and holder is not None
        and not _breaks_bound(eligibility, judgement, holder)
        and keeps_holder(eligibility, held, holder, eligibility.candidates[selection.index])
    ):
        selection = _Selection(holder, Reason.SESSION_HELD)
    all_candidates = eligibility.rules.file.candidates
    return Choice(
        chosen=all_candidates[selection.index],
        reason=selection.reason,
        candidates=eligibility.candidates,
        threshold=selection.threshold,
        gain=selection.gain,
        would_choose=None if selection.would_choose is None else all_candidates[selection.would_choose],
    )


def is_strong(eligibility: Eligibility, choice: Choice) -> bool:
    """Return whether a choice went above the cheapest candidate that can answer, whomever the caller wants to."""
    return eligibility.rules.names.index(choice.chosen.name) > _cheapest_able(eligibility)


def cheapest_choice(eligibility: Eligibility, choice: Choice) -> Choice | None:
    """Return the choice of the cheapest candidate that can answer in place of another choice.

    Return None if the request rules that candidate out, because it pins another one or does not allow this one.
    """
    index = eligibility.eligible[0]
    if index > _cheapest_able(eligibility):
        return None
    chosen = eligibility.rules.file.candidates[index]
    return replace(choice, chosen=chosen, reason=Reason.OVER_LIMIT, would_choose=choice.chosen)


def _cheapest_able(eligibility: Eligibility) -> int:
    """Return the index of the cheapest candidate that can answer, whether the caller allows it or not."""
    overrides = eligibility.overrides
    wishes = overrides.pin, overrides.allowed_candidates, overrides.denied_candidates, eligibility.kept_by
    if not any(wishes):
        return eligibility.eligible[0]
    free = replace(overrides, pin=None, allowed_candidates=(), denied_candidates=())
    candidates = assess_candidates(eligibility.rules, eligibility.ask, free)
    return next(index for index, one in enumerate(candidates) if one.eligible)


def needs_no_scores(eligibility: Eligibility, held: HeldCandidate | None = None) -> bool:
    """Return whether the choice is certain before any score, so that the prompt need not be judged.

    It is certain if the request is pinned, if a candidate keeps the response from which it goes on, if only one
    candidate may answer, and if a session keeps its candidate inside a tool loop, unless the request bounds the risk.
    Under a fixed rule with a probe a prompt is judged although the choice is certain: people give such a policy a probe
    to see what another rule would do. Arguments and errors are those of `choose`.
    """
    file, overrides = eligibility.rules.file, eligibility.overrides
    rule = rule_in_force(file, overrides)
    is_free = overrides.pin is None and not eligibility.kept_by
    if isinstance(rule, FixedRule) and overrides.max_risk is None and is_free:
        _choose_fixed(rule, eligibility)
        return False
    if eligibility.ask.in_tool_loop and overrides.max_risk is None and holder_index(eligibility, held) is not None:
        return True
    return len(eligibility.eligible) == 1


def _breaks_bound(eligibility: Eligibility, judgement: Judgement | None, index: int) -> bool:
    bound = risk_bound(eligibility.rules, eligibility.overrides)
    return bound is not None and judgement is not None and judgement.risk[index] > bound


def _with_risks(candidates: Sequence[CandidateRisk], judgement: Judgement) -> tuple[CandidateRisk, ...]:
    return tuple(
        [
            CandidateRisk(
                c.candidate, c.model, raw, risk, c.expected_cost_usd, c.ineligible_because, c.dropped_parameters
            )
            for c, raw, risk in zip(candidates, judgement.raw, judgement.risk, strict=True)
        ]
    )


@dataclass(frozen=True, slots=True)
class _Selection:
    """Holds the index of the selected candidate, the reason, and the numbers that the rule compared.

    lead: by how much the selected candidate is better than the safe default in what the rule compares, in quality; for
        a bound on the risk, how far its risk is within the bound. would_choose: the index that the rule selects, if
        the router abstains.
    """

    index: int
    reason: Reason
    threshold: float | None = None
    gain: float | None = None
    lead: float = 0.0
    would_choose: int | None = None


def _apply_policy(eligibility: Eligibility, judgement: Judgement | None, *, judging_failed: bool) -> _Selection:
    """Return the selection of a policy that knows no sessions."""
    rules, overrides, eligible = eligibility.rules, eligibility.overrides, eligibility.eligible
    rule, bound = rule_in_force(rules.file, overrides), risk_bound(rules, overrides)
    if overrides.pin is not None:
        return _Selection(eligible[0], Reason.PINNED)
    if eligibility.kept_by:
        return _Selection(eligible[0], Reason.SESSION_HELD)
    if isinstance(rule, FixedRule) and overrides.max_risk is None:
        return _choose_fixed(rule, eligibility)
    if len(eligible) == 1:
        return _Selection(eligible[0], Reason.ONLY_ELIGIBLE)
    if judging_failed:
        return _Selection(_safe_default(eligibility), Reason.FAILED_OPEN)
    if judgement is None:
        return _Selection(_safe_default(eligibility), Reason.ABSTAINED)
    if bound is not None:
        selection = _choose_within_bound(bound, judgement, eligibility)
    elif isinstance(rule, CostRule):
        selection = _choose_by_cost(rule, judgement, eligibility)
    else:
        assert isinstance(rule, GainRule)  # noqa: S101  (the other rules are dealt with above)
        selection = _choose_by_gain(rule, judgement, eligibility)
    # Any risk is within a bound of 1, whatever the probe knows of the prompt.
    if bound == 1.0 or not _abstains(selection, judgement, eligibility):
        return selection
    return replace(selection, index=_safe_default(eligibility), reason=Reason.ABSTAINED, would_choose=selection.index)


def _abstains(selection: _Selection, judgement: Judgement, eligibility: Eligibility) -> bool:
    """Return whether the prompt is unlike what the probe knows, and the policy then does not trust the selection."""
    rules = eligibility.rules
    if rules.max_leverage is None or judgement.leverage <= rules.max_leverage:
        return False
    within = rules.file.abstain_within
    return within is None or (selection.index != _safe_default(eligibility) and selection.lead <= within)


#: The beginning of a message for the caller of a policy with a fixed rule.
_ONLY_FIXED = "the policy asks one candidate only, which may not"


def _choose_fixed(rule: FixedRule, eligibility: Eligibility) -> _Selection:
    index = eligibility.rules.names.index(rule.candidate)
    if index not in eligibility.eligible:
        # Another candidate would replace the fixed one without the caller's knowledge.
        raise NoEligibleCandidateError(say_why_none(eligibility.candidates, rule.candidate, _ONLY_FIXED))
    return _Selection(index, Reason.FIXED)


def _safe_default(eligibility: Eligibility) -> int:
    """Return the index of the safe default if it may answer, else of the next stronger or the strongest candidate."""
    rules, eligible = eligibility.rules, eligibility.eligible
    wanted = rules.names.index(rules.file.safe_default)
    return wanted if wanted in eligible else next((index for index in eligible if index >= wanted), eligible[-1])


def _choose_within_bound(bound: float, judgement: Judgement, eligibility: Eligibility) -> _Selection:
    eligible = eligibility.eligible
    within = [index for index in eligible if judgement.risk[index] <= bound]
    if not within:
        least = min(eligible, key=lambda index: judgement.risk[index])
        return _Selection(least, Reason.NONE_WITHIN_RISK_BOUND, threshold=bound)
    costs = {index: eligibility.candidates[index].expected_cost_usd for index in within}
    # Without prices the order of the tiers says which candidate is cheapest.
    cheapest = within[0] if None in costs.values() else min(within, key=lambda index: (costs[index], index))
    lead = bound - judgement.risk[cheapest]
    return _Selection(cheapest, Reason.WITHIN_RISK_BOUND, threshold=bound, lead=lead)


def _choose_by_gain(rule: GainRule, judgement: Judgement, eligibility: Eligibility) -> _Selection:
    base, *others = eligibility.eligible
    prices = {index: math.fsum(rule.thresholds[base:index]) for index in others}
    return _best_above_base(judgement, base, prices, _safe_default(eligibility))


def _choose_by_cost(rule: CostRule, judgement: Judgement, eligibility: Eligibility) -> _Selection:
    eligible = eligibility.eligible
    candidates = eligibility.candidates
    costs = {index: cost for index in eligible if (cost := candidates[index].expected_cost_usd) is not None}
    assert len(costs) == len(eligible)  # noqa: S101  (a policy file without all prices is refused for this rule)
    base, *others = sorted(eligible, key=lambda index: (costs[index], index))
    prices = {index: rule.quality_per_usd * (costs[index] - costs[base]) for index in others}
    return _best_above_base(judgement, base, prices, _safe_default(eligibility))


def _best_above_base(judgement: Judgement, base: int, prices: Mapping[int, float], safe: int) -> _Selection:
    """Return the candidate with the largest gain over `base` minus its price, or `base` if no gain exceeds its price.

    prices: for each other candidate the quality, 0 to 1, that it must gain over `base`. Of two equally good candidates
        the earlier one wins.
    safe: the safe default, of which the selection says by how much it is worse than the selected candidate.
    """
    risk = judgement.risk
    worth = {index: risk[base] - risk[index] - price for index, price in prices.items()}
    # max() keeps the first of equal ones, which is the cheaper tier.
    best = max(worth, key=worth.__getitem__)
    gain = risk[base] - risk[best]
    above = gain > prices[best]
    selected = best if above else base
    worth[base] = 0.0
    return _Selection(
        selected,
        Reason.GAIN_ABOVE_THRESHOLD if above else Reason.GAIN_BELOW_THRESHOLD,
        threshold=prices[best],
        gain=gain,
        lead=worth[selected] - worth[safe],
    )

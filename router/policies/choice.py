"""Choose who answers, from the policy, the request, the probe's judgement and the session. Pure: no I/O, no clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from router.asking.ask import Ask
from router.errors import NoEligibleCandidateError
from router.policies.eligibility import Eligibility, check_eligibility, say_why_none
from router.policies.policy_file import Candidate, CostRule, FixedRule, GainRule, PolicyFile
from router.policies.rules import Judgement, Rules, risk_bound, rule_in_force
from router.policies.session_hold import eligible_in_tool_loop, holder_index, keeps_holder
from router.values import CandidateRisk, HeldCandidate, Overrides, Reason


@dataclass(frozen=True, slots=True)
class Choice:
    """Who answers and why; the part of a decision record that the policy is responsible for."""

    chosen: Candidate
    reason: Reason
    candidates: tuple[CandidateRisk, ...]
    threshold: float | None = None
    gain: float | None = None

    @property
    def abstained(self) -> bool:
        """Whether the router declined to judge."""
        return self.reason is Reason.ABSTAINED


def decide(
    rules: Rules,
    ask: Ask,
    overrides: Overrides,
    judgement: Judgement | None,
    *,
    failed: bool = False,
    held: HeldCandidate | None = None,
    eligibility: Eligibility | None = None,
) -> Choice:
    """Choose the candidate that answers.

    Args:
        rules: the policy.
        ask: what is asked and needed.
        overrides: what the caller asks beyond the policy.
        judgement: what the probe says; None if there was nothing to judge, no probe, or judging failed.
        failed: whether judging was tried and failed; then the safe default answers.
        held: who answered the request's session last; None without a session or for a new one.
        eligibility: what `check_eligibility` says of the same rules, ask and overrides, if it was asked before.

    Raises:
        InvalidRequestError: an override is out of range or does not fit the policy.
        UnknownCandidateError: an override names a candidate the policy does not have.
        NoEligibleCandidateError: every candidate breaks a bound.
    """
    eligibility = eligibility or check_eligibility(rules, ask, overrides)
    eligible = eligibility.eligible
    if held is not None and ask.in_tool_loop:
        eligible = eligible_in_tool_loop(rules.file, overrides, eligible, held)
    candidates = eligibility.candidates if judgement is None else _with_risks(eligibility.candidates, judgement)
    verdict = _choose(rules, overrides, judgement, candidates, eligible, failed=failed)
    holder = holder_index(rules.file, overrides, eligible, held)
    if (
        held is not None
        and holder is not None
        and not _breaks_bound(rules, overrides, judgement, holder)
        and keeps_holder(rules, ask, held, candidates[holder], candidates[verdict.index])
    ):
        verdict = _Verdict(holder, Reason.SESSION_HELD)
    return Choice(
        chosen=rules.file.candidates[verdict.index],
        reason=verdict.reason,
        candidates=candidates,
        threshold=verdict.threshold,
        gain=verdict.gain,
    )


def needs_no_scores(
    rules: Rules,
    ask: Ask,
    overrides: Overrides,
    held: HeldCandidate | None = None,
    *,
    eligibility: Eligibility | None = None,
) -> bool:
    """Return whether the choice stands before any score, so that the prompt need not be judged.

    It stands if the request is pinned, if only one candidate may answer, and if a session keeps its candidate inside a
    tool loop, unless the request bounds the risk. Prompts under a fixed rule with a probe are judged nevertheless: one
    gives such a policy a probe to see what another rule would do. Arguments and errors are those of `decide`.
    """
    eligibility = eligibility or check_eligibility(rules, ask, overrides)
    eligible = eligibility.eligible
    rule = rule_in_force(rules.file, overrides)
    if isinstance(rule, FixedRule) and overrides.max_risk is None and overrides.pin is None:
        _fixed(rules.file, rule, eligibility.candidates, eligible)
        return False
    if (
        ask.in_tool_loop
        and overrides.max_risk is None
        and holder_index(rules.file, overrides, eligible, held) is not None
    ):
        return True
    return len(eligible) == 1


def _breaks_bound(rules: Rules, overrides: Overrides, judgement: Judgement | None, index: int) -> bool:
    bound = risk_bound(rules, overrides)
    return bound is not None and judgement is not None and judgement.risk[index] > bound


def _with_risks(candidates: Sequence[CandidateRisk], judgement: Judgement) -> tuple[CandidateRisk, ...]:
    return tuple(
        [
            CandidateRisk(c.candidate, c.model, raw, risk, c.expected_cost_usd, c.ineligible_because)
            for c, raw, risk in zip(candidates, judgement.raw, judgement.risk, strict=True)
        ]
    )


@dataclass(frozen=True, slots=True)
class _Verdict:
    index: int
    reason: Reason
    threshold: float | None = None
    gain: float | None = None


def _choose(
    rules: Rules,
    overrides: Overrides,
    judgement: Judgement | None,
    candidates: Sequence[CandidateRisk],
    eligible: Sequence[int],
    *,
    failed: bool,
) -> _Verdict:
    """One of `eligible` (indices, cheapest tier first, not empty)."""
    rule, bound = rule_in_force(rules.file, overrides), risk_bound(rules, overrides)
    if overrides.pin is not None:
        return _Verdict(eligible[0], Reason.PINNED)
    if isinstance(rule, FixedRule) and overrides.max_risk is None:
        return _fixed(rules.file, rule, candidates, eligible)
    if len(eligible) == 1:
        return _Verdict(eligible[0], Reason.ONLY_ELIGIBLE)
    if failed:
        return _Verdict(_safe(rules.file, eligible), Reason.FAILED_OPEN)
    unfamiliar = judgement is None or (rules.max_leverage is not None and judgement.leverage > rules.max_leverage)
    # Where nothing is known any risk is possible, which is still within a bound of 1.
    if judgement is None or (unfamiliar and bound != 1.0):
        return _Verdict(_safe(rules.file, eligible), Reason.ABSTAINED)
    if bound is not None:
        return _within(bound, judgement, candidates, eligible)
    if isinstance(rule, CostRule):
        return _by_cost(rule, judgement, candidates, eligible)
    assert isinstance(rule, GainRule)  # noqa: S101  (the fixed rule never comes here)
    return _by_gain(rule, judgement, eligible)


def _fixed(file: PolicyFile, rule: FixedRule, candidates: Sequence[CandidateRisk], eligible: Sequence[int]) -> _Verdict:
    index = file.names.index(rule.candidate)
    if index not in eligible:
        # Fixed means fixed: another candidate behind the caller's back would be a silent substitution.
        raise NoEligibleCandidateError(say_why_none(candidates, rule.candidate))
    return _Verdict(index, Reason.FIXED)


def _safe(file: PolicyFile, eligible: Sequence[int]) -> int:
    """The safe default, or the next stronger candidate that may answer, or else the strongest that may."""
    wanted = file.names.index(file.safe_default)
    return next((index for index in eligible if index >= wanted), eligible[-1])


def _within(
    bound: float, judgement: Judgement, candidates: Sequence[CandidateRisk], eligible: Sequence[int]
) -> _Verdict:
    within = [index for index in eligible if judgement.risk[index] <= bound]
    if not within:
        least = min(eligible, key=lambda index: judgement.risk[index])
        return _Verdict(least, Reason.NONE_WITHIN_RISK_BOUND, threshold=bound)
    # Cheapest by expected cost for this request; without prices, the order of the tiers says what is cheap.
    costs = {index: candidates[index].expected_cost_usd for index in within}
    if None in costs.values():
        return _Verdict(within[0], Reason.WITHIN_RISK_BOUND, threshold=bound)
    cheapest = min(within, key=lambda index: (costs[index], index))
    return _Verdict(cheapest, Reason.WITHIN_RISK_BOUND, threshold=bound)


def _by_gain(rule: GainRule, judgement: Judgement, eligible: Sequence[int]) -> _Verdict:
    base, *others = eligible
    return _best_above_base(judgement, base, {index: math.fsum(rule.thresholds[base:index]) for index in others})


def _by_cost(
    rule: CostRule, judgement: Judgement, candidates: Sequence[CandidateRisk], eligible: Sequence[int]
) -> _Verdict:
    costs = {index: cost for index in eligible if (cost := candidates[index].expected_cost_usd) is not None}
    assert len(costs) == len(eligible)  # noqa: S101  (the policy file is refused if one has no prices)
    base, *others = sorted(eligible, key=lambda index: (costs[index], index))
    return _best_above_base(
        judgement, base, {index: rule.quality_per_usd * (costs[index] - costs[base]) for index in others}
    )


def _best_above_base(judgement: Judgement, base: int, prices: Mapping[int, float]) -> _Verdict:
    """The best candidate by gain over `base` minus price in quality; `prices` in the order in which ties are broken."""

    def gain(index: int) -> float:
        return judgement.risk[base] - judgement.risk[index]

    # max() keeps the first of equals: the cheaper tier.
    best = max(prices, key=lambda index: gain(index) - prices[index])
    above = gain(best) > prices[best]
    return _Verdict(
        best if above else base,
        Reason.GAIN_ABOVE_THRESHOLD if above else Reason.GAIN_BELOW_THRESHOLD,
        threshold=prices[best],
        gain=gain(best),
    )

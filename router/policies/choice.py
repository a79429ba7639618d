"""Prediction + candidates + overrides + who has the session -> choice. Pure: no I/O, no clock, no randomness."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from router.asking.ask import Ask
from router.errors import InvalidRequestError, NoEligibleCandidateError, UnknownCandidateError
from router.policies.policy_file import (
    Candidate,
    CostRule,
    FixedRule,
    GainRule,
    PolicyFile,
    Prices,
    RiskBoundRule,
    Rule,
)
from router.values import NO_OVERRIDES, CandidateRisk, Capability, HeldCandidate, Overrides, Reason


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the probe says about one prompt. `raw` and `risk` have one number per candidate, in the policy's order.

    Attributes:
        raw: expected loss before calibration, unbounded.
        risk: calibrated probability of an unacceptable answer, 0 to 1.
        difficulty: expected loss averaged over all models of the probe.
        leverage: distance from what the probe was fitted on, 0 upwards.
    """

    raw: tuple[float, ...]
    risk: tuple[float, ...]
    difficulty: float
    leverage: float


@dataclass(frozen=True, slots=True)
class Rules:
    """A policy ready to decide: the file, with everything looked up that it only names.

    Attributes:
        file: the policy file.
        prices: per candidate, None where unknown.
        max_leverage: prompts beyond it go to the safe default; None never abstains.
        capabilities: per candidate, as sets.
    """

    file: PolicyFile
    prices: tuple[Prices | None, ...]
    max_leverage: float | None
    capabilities: tuple[frozenset[Capability], ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        sets = tuple(frozenset(candidate.capabilities) for candidate in self.file.candidates)
        object.__setattr__(self, "capabilities", sets)


@dataclass(frozen=True, slots=True)
class Standing:
    """Who may answer a request, whatever the probe will say of it.

    Attributes:
        candidates: all, in the policy's order, without risks.
        eligible: indices of those who may answer, cheapest tier first; never empty.
    """

    candidates: tuple[CandidateRisk, ...]
    eligible: tuple[int, ...]


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
    standing: Standing | None = None,
) -> Choice:
    """Choose the candidate.

    Args:
        rules: the policy.
        ask: what is asked and needed.
        overrides: what the caller asks beyond the policy.
        judgement: what the probe says; None if there was nothing to judge, no probe, or judging failed.
        failed: whether judging was tried and failed; then the safe default answers.
        held: who answered the request's session last; None without a session or for a new one.
        standing: what `stand` says of the same rules, ask and overrides, where it was asked before.

    Raises:
        InvalidRequestError: an override is out of range or does not fit the policy.
        UnknownCandidateError: an override names a candidate the policy does not have.
        NoEligibleCandidateError: every candidate breaks a bound.
    """
    standing = standing or stand(rules, ask, overrides)
    eligible = standing.eligible
    if held is not None and ask.in_tool_loop:
        eligible = _not_below(rules.file, overrides, eligible, held)
    candidates = standing.candidates if judgement is None else _with_risks(standing.candidates, judgement)
    verdict = _choose(rules, overrides, judgement, candidates, eligible, failed=failed)
    index = _holder(rules.file, overrides, eligible, held)
    if held is not None and index is not None:
        verdict = _hold(rules, ask, overrides, judgement, candidates, held, index, verdict)
    return Choice(
        chosen=rules.file.candidates[verdict.index],
        reason=verdict.reason,
        candidates=candidates,
        threshold=verdict.threshold,
        gain=verdict.gain,
    )


def stand(rules: Rules, ask: Ask, overrides: Overrides) -> Standing:
    """Who may answer, before any score. Arguments and errors as `decide`."""
    check_overrides(rules.file, overrides)
    candidates = weigh_in(rules, ask, overrides)
    return Standing(candidates, _eligible(rules.file, overrides, candidates))


def is_settled(
    rules: Rules,
    ask: Ask,
    overrides: Overrides,
    held: HeldCandidate | None = None,
    *,
    standing: Standing | None = None,
) -> bool:
    """Whether the choice is settled before any score, so that nothing need be judged. Arguments and errors as `decide`.

    It is where the request is pinned, where only one candidate may answer, and where a session holds its own inside a
    tool loop, unless the request bounds the risk. A fixed rule with a probe has its prompts judged: to see what another
    rule would do is what one gives it a probe for.
    """
    standing = standing or stand(rules, ask, overrides)
    eligible = standing.eligible
    rule = _rule(rules.file, overrides)
    if isinstance(rule, FixedRule) and overrides.max_risk is None and overrides.pin is None:
        _fixed(rules.file, rule, standing.candidates, eligible)
        return False
    if ask.in_tool_loop and overrides.max_risk is None and _holder(rules.file, overrides, eligible, held) is not None:
        return True
    return len(eligible) == 1


def _eligible(file: PolicyFile, overrides: Overrides, candidates: Sequence[CandidateRisk]) -> tuple[int, ...]:
    """Indices of those who may answer, cheapest tier first. Raises NoEligibleCandidateError for none."""
    eligible = tuple([i for i, candidate in enumerate(candidates) if not candidate.ineligible_because])
    if overrides.pin is not None:
        index = file.names.index(overrides.pin)
        eligible = (index,) if index in eligible else ()
    if not eligible:
        raise NoEligibleCandidateError(_say_why_none(candidates, overrides.pin))
    return eligible


def check_overrides(file: PolicyFile, overrides: Overrides) -> None:
    """Raise InvalidRequestError or UnknownCandidateError for overrides that cannot hold under this policy."""
    if overrides == NO_OVERRIDES:
        return
    for field, low, high in (("max_risk", 0.0, 1.0), ("min_gain", -1.0, 1.0), ("max_cost_usd", 0.0, math.inf)):
        value = getattr(overrides, field)
        if value is not None and not (math.isfinite(value) and low <= value <= high):
            bounds = f"{low:g} to {high:g}" if math.isfinite(high) else "a finite number of 0 or more"
            raise InvalidRequestError(f"{field} must be {bounds}, got {value}.", field=f"overrides.{field}")
    named = {
        "allowed_candidates": overrides.allowed_candidates,
        "denied_candidates": overrides.denied_candidates,
        "pin": (overrides.pin,) if overrides.pin is not None else (),
    }
    for field, names in named.items():
        for name in names:
            if name not in file.names:
                raise UnknownCandidateError(
                    f"{field} must name candidates of policy {file.name!r} ({', '.join(file.names)}), got {name!r}.",
                    field=f"overrides.{field}",
                )
    rules = [field for field in ("max_risk", "min_gain") if getattr(overrides, field) is not None]
    if len(rules) > 1:
        raise InvalidRequestError(
            "max_risk and min_gain each replace the policy's rule; give one of them, got both.",
            field="overrides.min_gain",
        )
    if rules and file.probe is None:
        raise InvalidRequestError(
            f"{rules[0]} needs a policy with a probe, {file.name!r} has none.", field=f"overrides.{rules[0]}"
        )


def expected_cost_usd(
    candidate: Candidate, prices: Prices | None, ask: Ask, *, cached_input_tokens: int = 0
) -> float | None:
    """Expected cost of one answer: estimated input tokens, usual output tokens or the caller's bound if lower."""
    if prices is None:
        return None
    output_tokens = candidate.expected_output_tokens
    if ask.max_output_tokens is not None:
        output_tokens = min(output_tokens, ask.max_output_tokens)
    return prices.cost_usd(ask.input_tokens_estimate, output_tokens, cached_input_tokens=cached_input_tokens)


def weigh_in(rules: Rules, ask: Ask, overrides: Overrides) -> tuple[CandidateRisk, ...]:
    """Expected cost and eligibility of every candidate, in the policy's order."""
    rows = []
    needs = ask.needs | _TEXT if ask.text else ask.needs
    for index, (candidate, prices) in enumerate(zip(rules.file.candidates, rules.prices, strict=True)):
        cost = expected_cost_usd(candidate, prices, ask)
        rows.append(
            CandidateRisk(
                candidate=candidate.name,
                model=candidate.model,
                raw=None,
                risk=None,
                expected_cost_usd=cost,
                ineligible_because=_broken_bounds(
                    rules.file, candidate, cost, ask, overrides, needs - rules.capabilities[index]
                ),
            )
        )
    return tuple(rows)


_TEXT = frozenset({Capability.TEXT})


def _with_risks(candidates: Sequence[CandidateRisk], judgement: Judgement) -> tuple[CandidateRisk, ...]:
    return tuple(
        [
            CandidateRisk(c.candidate, c.model, raw, risk, c.expected_cost_usd, c.ineligible_because)
            for c, raw, risk in zip(candidates, judgement.raw, judgement.risk, strict=True)
        ]
    )


def _broken_bounds(
    file: PolicyFile,
    candidate: Candidate,
    cost: float | None,
    ask: Ask,
    overrides: Overrides,
    lacking: frozenset[Capability],
) -> tuple[str, ...]:
    broken = []
    if overrides.allowed_candidates and candidate.name not in overrides.allowed_candidates:
        broken.append("not among allowed_candidates")
    if candidate.name in overrides.denied_candidates:
        broken.append("among denied_candidates")
    if lacking:
        broken.append(f"cannot handle {', '.join(sorted(lacking))}")
    if ask.unknown_parts:
        broken.append(f"content parts of unknown type {', '.join(ask.unknown_parts)}")
    for region in {file.require_region: None, overrides.require_region: None}:
        if region is not None and region not in candidate.regions:
            known = ", ".join(candidate.regions) or "none that is known"
            broken.append(f"region {region!r} required, its regions are {known}")
    window = candidate.context_window_tokens
    wanted = ask.input_tokens_estimate + (ask.max_output_tokens or 0)
    if window is not None and wanted > window:
        broken.append(f"context window of {window:,} tokens, about {wanted:,} needed")
    if overrides.max_cost_usd is not None:
        if cost is None:
            broken.append("price unknown, max_cost_usd set")
        elif cost > overrides.max_cost_usd:
            broken.append(f"expected cost ${cost:.6f} above max_cost_usd ${overrides.max_cost_usd:.6f}")
    return tuple(broken)


def _say_why_none(candidates: Sequence[CandidateRisk], pin: str | None) -> str:
    shown = [c for c in candidates if pin is None or c.candidate == pin]
    why = "; ".join(f"{c.candidate}: {', '.join(c.ineligible_because)}" for c in shown)
    head = "no candidate may answer this request" if pin is None else "the pinned candidate may not answer this request"
    return f"{head} ({why}). Relax the overrides, or give the policy a candidate that fits."


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
    rule, bound = _rule(rules.file, overrides), _risk_bound(rules, overrides)
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


def _risk_bound(rules: Rules, overrides: Overrides) -> float | None:
    if overrides.max_risk is not None:
        return overrides.max_risk
    rule = _rule(rules.file, overrides)
    return rule.max_risk if isinstance(rule, RiskBoundRule) else None


def _holder(file: PolicyFile, overrides: Overrides, eligible: Sequence[int], held: HeldCandidate | None) -> int | None:
    """Index of the candidate that the session may hold; None where there is nothing to hold, or no choice at all."""
    if held is None or len(eligible) == 1 or not _keeps_sessions(file, overrides):
        return None
    # One that the policy no longer has, or that may not answer this request, is released.
    return next((index for index in eligible if file.names[index] == held.candidate), None)


def _keeps_sessions(file: PolicyFile, overrides: Overrides) -> bool:
    """Whether who answered a session last has a say: not under a pin, nor under a fixed rule."""
    fixed = isinstance(_rule(file, overrides), FixedRule) and overrides.max_risk is None
    return file.sessions != "ignore" and overrides.pin is None and not fixed


def _not_below(
    file: PolicyFile, overrides: Overrides, eligible: tuple[int, ...], held: HeldCandidate
) -> tuple[int, ...]:
    """Those that may take over inside a tool loop where the session's own may not go on: none weaker, if any is."""
    if held.candidate not in file.names or not _keeps_sessions(file, overrides):
        return eligible
    floor = file.names.index(held.candidate)
    if floor in eligible:
        return eligible
    return tuple(index for index in eligible if index >= floor) or eligible


def _hold(
    rules: Rules,
    ask: Ask,
    overrides: Overrides,
    judgement: Judgement | None,
    candidates: Sequence[CandidateRisk],
    held: HeldCandidate,
    index: int,
    verdict: _Verdict,
) -> _Verdict:
    """The verdict, or the session's candidate (of this index) in its place."""
    bound = _risk_bound(rules, overrides)
    if bound is not None and judgement is not None and judgement.risk[index] > bound:
        return verdict
    if not ask.in_tool_loop:
        # At a human turn a stronger candidate takes over freely; a weaker one has to be cheaper with a cold cache than
        # the session's own with a warm one.
        if verdict.index >= index:
            return verdict
        candidate = rules.file.candidates[index]
        cached = min(held.input_tokens, ask.input_tokens_estimate) if held.idle_s <= candidate.prompt_cache_s else 0
        staying = expected_cost_usd(candidate, rules.prices[index], ask, cached_input_tokens=cached)
        leaving = candidates[verdict.index].expected_cost_usd
        if staying is None or leaving is None or leaving < staying:
            return verdict
    return _Verdict(index, Reason.SESSION_HELD)


def _rule(file: PolicyFile, overrides: Overrides) -> Rule:
    if overrides.min_gain is None or len(file.candidates) == 1:
        return file.rule
    return GainRule(kind="gain", thresholds=(overrides.min_gain,) * (len(file.candidates) - 1))


def _fixed(file: PolicyFile, rule: FixedRule, candidates: Sequence[CandidateRisk], eligible: Sequence[int]) -> _Verdict:
    index = file.names.index(rule.candidate)
    if index not in eligible:
        # Fixed means fixed: another candidate behind the caller's back would be a silent substitution.
        raise NoEligibleCandidateError(_say_why_none(candidates, rule.candidate))
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
    return _climb(judgement, base, {index: math.fsum(rule.thresholds[base:index]) for index in others})


def _by_cost(
    rule: CostRule, judgement: Judgement, candidates: Sequence[CandidateRisk], eligible: Sequence[int]
) -> _Verdict:
    costs = {index: cost for index in eligible if (cost := candidates[index].expected_cost_usd) is not None}
    assert len(costs) == len(eligible)  # noqa: S101  (the policy file is refused if one has no prices)
    base, *others = sorted(eligible, key=lambda index: (costs[index], index))
    return _climb(judgement, base, {index: rule.quality_per_usd * (costs[index] - costs[base]) for index in others})


def _climb(judgement: Judgement, base: int, prices: Mapping[int, float]) -> _Verdict:
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

"""Who may answer a request, before any score: overrides, capabilities, regions, context windows and cost bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from router.asking.ask import Ask
from router.errors import InvalidRequestError, NoEligibleCandidateError, UnknownCandidateError
from router.policies.policy_file import Candidate, PolicyFile, Prices
from router.policies.rules import Rules
from router.quoting import quoted
from router.values import NO_OVERRIDES, CandidateRisk, Capability, Overrides

_TEXT = frozenset({Capability.TEXT})


@dataclass(frozen=True, slots=True)
class Eligibility:
    """Who may answer a request, whatever the probe says of it.

    Attributes:
        candidates: all of them in the policy's order, with their expected cost and without risks.
        eligible: indices of those who may answer, cheapest tier first; never empty.
    """

    candidates: tuple[CandidateRisk, ...]
    eligible: tuple[int, ...]


def check_eligibility(rules: Rules, ask: Ask, overrides: Overrides) -> Eligibility:
    """Return who may answer, before any score. Arguments and errors are those of `choice.decide`."""
    check_overrides(rules.file, overrides)
    candidates = assess_candidates(rules, ask, overrides)
    return Eligibility(candidates, _eligible(rules.file, overrides, candidates))


def check_overrides(file: PolicyFile, overrides: Overrides) -> None:
    """Raise InvalidRequestError or UnknownCandidateError for overrides that cannot hold under this policy."""
    if overrides == NO_OVERRIDES:
        return
    for field, low, high in (("max_risk", 0.0, 1.0), ("min_gain", -1.0, 1.0), ("max_cost_usd", 0.0, math.inf)):
        value = getattr(overrides, field)
        if value is not None and not (low <= value <= high and value < math.inf):
            bounds = f"{low:g} to {high:g}" if math.isfinite(high) else "a finite number of 0 or more"
            raise InvalidRequestError(f"{field} must be {bounds}, got {quoted(value)}.", field=f"overrides.{field}")
    named = {
        "allowed_candidates": overrides.allowed_candidates,
        "denied_candidates": overrides.denied_candidates,
        "pin": (overrides.pin,) if overrides.pin is not None else (),
    }
    for field, names in named.items():
        for name in names:
            if name not in file.names:
                raise UnknownCandidateError(
                    f"{field} must name candidates of policy {file.name!r} ({', '.join(file.names)}), "
                    f"got {quoted(name)}.",
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


def assess_candidates(rules: Rules, ask: Ask, overrides: Overrides) -> tuple[CandidateRisk, ...]:
    """Return every candidate in the policy's order, with its expected cost and every reason why it may not answer."""
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


def _eligible(file: PolicyFile, overrides: Overrides, candidates: Sequence[CandidateRisk]) -> tuple[int, ...]:
    """Indices of those who may answer, cheapest tier first. Raises NoEligibleCandidateError for none."""
    eligible = tuple([i for i, candidate in enumerate(candidates) if not candidate.ineligible_because])
    if overrides.pin is not None:
        index = file.names.index(overrides.pin)
        eligible = (index,) if index in eligible else ()
    if not eligible:
        raise NoEligibleCandidateError(say_why_none(candidates, overrides.pin))
    return eligible


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
        broken.append(f"content parts of unknown type {_some(ask.unknown_parts)}")
    for region in {file.require_region: None, overrides.require_region: None}:
        if region is not None and region not in candidate.regions:
            known = ", ".join(candidate.regions) or "none that is known"
            broken.append(f"region {quoted(region)} required, its regions are {known}")
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


def _some(kinds: Sequence[str]) -> str:
    """The first three of what a caller may make up without end, and how many more there are."""
    more = f" and {len(kinds) - 3:,} more" if len(kinds) > 3 else ""
    return ", ".join(map(quoted, kinds[:3])) + more


def say_why_none(candidates: Sequence[CandidateRisk], pin: str | None) -> str:
    """Return the message for a request that no candidate, or not the pinned one, may answer."""
    named = [c for c in candidates if pin is None or c.candidate == pin]
    why = "; ".join(f"{c.candidate}: {', '.join(c.ineligible_because)}" for c in named)
    head = "no candidate may answer this request" if pin is None else "the pinned candidate may not answer this request"
    return f"{head} ({why}). Relax the overrides, or give the policy a candidate that fits."

"""Check which candidates may answer a request, before anything is known about their risks.

Overrides, capabilities, regions, context windows and cost bounds decide that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from router.asking.ask import Ask
from router.decision import CandidateRisk
from router.errors import InvalidRequestError, NoEligibleCandidateError, UnknownCandidateError
from router.money import usd_text
from router.policies.candidates.candidate import Candidate, Prices
from router.policies.policy_file import PolicyFile
from router.policies.refusals import refuse_request, sort_parameters
from router.policies.rules import Rules, speaks_anthropic, takes_unknown_parts
from router.quoting import MAX_QUOTED_CHARACTERS, did_you_mean, quoted
from router.values import NO_OVERRIDES, ApiFormat, Capability, HeldCandidate, Overrides

_TEXT = frozenset({Capability.TEXT})

#: The largest number of unknown types of content parts that a message names. A caller may invent any number of them.
_MAX_NAMED_PARTS = 3


@dataclass(frozen=True, slots=True)
class Eligibility:
    """Says which candidates may answer one request under one policy, whatever the probe says about it.

    Attributes:
        rules: the policy.
        ask: what is asked and needed.
        overrides: what the caller asks beyond the policy.
        candidates: all candidates in the order of the policy, with their expected costs and without risks.
        eligible: the indices of the candidates that may answer, cheapest tier first; never empty.
        kept_by: the name of the candidate that keeps the response from which the request goes on; empty if there is
            none, or if nobody knows.
    """

    rules: Rules
    ask: Ask
    overrides: Overrides
    candidates: tuple[CandidateRisk, ...]
    eligible: tuple[int, ...]
    kept_by: str = ""


def check_eligibility(rules: Rules, ask: Ask, overrides: Overrides, *, kept_by: str = "") -> Eligibility:
    """Return which candidates of a policy may answer a request.

    Args:
        rules: the policy.
        ask: what is asked and needed.
        overrides: what the caller asks beyond the policy.
        kept_by: the candidate that keeps the response from which the request goes on. Only this one may answer, unless
            the request pins another; empty if there is none.

    Raises:
        InvalidRequestError: an override is out of range or does not fit the policy, or the policy refuses requests with
            a parameter that a candidate refuses.
        UnknownCandidateError: an override names a candidate that the policy does not have.
        NoEligibleCandidateError: every candidate breaks a bound.
    """
    check_overrides(rules.file, overrides)
    candidates = assess_candidates(rules, ask, overrides, kept_by=kept_by)
    eligible = _eligible(rules.file, overrides, candidates)
    return Eligibility(rules, ask, overrides, candidates, eligible, kept_by)


def check_overrides(file: PolicyFile, overrides: Overrides) -> None:
    """Raise InvalidRequestError or UnknownCandidateError for overrides that cannot hold under this policy."""
    if overrides is NO_OVERRIDES or overrides == NO_OVERRIDES:
        return
    _check_ranges(overrides)
    _check_names(file, overrides)
    replacing = [field for field in ("max_risk", "min_gain") if getattr(overrides, field) is not None]
    if len(replacing) > 1:
        raise InvalidRequestError(
            "max_risk and min_gain each replace the policy's rule; give one of them, got both.",
            field="overrides.min_gain",
        )
    if replacing and file.probe is None and file.score is None:
        raise InvalidRequestError(
            f"{replacing[0]} needs a policy with a probe, {file.name!r} has none.", field=f"overrides.{replacing[0]}"
        )


def _check_ranges(overrides: Overrides) -> None:
    for field, low, high in (("max_risk", 0.0, 1.0), ("min_gain", -1.0, 1.0), ("max_cost_usd", 0.0, math.inf)):
        value = getattr(overrides, field)
        if value is not None and not (low <= value <= high and value < math.inf):
            bounds = f"{low:g} to {high:g}" if math.isfinite(high) else "a finite number of 0 or more"
            raise InvalidRequestError(f"{field} must be {bounds}, got {quoted(value)}.", field=f"overrides.{field}")


def _check_names(file: PolicyFile, overrides: Overrides) -> None:
    named = {
        "allowed_candidates": overrides.allowed_candidates,
        "denied_candidates": overrides.denied_candidates,
        "pin": (overrides.pin,) if overrides.pin is not None else (),
    }
    for field, names in named.items():
        for name in names:
            if name not in file.names:
                hint = did_you_mean(name, file.names) if len(name) <= MAX_QUOTED_CHARACTERS else ""
                raise UnknownCandidateError(
                    f"{field} must name candidates of policy {file.name!r} ({', '.join(file.names)}), "
                    f"got {quoted(name)}.{hint}",
                    field=f"overrides.{field}",
                )


def expected_cost_usd(
    candidate: Candidate, prices: Prices | None, ask: Ask, *, cached_input_tokens: int = 0
) -> float | None:
    """Return the expected cost of one answer in USD, or None if the candidate has no prices.

    The answer is taken to have the candidate's `expected_output_tokens`, or the bound of the caller, or else that of
    the candidate's own parameters, if it is lower.
    """
    if prices is None:
        return None
    output_tokens, bound = candidate.expected_output_tokens, _most_output_tokens(candidate, ask)
    if bound is not None:
        output_tokens = min(output_tokens, bound)
    return prices.cost_usd(ask.input_tokens_estimate, output_tokens, cached_input_tokens=cached_input_tokens)


def warm_cost_usd(rules: Rules, index: int, ask: Ask, held: HeldCandidate) -> float | None:
    """Return the expected cost of the candidate at `index` if it has read as much of the session as `held` has."""
    candidate = rules.file.candidates[index]
    # The provider can have cached no more than the holder has read, and no more than the chat still has.
    cached = min(held.input_tokens, ask.input_tokens_estimate) if held.idle_s <= candidate.prompt_cache_s else 0
    return expected_cost_usd(candidate, rules.prices[index], ask, cached_input_tokens=cached)


def assess_candidates(rules: Rules, ask: Ask, overrides: Overrides, *, kept_by: str = "") -> tuple[CandidateRisk, ...]:
    """Return every candidate in the policy's order, with its expected cost and every reason why it may not answer.

    Arguments are those of `check_eligibility`. Raises InvalidRequestError for a parameter that the policy refuses.
    """
    rows = []
    has_overrides = overrides is not NO_OVERRIDES
    needs = ask.needs | _TEXT if ask.text else ask.needs
    # A dict keeps the order and drops the second of two equal regions.
    regions = [one for one in dict.fromkeys((rules.file.require_region, overrides.require_region)) if one is not None]
    for index, (candidate, prices) in enumerate(zip(rules.file.candidates, rules.prices, strict=True)):
        cost = expected_cost_usd(candidate, prices, ask)
        # Most requests give no cause for most of these checks, and every request waits for them.
        broken = [
            *(_broken_by_caller(candidate, overrides) if has_overrides else ()),
            *_lacking(needs - rules.capabilities[index]),
            *(_unknown_parts(rules, index, ask, overrides) if ask.unknown_parts else ()),
            *(_missing_regions(candidate, regions) if regions else ()),
            *_too_long(candidate, ask),
            *(_not_spoken(rules, index, ask) if ask.native_needs else ()),
            *(_not_kept(candidate, overrides, kept_by) if kept_by else ()),
            *(_too_expensive(cost, overrides) if has_overrides else ()),
        ]
        dropped, refused = sort_parameters(rules, index, ask, overrides)
        if refused and not broken and rules.file.on_unsupported == "refuse":
            refuse_request(candidate.name, refused[0])
        broken += [f"refuses the parameter {quoted(name)}" for name in refused]
        because = tuple(broken)
        rows.append(CandidateRisk(candidate.name, candidate.model, None, None, cost, because, dropped))
    return tuple(rows)


def _eligible(file: PolicyFile, overrides: Overrides, candidates: Sequence[CandidateRisk]) -> tuple[int, ...]:
    """Return the indices of the candidates that may answer. Raise NoEligibleCandidateError if there are none."""
    eligible = tuple([i for i, candidate in enumerate(candidates) if not candidate.ineligible_because])
    if overrides.pin is not None:
        index = file.names.index(overrides.pin)
        eligible = (index,) if index in eligible else ()
    if not eligible:
        raise NoEligibleCandidateError(say_why_none(candidates, overrides.pin))
    return eligible


def _broken_by_caller(candidate: Candidate, overrides: Overrides) -> list[str]:
    broken = []
    if overrides.allowed_candidates and candidate.name not in overrides.allowed_candidates:
        broken.append("not among allowed_candidates")
    if candidate.name in overrides.denied_candidates:
        broken.append("among denied_candidates")
    return broken


def _most_output_tokens(candidate: Candidate, ask: Ask) -> int | None:
    """Return the bound on output tokens under which a candidate answers; None if there is none."""
    return candidate.params.max_tokens if ask.max_output_tokens is None else ask.max_output_tokens


def _lacking(lacking: frozenset[Capability]) -> list[str]:
    return [f"cannot handle {', '.join(sorted(lacking))}"] if lacking else []


def _unknown_parts(rules: Rules, index: int, ask: Ask, overrides: Overrides) -> list[str]:
    kinds = ask.unknown_parts
    if rules.file.pass_unknown_parts and (
        overrides.pin is not None or takes_unknown_parts(rules, index, ask.api_format)
    ):
        return []
    more = f" and {len(kinds) - _MAX_NAMED_PARTS:,} more" if len(kinds) > _MAX_NAMED_PARTS else ""
    return [f"content parts of unknown type {', '.join(map(quoted, kinds[:_MAX_NAMED_PARTS]))}{more}"]


def _missing_regions(candidate: Candidate, required: Sequence[str]) -> list[str]:
    known = ", ".join(candidate.regions) or "not stated"
    return [
        f"region {quoted(region)} required, its regions are {known}"
        for region in required
        if region not in candidate.regions
    ]


def _too_long(candidate: Candidate, ask: Ask) -> list[str]:
    window = candidate.context_window_tokens
    needed = ask.input_tokens_estimate + (_most_output_tokens(candidate, ask) or 0)
    if window is None or needed <= window:
        return []
    return [f"context window of {window:,} tokens, about {needed:,} needed"]


def _not_spoken(rules: Rules, index: int, ask: Ask) -> list[str]:
    is_anthropics = ask.api_format is ApiFormat.ANTHROPIC_MESSAGES
    if speaks_anthropic(rules.file.candidates[index]) if is_anthropics else ask.native_api in rules.spoken[index]:
        return []
    api = "Anthropic's" if is_anthropics else f"the {ask.native_api}"
    more = f" and {len(ask.native_needs) - _MAX_NAMED_PARTS:,} more" if len(ask.native_needs) > _MAX_NAMED_PARTS else ""
    needs = ", ".join(map(quoted, ask.native_needs[:_MAX_NAMED_PARTS]))
    return [f"does not speak {api} API itself, which {needs}{more} needs"]


def _not_kept(candidate: Candidate, overrides: Overrides, kept_by: str) -> list[str]:
    if overrides.pin is not None or candidate.name == kept_by:
        return []
    return [f"the response of `previous_response_id` is kept by candidate {quoted(kept_by)}"]


def _too_expensive(cost: float | None, overrides: Overrides) -> list[str]:
    if overrides.max_cost_usd is None:
        return []
    if cost is None:
        return ["price unknown, max_cost_usd set"]
    if cost > overrides.max_cost_usd:
        return [f"expected cost of {usd_text(cost)}, above max_cost_usd of {usd_text(overrides.max_cost_usd)}"]
    return []


def say_why_none(
    candidates: Sequence[CandidateRisk], only: str | None, who: str = "the pinned candidate may not"
) -> str:
    """Return the message for a request that no candidate may answer, or not the one that is named by `only`.

    who: which candidate that is, for the message.
    """
    named = [c for c in candidates if only is None or c.candidate == only]
    why = "; ".join(f"{c.candidate}: {', '.join(c.ineligible_because)}" for c in named)
    head = "no candidate may" if only is None else who
    return f"{head} answer this request ({why}). Relax the overrides, or give the policy a candidate that fits."

"""Decide logged requests again under another policy (`replayed`), from what the ledger keeps of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from router.asking.ask import Ask
from router.decision import CandidateRisk, Reason
from router.errors import NoEligibleCandidateError
from router.exploring.explorer import EXPLORED_REASONS
from router.policies.choice import choose
from router.policies.eligibility import Eligibility
from router.policies.loading import ServedPolicy
from router.policies.rules import Judgement
from router.values import NO_OVERRIDES

if TYPE_CHECKING:
    from router.ledger.reader import LoggedCandidate, LoggedDecision

#: Reasons of decisions that a rule made, which another rule could have made otherwise.
_BY_RULE = frozenset({one.value for one in (*EXPLORED_REASONS, Reason.EXPLORED, Reason.NONE_WITHIN_RISK_BOUND)})


class NotReplayableError(Exception):
    """A logged decision says nothing about a policy. The message is the reason, in words that can be counted."""


def was_by_rule(decision: LoggedDecision) -> bool:
    """Return whether the rule of the policy decided, and no caller, session, abstention or limit."""
    overrides = decision.values["overrides"] or {}
    return decision.values["reason"] in _BY_RULE and not overrides.keys() & {"max_risk", "min_gain"}


def replayed(policy: ServedPolicy, decision: LoggedDecision) -> tuple[str, Judgement | None]:
    """Return the candidate that a policy chooses for a logged request, and its judgement.

    Costs and eligibility are those that were logged. Risks are too, if the same probe judged; another probe judges the
    features, if the ledger kept them. Sessions are not replayed.

    Raises NotReplayableError.
    """
    by_name = {one.candidate: one for one in decision.candidates}
    file = policy.rules.file
    if missing := [name for name in file.names if name not in by_name]:
        raise NotReplayableError(f"the log knows no candidate {missing[0]!r}")
    candidates = tuple(_candidate(by_name[c.name], c.model) for c in file.candidates)
    eligible = tuple(index for index, one in enumerate(candidates) if one.eligible)
    if not eligible:
        raise NotReplayableError("no candidate of the policy could answer")
    values = decision.values
    ask = Ask("", frozenset(), (), int(values["input_tokens_estimate"]), None)
    eligibility = Eligibility(policy.rules, ask, NO_OVERRIDES, candidates, eligible)
    judgement = _judgement(policy, decision, by_name)
    try:
        return choose(eligibility, judgement).chosen.name, judgement
    except NoEligibleCandidateError:
        raise NotReplayableError("no candidate of the policy could answer") from None


def _candidate(logged: LoggedCandidate, model: str) -> CandidateRisk:
    because = () if logged.eligible else ("it was not eligible",)
    return CandidateRisk(logged.candidate, model, logged.raw, logged.risk, logged.cost, because)


def _judgement(
    policy: ServedPolicy, decision: LoggedDecision, by_name: Mapping[str, LoggedCandidate]
) -> Judgement | None:
    values, names = decision.values, policy.rules.file.names
    if policy.probe_ref is None:
        return None
    if policy.probe_ref.digest == values["probe_digest"]:
        risks = [by_name[name].risk for name in names]
        raws = [by_name[name].raw for name in names]
        if None in risks or values["leverage"] is None:
            raise NotReplayableError("the prompt was not judged")
        return Judgement(
            raw=tuple(math.nan if one is None else one for one in raws),
            risk=tuple(one for one in risks if one is not None),
            difficulty=values["difficulty"] or 0.0,
            leverage=values["leverage"],
        )
    features = decision.features
    if policy.probe is None or policy.encoder_spec is None or features is None:
        raise NotReplayableError("another probe judged, and the ledger keeps no features (--ledger-features)")
    if values["encoder"] != policy.encoder_spec.identity:
        raise NotReplayableError("the features are of another encoder")
    return policy.judge(features, values["task"] or "")

"""Turn a decision into the answers of a decision model: a label, and probabilities from the calibrated risks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from router.decision import RoutingDecision
from router.gateways.http.decision_models.questions import TierQuestion
from router.policies.policy_file import PolicyFile


@dataclass(frozen=True, slots=True)
class ChoiceAnswer:
    """Holds the answer to one question.

    Attributes:
        choice: the label of the chosen tier.
        probabilities: for each label the probability, 0 to 1, that its tier is the cheapest one whose answer is
            acceptable; they add up to 1.
        confidence: the probability, 0 to 1, that the answer of the chosen candidate is acceptable; None if the request
            was not judged.
    """

    choice: str
    probabilities: dict[str, float]
    confidence: float | None


def answer_question(question: TierQuestion, decision: RoutingDecision, policy: PolicyFile) -> ChoiceAnswer:
    """Return the answer to a question. The label of each candidate is found by `tier_labels`."""
    labels = tier_labels(question, policy)
    probabilities = dict.fromkeys(question.labels, 0.0)
    for label, probability in zip(labels, cheapest_acceptable(decision), strict=True):
        probabilities[label] += probability
    risk = next(row.risk for row in decision.candidates if row.candidate == decision.chosen)
    choice = labels[policy.names.index(decision.chosen)]
    return ChoiceAnswer(choice, probabilities, None if risk is None else 1 - risk)


def tier_labels(question: TierQuestion, policy: PolicyFile) -> list[str]:
    """Return the labels that stand for the candidates of a policy, in the order of their tiers.

    It is the first label that is the candidate's name, or an alias of it in the policy. Without one, the labels stand
    for the tiers in order, and the last label for all tiers above it. For example: SIMPLE and COMPLEX mean the first
    and the other two of three candidates.
    """
    # In one pass, because a request may hold 32,640 labels and the event loop waits.
    named: dict[str, str] = {}
    for label in question.labels:
        named.setdefault(label, label)
        if (target := policy.aliases.get(label)) is not None:
            named.setdefault(target, label)
    last = len(question.labels) - 1
    return [named.get(name) or question.labels[min(tier, last)] for tier, name in enumerate(policy.names)]


def cheapest_acceptable(decision: RoutingDecision) -> Sequence[float]:
    """Return for each candidate the probability that it is the cheapest one whose answer is acceptable.

    With risks r_1, r_2, ... in the order of the tiers, the k-th one is 1 - r_k minus the largest 1 - r_j of a cheaper
    tier, cut at 0: a prompt that a cheap model can do is one that a stronger model can do too. What is left when no
    candidate would do belongs to the last one. If the request was not judged, the chosen candidate has all.
    """
    risks = [row.risk for row in decision.candidates]
    if any(risk is None for risk in risks):
        return [float(row.candidate == decision.chosen) for row in decision.candidates]
    shares, best = [], 0.0
    for risk in risks:
        acceptable = 1.0 - (risk or 0.0)
        shares.append(max(0.0, acceptable - best))
        best = max(best, acceptable)
    shares[-1] += 1.0 - best
    return shares


def systemone_reply(
    model: str, questions: Sequence[TierQuestion], answers: Sequence[ChoiceAnswer], input_tokens: int
) -> dict[str, Any]:
    """Return the body of a reply of `/v1/systemone`."""
    told = {
        question.name: {
            "type": "choice",
            "choice": answer.choice,
            "probabilities": answer.probabilities,
            "confidence": answer.confidence,
        }
        for question, answer in zip(questions, answers, strict=True)
    }
    return {"model": model, "answers": told, "usage": {"input_tokens": input_tokens, "output_tokens": 0}}


def decisions_reply(
    model: str, questions: Sequence[TierQuestion], answers: Sequence[ChoiceAnswer], input_tokens: int
) -> dict[str, Any]:
    """Return the body of a reply of OpenAI's `/v1/decisions`."""
    told = [
        {
            "type": "choice",
            "name": question.name or None,
            "choice": answer.choice,
            "probabilities": [{"value": label, "probability": p} for label, p in answer.probabilities.items()],
            "confidence": answer.confidence,
        }
        for question, answer in zip(questions, answers, strict=True)
    ]
    usage = {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input_tokens,
    }
    return {"model": model, "answers": told, "usage": usage}

"""Decisions for the tests of observers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from router.decision import ArtifactRef, CandidateRisk, Reason, RoutingDecision, Timings


def decision_of(policy: str = "p", digest: str = "d", **changes: Any) -> RoutingDecision:
    """Return a decision for the candidate `small`; keyword arguments replace fields."""
    models = {"small": "openai/small", "large": "bedrock/large-1"}
    decision = RoutingDecision(
        decision_id="id",
        requested=policy,
        chosen="small",
        chosen_model=models["small"],
        reason=Reason.PINNED,
        difficulty=None,
        candidates=tuple(CandidateRisk(name, model, None, None, None) for name, model in models.items()),
        threshold=None,
        gain=None,
        policy=ArtifactRef(policy, "1", digest),
        probe=None,
        abstained=False,
        leverage=None,
        timings=Timings(total_s=0.001),
        session_id="",
        input_tokens_estimate=1,
    )
    return replace(decision, **changes)

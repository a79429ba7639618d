"""Decisions for the tests of drift."""

from __future__ import annotations

from dataclasses import replace

from router.decision import ArtifactRef, CandidateRisk, NearKind, NearKinds, Reason, RoutingDecision, Timings

_PLAIN = RoutingDecision(
    decision_id="",
    requested="p",
    chosen="small",
    chosen_model="openai/small",
    reason=Reason.GAIN_BELOW_THRESHOLD,
    difficulty=0.3,
    candidates=(),
    threshold=0.1,
    gain=0.05,
    policy=ArtifactRef("p", "1", "d"),
    probe=ArtifactRef("probe", "1", "digest"),
    abstained=False,
    leverage=0.02,
    timings=Timings(),
    session_id="",
    input_tokens_estimate=100,
    language="en",
)


def decision(kind: str = "greeting", risks: tuple[float, float] = (0.3, 0.1), **changes: object) -> RoutingDecision:
    """Return a decision between `small` and `large`, whose prompt is nearest to this kind."""
    rows = tuple(
        CandidateRisk(name, f"openai/{name}", risk, risk, None)
        for name, risk in zip(("small", "large"), risks, strict=True)
    )
    made = {"candidates": rows, "kinds": NearKinds((NearKind(kind, 0.9),), known=True)}
    return replace(_PLAIN, **(made | changes))  # type: ignore[arg-type]

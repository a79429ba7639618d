"""Say in words why a decision chose its candidate, with the numbers that it compared."""

from __future__ import annotations

from router.decision import RoutingDecision


def describe_reason(decision: RoutingDecision) -> str:
    """Return the reason of a decision in words, with its numbers: "gain above threshold: +0.310 > 0.120"."""
    words = decision.reason.value.lower().replace("_", " ")
    if decision.abstained:
        if decision.score is not None:
            return f"{words}: score {decision.score.name!r} {decision.score.fault}"
        # A prompt that was judged has a leverage; without one there was no text to judge.
        return f"{words}: " + ("unlike what the probe knows" if decision.leverage is not None else "nothing to judge")
    if decision.gain is not None and decision.threshold is not None:
        sign = ">" if decision.gain > decision.threshold else "<="
        return f"{words}: {decision.gain:+.3f} {sign} {decision.threshold:.3f}"
    return f"{words} {decision.threshold:.3f}" if decision.threshold is not None else words

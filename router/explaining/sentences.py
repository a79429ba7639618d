"""Say in a sentence of plain English why a decision was made; it follows from nothing but the record."""

from __future__ import annotations

from router.decision import Reason, RoutingDecision
from router.explaining.parts import Explanation, compared

#: A gain of at most this part of its threshold is well within the cheaper tier.
_WELL_WITHIN = 0.5

#: A prompt is clearly of its nearest kind if that has at least this share.
_CLEAR = 0.5

_BY_GAIN = (Reason.GAIN_BELOW_THRESHOLD, Reason.GAIN_ABOVE_THRESHOLD)

_NOT_BETTER = "not expected to be better"


def plain_reason(decision: RoutingDecision) -> str:
    """Return why the candidate was chosen, after the nearest kind of the prompt if one is known.

    For example: "Greeting or small talk (84 %), well within the economy tier: standard is expected to be better by
    0.013, and must be by 0.102."
    """
    return _joined(decision, _kind(decision, with_share=True), _by_gain(decision)[1] or _reason(decision))


def short_reason(decision: RoutingDecision) -> str:
    """Return the reason without shares and gains, as in "Greeting or small talk, well within the economy tier."."""
    return _joined(decision, _kind(decision, with_share=False), _by_gain(decision)[0] or _reason(decision))


def why_no_parts(explanation: Explanation) -> str:
    """Return why a decision has no parts, or an empty text if it has."""
    if explanation.parts:
        return ""
    if explanation.decision.score is not None:
        return "The policy decides by a score that the request carries, which has no parts."
    if not explanation.knows_kinds:
        return (
            "The probe of this policy knows no kinds of request, so its losses are not split. `elle fit` learns kinds "
            "from a column group."
        )
    return "The prompt was not judged, so there are no losses to split."


def _joined(decision: RoutingDecision, kind: str, reason: str) -> str:
    # ", well within the economy tier" goes on; every other reason begins anew.
    between = ": " if kind and not reason.startswith(", ") else ""
    text = f"{kind}{between}{reason}.".removeprefix(", ")
    # A name stays as it is written: gpt-5 is not Gpt-5.
    named = text.startswith(tuple(one.candidate for one in decision.candidates))
    return text if named else text[:1].upper() + text[1:]


def _kind(decision: RoutingDecision, *, with_share: bool) -> str:
    if decision.kinds is None:
        return ""
    if not decision.kinds.known:
        return "of none of the known kinds"
    nearest = decision.kinds.nearest[0]
    like = "" if nearest.share >= _CLEAR else "most like "
    return f"{like}{nearest.name}{f' ({100 * nearest.share:.0f} %)' if with_share else ''}"


def _reason(decision: RoutingDecision) -> str:
    chosen, reason = decision.chosen, decision.reason
    if reason in _BY_GAIN:
        return f"the rule of the policy chose {chosen}"
    if reason in {Reason.WITHIN_RISK_BOUND, Reason.NONE_WITHIN_RISK_BOUND}:
        return _by_bound(decision)
    if reason is Reason.ONLY_ELIGIBLE:
        return f"only {chosen} may answer{_why_not_the_others(decision)}"
    if reason is Reason.ABSTAINED:
        return _abstained(decision)
    return {
        Reason.FIXED: f"the policy always chooses {chosen}",
        Reason.PINNED: f"the request asks for {chosen}",
        Reason.FAILED_OPEN: f"the prompt could not be judged, so that the safe default {chosen} answers",
        Reason.OVER_LIMIT: f"a limit of the caller's token is reached, so that {chosen} answers{_instead(decision)}",
        Reason.EXPLORED: f"the policy explores, so that {chosen} answers{_instead(decision)}",
        Reason.SESSION_HELD: f"{chosen} has answered this session so far, and goes on",
    }.get(reason, "this version does not know the reason that the service gave")


def _instead(decision: RoutingDecision) -> str:
    return f" in place of {decision.would_choose}" if decision.would_choose else ""


def _by_gain(decision: RoutingDecision) -> tuple[str, str]:
    """Return why the gain decided, without and with its numbers; two empty texts if it did not decide."""
    pair, gain, threshold = compared(decision), decision.gain, decision.threshold
    if decision.reason not in _BY_GAIN or pair is None or gain is None or threshold is None:
        return "", ""
    base, stronger = pair
    numbers = f"by {gain:.3f}, and must be by {threshold:.3f}"
    if gain > threshold:
        return f"{stronger} is worth its price", f"{stronger} is expected to be better than {base} {numbers}"
    verdict = f", well within the {base} tier" if gain <= _WELL_WITHIN * threshold else f", {base} is enough"
    return verdict, f"{verdict}: {stronger} is {f'expected to be better {numbers}' if gain > 0 else _NOT_BETTER}"


def _by_bound(decision: RoutingDecision) -> str:
    risk = next((one.risk for one in decision.candidates if one.candidate == decision.chosen), None)
    shown = "" if risk is None else f", {risk:.3f},"
    bound = "" if decision.threshold is None else f" of {decision.threshold:.3f}"
    if decision.reason is Reason.WITHIN_RISK_BOUND:
        return f"{decision.chosen} is the cheapest candidate whose risk{shown} is within the bound{bound}"
    return f"no candidate is within the bound{bound} on the risk; that of {decision.chosen}{shown} is the least"


def _why_not_the_others(decision: RoutingDecision) -> str:
    others = [f"{one.candidate}: {one.ineligible_because[0]}" for one in decision.candidates if one.ineligible_because]
    return f" ({'; '.join(others)})" if others else ""


def _abstained(decision: RoutingDecision) -> str:
    if decision.score is not None:
        unusable = f"the score {decision.score.name!r} cannot be used ({decision.score.fault})"
        return f"{unusable}, so that the safe default {decision.chosen} answers"
    # A prompt that was judged has a leverage; without one there was no text to judge.
    if decision.leverage is None:
        return f"there is no text to judge, so that the safe default {decision.chosen} answers"
    would = f"; the rule would choose {decision.would_choose}" if decision.would_choose else ""
    return f"unlike the prompts of the fit, so that the safe default {decision.chosen} answers{would}"

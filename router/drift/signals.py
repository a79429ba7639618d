"""Say which category a decision has in each signal that is watched for drift (`categories_of`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from router.decision import Reason, RoutingDecision

#: The signals that are watched, with what each one tells.
SIGNALS: Final[Mapping[str, str]] = {
    "judged": "whether the prompt was judged, and whether the router abstained",
    "kind": "the known kind of request that the prompt is nearest to",
    "language": "the language of the newest human turn",
    "input_tokens": "the length of the request, in powers of two",
    "leverage": "how far the prompt lies from what the probe was fitted on, in powers of two",
    "weak_risk": "the risk of the cheapest candidate, in steps of .1",
    "gain": "the gain that the rule compared, in steps of .1",
}

#: The category of a decision that has no value in a signal. Such a decision is left out of the signal's counts.
_NONE: Final = ""


def categories_of(decision: RoutingDecision) -> dict[str, str]:
    """Return the category of a decision in each signal that it has a value in.

    For example `{"judged": "judged", "language": "en", "weak_risk": "0.3"}`. Signals without a value are left out, such
    as the gain of a request that was not judged.
    """
    cheapest = decision.candidates[0].risk if decision.candidates else None
    found = {
        "judged": _judged(decision),
        "kind": _kind(decision),
        "language": decision.language,
        "input_tokens": _power_of_two(decision.input_tokens_estimate),
        "leverage": _NONE if decision.leverage is None else _power_of_two(decision.leverage),
        "weak_risk": _step(cheapest),
        "gain": _step(decision.gain),
    }
    return {signal: category for signal, category in found.items() if category != _NONE}


def _judged(decision: RoutingDecision) -> str:
    if decision.reason is Reason.FAILED_OPEN:
        return "failed_open"
    if decision.abstained:
        return "abstained"
    return "judged" if decision.difficulty is not None else "not_judged"


def _kind(decision: RoutingDecision) -> str:
    kinds = decision.kinds
    if kinds is None or not kinds.nearest:
        return _NONE
    return kinds.nearest[0].name if kinds.known else "no known kind"


def _step(value: float | None) -> str:
    return _NONE if value is None else f"{math.floor(value * 10) / 10:.1f}"


def _power_of_two(value: float) -> str:
    return "2^-inf" if value <= 0 else f"2^{math.floor(math.log2(value))}"

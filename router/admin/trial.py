"""Try one prompt for the operator: decide it without asking anybody or counting it, and explain the decision."""

from __future__ import annotations

import json
from typing import Any

from probes.errors import ProbesError
from router.asking import ask as asking
from router.deciding.pipeline import Router
from router.errors import InvalidRequestError, RouterError
from router.explaining.parts import Explanation, explain
from router.explaining.sentences import plain_reason, why_no_parts
from router.observing.metrics import SHORT_DIGEST
from router.values import Overrides, RouteQuery

#: Most characters of a prompt that is tried.
MOST_CHARACTERS = 32_768

#: Kinds of a smaller share are left out: they add nothing that three decimals would show.
_LEAST_SHARE = 0.0005


def try_prompt(router: Router, request: bytes) -> bytes:
    """Return the explained decision of a prompt as JSON, or `{"error": ...}`.

    request: JSON with the keys `prompt` and `policy`; an empty policy is the default.
    """
    try:
        asked = json.loads(request)
        answer = _explained(router, str(asked["prompt"]), str(asked["policy"]))
    except (RouterError, ProbesError) as error:
        answer = {"error": str(error)}
    return json.dumps(answer).encode()


def _explained(router: Router, prompt: str, policy: str) -> dict[str, Any]:
    if len(prompt) > MOST_CHARACTERS:
        raise InvalidRequestError(f"the prompt must have at most {MOST_CHARACTERS:,} characters, got {len(prompt):,}.")
    query = RouteQuery.from_prompt(prompt, overrides=Overrides(policy=policy or None))
    served, decision = router.policy(policy), router.decide(query, observed=False)
    explanation = explain(decision, served)
    return {
        "chosen": decision.chosen,
        "model": decision.chosen_model,
        "reason": plain_reason(decision),
        "reason_code": decision.reason.value,
        "policy": {"name": decision.policy.name, "version": decision.policy.digest[:SHORT_DIGEST]},
        "probe": None if decision.probe is None else f"{decision.probe.name} {decision.probe.digest[:SHORT_DIGEST]}",
        "judged": {
            "text": asking.extract(query, max_bytes=router.max_prompt_bytes).text,
            "tokens": decision.input_tokens_estimate,
            "language": decision.language,
            "has_code": decision.has_code,
            "needs": list(decision.needs),
            "leverage": decision.leverage,
            "was": decision.difficulty is not None,
        },
        "gain": decision.gain,
        "threshold": decision.threshold,
        "compared": explanation.compared,
        "note": why_no_parts(explanation),
        "parts": _parts(explanation),
        "kinds": None if decision.kinds is None else [[one.name, one.share] for one in decision.kinds.nearest],
        "known_kind": decision.kinds is not None and decision.kinds.known,
        "candidates": [
            {
                "name": one.candidate,
                "model": one.model,
                "risk": one.risk,
                "cost_usd": one.expected_cost_usd,
                "not_because": list(one.ineligible_because),
            }
            for one in decision.candidates
        ],
        "milliseconds": 1e3 * decision.timings.total_s,
    }


def _parts(explanation: Explanation) -> list[dict[str, Any]]:
    return [
        {"what": part.what, "share": part.share, "assumed": part.assumed, "risk": dict(part.risk), "gain": part.gain}
        for part in explanation.parts
        if part.share is None or part.share >= _LEAST_SHARE
    ]

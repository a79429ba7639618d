"""Run LiteLLM's own offline routers: the `heuristic` and `heuristic_v2` classifiers of its complexity router.

This calls `ComplexityRouter(complexity_router_config={"classifier_type": ...}).aclassify(prompt)` of the installed
LiteLLM, which is the classification inside its `async_pre_routing_hook`. The hook around it also picks a deployment and
imports `litellm.proxy`, which an SDK-only install lacks. Neither changes the classification of a single prompt.
LiteLLM is imported only when a function is called.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from probes.errors import DataError

FloatArray = npt.NDArray[np.float64]

Kind = Literal["heuristic", "heuristic_v2"]

# The models of the tiers. The classifier needs their names and calls none of them.
_TIERS = {"SIMPLE": "weak", "MEDIUM": "strong", "COMPLEX": "strong", "REASONING": "strong"}


class LiteLLMMissingError(DataError):
    """LiteLLM is not installed, or its complexity router is not the one this file knows."""


def litellm_difficulty(kind: Kind, texts: Sequence[str]) -> FloatArray:
    """Return how hard LiteLLM finds each text, (n,); a text of larger difficulty goes to the strong model first.

    `heuristic`: its weighted score, which it cuts into tiers. If its override for reasoning markers sends a text to the
    top tier whatever the score, that text comes before all others. `heuristic_v2`: one minus its predicted probability
    that the SIMPLE tier succeeds, which it compares with `heuristic_v2_success_threshold`. A threshold on either number
    is therefore LiteLLM's own setting.

    Raises LiteLLMMissingError.
    """
    # By default LiteLLM fetches a price table from the network when it is imported.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        from litellm.router_strategy.complexity_router.complexity_router import ComplexityRouter
    except ImportError as error:
        raise LiteLLMMissingError(f"LiteLLM with a complexity router must be installed: {error}.") from error
    # The second argument has another name since LiteLLM 1.110; it is the Router that owns the classifier.
    router = ComplexityRouter(
        "baseline",
        None,
        complexity_router_config={"tiers": _TIERS, "classifier_type": kind},
        default_model="weak",
    )

    async def classify() -> list[float]:
        return [_difficulty(await router.aclassify(text)) for text in texts]

    return np.array(asyncio.run(classify()))


def _difficulty(outcome: Any) -> float:
    forecast = outcome.heuristic_v2_forecast
    if forecast is not None:
        return 1.0 - float(forecast["probabilities"]["SIMPLE"])
    # Scores are sums of small weights, far below this number.
    return float(outcome.score) + (1e3 if outcome.cause == "reasoning_override" else 0.0)

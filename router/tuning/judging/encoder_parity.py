"""Compare two precisions of one encoder by how well probes on their features route, prompt by prompt."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from probes.grouping import group_numbers
from probes.measures.bootstrap import Interval
from router.tuning.fitting.recipe import FOLDS
from router.tuning.judging.cross_validation import probe_risk, split_folds
from router.tuning.judging.ranking import RouterScores, Truth, measure
from router.tuning.outcomes.datasets import Outcomes

FloatArray = npt.NDArray[np.float64]

#: Strong shares at which decisions are compared.
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

#: The calibration error may exceed the reference's by this much, which is less than 1,000 prompts can show.
ECE_TOLERANCE = 0.005


@dataclass(frozen=True)
class RoutingParity:
    """Holds figures of two precisions of one encoder on prompts left out, each with a probe fitted on its features.

    Attributes:
        n_prompts: prompts that were compared.
        apgr, reference_apgr: share of the gap recovered, random 0.5.
        reference_ahead: by how much the reference's APGR is larger, paired over prompts.
        ece, reference_ece: calibration error of the weak model's risk.
        agreement: share of prompts that both send to the same model, averaged over `SHARES` of strong calls.
    """

    n_prompts: int
    apgr: Interval
    reference_apgr: Interval
    reference_ahead: Interval
    ece: float
    reference_ece: float
    agreement: float

    @property
    def passed(self) -> bool:
        """True if APGR is not below the reference's interval and calibration is no worse than ECE_TOLERANCE allows."""
        low, high = self.reference_apgr.low, self.reference_apgr.high
        return self.apgr.value >= low and high >= low and self.ece <= self.reference_ece + ECE_TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "passed": self.passed}


def routing_parity(
    outcomes: Outcomes,
    served: npt.NDArray[np.float32],
    reference: npt.NDArray[np.float32],
    *,
    weak: str,
    strong: str,
    seed: int = 0,
) -> RoutingParity:
    """Compare features (n, d) of two precisions by 5-fold cross-validation of `elle fit`'s recipe, split by text.

    Raises DataError if the strong model is not the better one on these prompts.
    """
    pair = outcomes.select_models((weak, strong))
    fold = split_folds(pair, FOLDS, "random", seed)
    routers = {}
    for name, features in (("served", served), ("reference", reference)):
        risk = probe_risk(pair, features, fold, seed)
        routers[name] = RouterScores(risk[:, 0] - risk[:, 1], risk[:, 0])
    truth = Truth(pair.scores, group_numbers(pair.texts))
    found = measure(routers, truth, reference="reference", seed=seed)
    if not all("apgr" in ranking.figures for ranking in found.values()):
        raise DataError(f"parity needs prompts on which {strong} is better than {weak}; choose another pair.")
    return RoutingParity(
        n_prompts=len(pair),
        apgr=found["served"].apgr,
        reference_apgr=found["reference"].apgr,
        reference_ahead=found["served"].ahead["apgr"],
        ece=found["served"].figures["ece"].value,
        reference_ece=found["reference"].figures["ece"].value,
        agreement=agreement(routers["served"].gain, routers["reference"].gain),
    )


def agreement(ours: FloatArray, theirs: FloatArray) -> float:
    """Return the share of prompts that two rankings by gain, (n,) each, decide alike, averaged over `SHARES`."""
    alike = [np.mean((ours > np.quantile(ours, 1 - s)) == (theirs > np.quantile(theirs, 1 - s))) for s in SHARES]
    return float(np.mean(alike))

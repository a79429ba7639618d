"""Define the targets that a policy can be tuned to, and compute the losses whose mean each target bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from probes.certificates.bounds import BoundMethod, MeanBound
from probes.certificates.human_grades import GradedLosses
from probes.errors import DataError
from router.policies.certificate_record import TargetKind
from router.tuning.certifying.rule_paths import ChoiceMatrix
from router.tuning.outcomes.datasets import FloatArray

_RANGES = {"max_loss": (0.0, 1.0), "min_quality": (0.0, 1.0), "max_strong_share": (0.0, 1.0)}


@dataclass(frozen=True, slots=True)
class Target:
    """A limit on a mean that a policy must keep: the quality lost, the share of strong calls, or the cost.

    limit: quality lost or kept, 0 to 1; share of the prompts that the reference answers, 0 to 1; or USD per 1,000
    requests.
    """

    kind: TargetKind
    limit: float

    def __post_init__(self) -> None:
        low, high = _RANGES.get(self.kind, (0.0, np.inf))
        if not low < self.limit < high:
            wanted = f"lie strictly between {low:g} and {high:g}" if np.isfinite(high) else f"be a number above {low:g}"
            raise DataError(f"{self.kind} must {wanted}, got {self.limit}.")

    @property
    def on_spending(self) -> bool:
        """True if the target limits what is spent, and False if it limits the quality that is lost."""
        return self.kind in ("max_strong_share", "max_cost_usd_per_1k")

    def __str__(self) -> str:
        return {
            "max_loss": f"quality loss at most {self.limit:g}",
            "min_quality": f"quality at least {self.limit:g}",
            "max_strong_share": f"share of reference calls at most {self.limit:g}",
            "max_cost_usd_per_1k": f"cost at most {self.limit:g} USD per 1,000 requests",
        }[self.kind]


@dataclass(frozen=True)
class LossData:
    """Holds the outcomes of n calibration prompts and m candidates, from which the losses of any policy follow.

    Attributes:
        scores: (n, m), 0 to 1.
        paid_usd: (n, m) cost of each answer, NaN if it is unknown.
        reference: the column that losses are measured against.
        graded: whether scores between 0 and 1 are expected; decided before these scores are looked at.
        ceiling_usd: the most that one request can cost; None if nothing says so.
        human: (n, m) what people say, 0 to 1, NaN in the rows that no person graded whole; None if the targets are
            about `scores`.
    """

    scores: FloatArray
    paid_usd: FloatArray
    reference: int
    graded: bool
    ceiling_usd: float | None
    human: FloatArray | None = None

    def quality_drop(self, chosen: ChoiceMatrix) -> FloatArray | GradedLosses:
        """Return the quality that the chosen candidates (p, n) lose against the reference, (p, n) in [-1, 1]."""
        return self._of_scores(lambda scores: scores[:, self.reference] - _pick(scores, chosen))

    def quality_missing(self, chosen: ChoiceMatrix) -> FloatArray | GradedLosses:
        """Return 1 - score of the chosen candidates (p, n), (p, n) in [0, 1]."""
        return self._of_scores(lambda scores: 1.0 - _pick(scores, chosen))

    def _of_scores(self, losses: Callable[[FloatArray], FloatArray]) -> FloatArray | GradedLosses:
        if self.human is None:
            return losses(self.scores)
        return GradedLosses(losses(self.human), losses(self.scores))

    @property
    def reference_quality(self) -> float:
        """The mean score of the reference, or its estimate if only some rows have human grades."""
        always = np.full((1, len(self.scores)), self.reference, dtype=np.int16)
        return 1.0 - float(self.quality_missing(always).mean(axis=1)[0])

    def cost(self, chosen: ChoiceMatrix) -> FloatArray:
        """Return the USD paid for the answers of the chosen candidates (p, n), (p, n)."""
        return _pick(self.paid_usd, chosen)


@dataclass(frozen=True)
class Losses:
    """Expresses a target as losses: the mean of each row of `matrix` (p, n), one per policy, may not exceed `limit`.

    bound: the bound on the mean by which the null hypothesis "the mean exceeds the limit" is tested.
    """

    matrix: FloatArray | GradedLosses
    limit: float
    bound: MeanBound

    def mean(self, policy: int) -> float:
        """Return the mean loss of one policy, or its estimate if people graded only some rows."""
        return float(self.matrix[policy : policy + 1].mean(axis=1)[0])


def losses_of(target: Target, chosen: ChoiceMatrix, data: LossData) -> Losses:
    """Return the losses of a target if the candidates in `chosen` (p, n) answer.

    Raises DataError for a target on cost if a cost is unknown or above the ceiling.
    """
    if target.kind == "max_loss":
        sharp: BoundMethod = "betting" if data.graded else "ternary"
        bound = MeanBound(sharp if data.human is None else "rectified")
        return Losses(data.quality_drop(chosen), target.limit, bound)
    if target.kind == "min_quality":
        exact: BoundMethod = "betting" if data.graded else "binomial"
        bound = MeanBound(exact if data.human is None else "rectified", 0.0, 1.0)
        return Losses(data.quality_missing(chosen), 1.0 - target.limit, bound)
    if target.kind == "max_strong_share":
        strong = (chosen == data.reference).astype(np.float64)
        return Losses(strong, target.limit, MeanBound("binomial", 0.0, 1.0))
    return _cost_losses(target, chosen, data)


def _cost_losses(target: Target, chosen: ChoiceMatrix, data: LossData) -> Losses:
    if not np.isfinite(data.paid_usd).all() or data.ceiling_usd is None:
        raise DataError(
            "a target on cost needs the price of every candidate; give `--prices FILE.yaml`, or a cost_usd for every "
            "row of the data together with `--max-request-usd`."
        )
    highest = float(data.paid_usd.max())
    if highest > data.ceiling_usd:
        raise DataError(
            f"no request may cost more than --max-request-usd, {data.ceiling_usd:g}; one of the data costs "
            f"{highest:g}. Raise it: the certificate holds only for traffic without more expensive requests."
        )
    return Losses(data.cost(chosen), target.limit / 1000, MeanBound("betting", 0.0, data.ceiling_usd))


def _pick(values: FloatArray, chosen: ChoiceMatrix) -> FloatArray:
    return np.asarray(values[np.arange(values.shape[0]), chosen])

"""What can be asked of a policy, and which stretch of a path provably keeps it.

Targets on quality (`max_loss`, `min_quality`) are walked from the safest policy towards the cheapest, targets on
spending (`max_strong_share`, `max_cost_usd_per_1k`) from the cheapest towards the safest, each by fixed-sequence
testing (`fixed_sequence`) at an equal share of delta. All policies a walk has passed are certified together, so a
policy that lies on every target's stretch meets all of them with confidence 1 - delta.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.certificates.bounds import BoundMethod, MeanBound, upper_bound
from probes.certificates.fixed_sequence import Certificate, NotCertified, certify_path
from probes.certificates.label_planning import labels_needed
from probes.errors import DataError
from router.policies.certificate_record import TargetKind
from router.tuning.certifying.rule_paths import Choices, FloatArray

_RANGES = {"max_loss": (0.0, 1.0), "min_quality": (0.0, 1.0), "max_strong_share": (0.0, 1.0)}


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on a mean: quality lost or kept (0 to 1), share of calls (0 to 1), or USD per 1,000 requests."""

    kind: TargetKind
    limit: float

    def __post_init__(self) -> None:
        low, high = _RANGES.get(self.kind, (0.0, np.inf))
        if not low < self.limit < high:
            raise DataError(f"{self.kind} must lie strictly between {low:g} and {high:g}, got {self.limit}.")

    @property
    def on_spending(self) -> bool:
        """Whether it bounds what is spent, rather than what is lost."""
        return self.kind in ("max_strong_share", "max_cost_usd_per_1k")

    def __str__(self) -> str:
        return {
            "max_loss": f"quality loss at most {self.limit:g}",
            "min_quality": f"quality at least {self.limit:g}",
            "max_strong_share": f"share of reference calls at most {self.limit:g}",
            "max_cost_usd_per_1k": f"cost at most ${self.limit:g} per 1,000 requests",
        }[self.kind]


@dataclass(frozen=True)
class Facts:
    """What is known of n calibration prompts and m candidates.

    scores: (n, m), 0 to 1. paid_usd: (n, m), NaN where unknown. reference: column that losses are measured against.
    graded: whether scores between 0 and 1 are expected; decided before these scores are looked at. ceiling_usd: no
    request costs more; None where nothing says so.
    """

    scores: FloatArray
    paid_usd: FloatArray
    reference: int
    graded: bool
    ceiling_usd: float | None

    def drop(self, chosen: Choices) -> FloatArray:
        """Quality lost against the reference by policies (p, n) of candidate numbers, (p, n) in [-1, 1]."""
        return np.asarray(self.scores[:, self.reference] - _pick(self.scores, chosen))

    def cost(self, chosen: Choices) -> FloatArray:
        """USD paid under policies (p, n), (p, n)."""
        return _pick(self.paid_usd, chosen)


@dataclass(frozen=True)
class Losses:
    """A target as a matrix of losses (p, n) whose row means must stay within `limit`, and the bound that tests them."""

    matrix: FloatArray
    limit: float
    bound: MeanBound


def losses_of(target: Target, chosen: Choices, facts: Facts) -> Losses:
    """The losses of a target under policies (p, n). Raises DataError where costs are unknown or above the ceiling."""
    sharp: BoundMethod = "betting" if facts.graded else "ternary"
    if target.kind == "max_loss":
        return Losses(facts.drop(chosen), target.limit, MeanBound(sharp))
    if target.kind == "min_quality":
        exact: BoundMethod = "betting" if facts.graded else "binomial"
        return Losses(1.0 - _pick(facts.scores, chosen), 1.0 - target.limit, MeanBound(exact, 0.0, 1.0))
    if target.kind == "max_strong_share":
        strong = (chosen == facts.reference).astype(np.float64)
        return Losses(strong, target.limit, MeanBound("binomial", 0.0, 1.0))
    return _cost_losses(target, chosen, facts)


def _cost_losses(target: Target, chosen: Choices, facts: Facts) -> Losses:
    if not np.isfinite(facts.paid_usd).all() or facts.ceiling_usd is None:
        raise DataError(
            "a target on cost needs the price of every candidate; give `--prices FILE.yaml`, or a cost_usd for every "
            "row of the data together with `--max-request-usd`."
        )
    dearest = float(facts.paid_usd.max())
    if dearest > facts.ceiling_usd:
        raise DataError(
            f"no request may cost more than --max-request-usd, {facts.ceiling_usd:g}; one of the data costs "
            f"{dearest:g}. Raise it: the certificate holds for traffic without dearer requests."
        )
    return Losses(facts.cost(chosen), target.limit / 1000, MeanBound("betting", 0.0, facts.ceiling_usd))


def _pick(values: FloatArray, chosen: Choices) -> FloatArray:
    return np.asarray(values[np.arange(values.shape[0]), chosen])


@dataclass(frozen=True)
class Stretch:
    """The policies `first` to `last` of a path (rows of the matrix tested) that keep one target, if any do.

    `answer` is about the policy at the end of the walk, or the safest one for this target if none is certified.
    """

    target: Target
    losses: Losses
    answer: Certificate | NotCertified

    @property
    def certified(self) -> bool:
        """Whether some policy keeps the target."""
        return isinstance(self.answer, Certificate)

    @property
    def first(self) -> int:
        """First policy that keeps it; beyond the last one if none does."""
        if not isinstance(self.answer, Certificate):
            return len(self.losses.matrix)
        return len(self.losses.matrix) - 1 - self.answer.index if self.target.on_spending else 0

    @property
    def last(self) -> int:
        """Last policy that keeps it; -1 if none does."""
        if not isinstance(self.answer, Certificate):
            return -1
        return len(self.losses.matrix) - 1 if self.target.on_spending else self.answer.index

    def estimate(self, policy: int) -> float:
        """Mean loss of one policy."""
        return float(self.losses.matrix[policy].mean())

    def bound(self, policy: int) -> float:
        """Confidence bound of one policy by itself, at this target's share of delta."""
        x = self.losses
        return float(upper_bound(x.matrix[policy], self.answer.delta, x.bound)[0])

    def labels_for(self, policy: int) -> int | None:
        """Calibration prompts with which this policy would probably be certified; None where no number is known."""
        x = self.losses
        return labels_needed(x.matrix[policy], x.limit, self.answer.delta, x.bound, max_labels=50_000)


@dataclass(frozen=True)
class Verdict:
    """Which policy to take for targets that must all hold; `policy` is None if no policy keeps them together."""

    stretches: tuple[Stretch, ...]
    policy: int | None

    @property
    def more_labels(self) -> int | None:
        """Labels to add, about, for these targets to be certified; None where no number is known to be enough."""
        failed = [s.answer.more_labels for s in self.stretches if isinstance(s.answer, NotCertified)]
        if failed:
            return None if None in failed else max(number for number in failed if number is not None)
        # Each by itself holds somewhere, together nowhere: what would the ends of the stretches need?
        ends = {end for s in self.stretches for end in (s.first if s.target.on_spending else s.last,)}
        needs = [self._labels_at(end) for end in ends]
        known = [number for number in needs if number is not None]
        n = self.stretches[0].answer.n
        return max(min(known) - n, 1) if known else None

    def _labels_at(self, policy: int) -> int | None:
        needs = [s.labels_for(policy) for s in self.stretches if not s.first <= policy <= s.last]
        return None if None in needs else max((number for number in needs if number is not None), default=None)

    def best_guess(self) -> int:
        """The policy whose means keep all targets, without any proof; the safest if there is none."""
        keeps = np.ones(len(self.stretches[0].losses.matrix), dtype=bool)
        for s in self.stretches:
            keeps &= s.losses.matrix.mean(axis=1) <= s.losses.limit
        found: npt.NDArray[np.intp] = np.flatnonzero(keeps)
        if not found.size:
            return 0
        return int(found[0] if all(s.target.on_spending for s in self.stretches) else found[-1])


def certify_together(targets: Sequence[Target], chosen: Choices, facts: Facts, delta_each: float) -> Verdict:
    """The policy that keeps all targets together, each tested at `delta_each`.

    chosen: (p, n) candidate numbers of a path, safest first. The cheapest such policy where a target is on quality,
    else the safest. Raises DataError as `losses_of`.
    """
    stretches = tuple(_stretch(target, chosen, facts, delta_each) for target in targets)
    first, last = max(s.first for s in stretches), min(s.last for s in stretches)
    if first > last:
        return Verdict(stretches, None)
    return Verdict(stretches, first if all(s.target.on_spending for s in stretches) else last)


def _stretch(target: Target, chosen: Choices, facts: Facts, delta: float) -> Stretch:
    x = losses_of(target, chosen, facts)
    walk = x.matrix[::-1] if target.on_spending else x.matrix
    return Stretch(target, x, certify_path(walk, x.limit, delta, x.bound))

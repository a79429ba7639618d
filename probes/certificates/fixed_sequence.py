"""Find the cheapest policy of a path whose mean loss provably stays within a limit (Learn-then-Test).

The guarantee. Calibration prompts are independent draws of the traffic that the policy will serve, and nothing has
used them before: no fit, and no choice of thresholds, path or bound. Then, whatever the distribution of the losses,
P(a policy is certified whose true mean loss exceeds the limit) <= delta, over the draw of the calibration prompts.

The method is Learn-then-Test with fixed-sequence testing (Angelopoulos, Bates, Candes, Jordan & Lei 2021; the
multiple-testing step is Maurer, Hothorn & Lehmacher 1995). Policies are laid on a path from safest to cheapest before
any calibration loss is seen. Each policy's hypothesis "my mean loss exceeds the limit" is tested in that order at the
full level delta, and testing stops at the first hypothesis that cannot be rejected. A false certificate needs a false
rejection of the first true hypothesis on the path, which has probability at most delta. So the length and fineness of
the path cost nothing, and the dependence between its policies does not matter.

What we do not do, and why:

* We do not reuse the labels of the fit. Out-of-fold losses are not independent across folds, because each label also
  moves the probes of the other folds; so no finite-sample, distribution-free bound holds for them without a price.
  Conditionally valid e-values of K folds can be merged (Hoelder's inequality on their geometric mean) at an effective
  sample of n / K; testing every fold's probe at delta / K costs as much. Cross-validation intervals that do use all n
  (Bayle et al. 2020) are asymptotic and assume stability. Only a split is provable here;
  docs/decisions/0003-certificate.md chooses its ratio by evidence. Cross-fitting is for what needs no proof: the
  penalty, and the thresholds of the path.
* We do not take thresholds from calibration gains. The policies would depend on the calibration sample; quantiles of
  out-of-fold gains of the fit split take their place.
* We do not split the level over the policies (Bonferroni, fallback). On a path whose loss grows with saving,
  fixed-sequence testing at the full level dominates. Several targets or groups do split it.

Every draw of the traffic is one column. Equal texts keep columns of their own: otherwise a prompt that is asked often
would weigh as little as one that is asked once. Average only several labels of one draw before you call.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes._checks import Float64
from probes.certificates.bounds import (
    TERNARY,
    BoundMethod,
    MeanBound,
    check_delta,
    excludes,
    loss_sample,
    upper_bound,
)
from probes.certificates.human_grades import GradedLosses
from probes.certificates.label_planning import labels_needed
from probes.errors import DataError
from probes.grouping import rows_by_label

_BLOCK_CELLS = 2**20  # losses tested at once, so that testing ends soon after the first failure


@dataclass(frozen=True, slots=True, kw_only=True)
class PathAnswer:
    """Holds figures of one policy of a path after testing; `Certificate` and `NotCertified` say which policy it is.

    limit, delta: what was asked for. method: of the bound. n: calibration prompts; with `GradedLosses`, those that
    people graded. estimate: mean calibration loss. upper_bound: confidence bound of that mean as if this had been the
    only policy tested.
    """

    limit: float
    delta: float
    method: BoundMethod
    n: int
    estimate: float
    upper_bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate(PathAnswer):
    """Policy `index` of the path has a mean loss of at most `limit`, at confidence 1 - delta.

    index: place on the path, 0 the safest. `upper_bound` is never above `limit`. It describes the policy; the figure
    that is certified is `limit`.
    """

    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotCertified(PathAnswer):
    """No policy of the path can be certified with these labels; all figures are of its safest policy.

    labels_needed: calibration prompts with which that policy would be certified 4 times in 5, if its losses are spread
    as observed; None if its mean loss is not below the limit, or if 100,000 would not be enough.
    """

    labels_needed: int | None

    @property
    def more_labels(self) -> int | None:
        """How many labels to add to the `n` at hand, or None if no number is known to be enough."""
        return None if self.labels_needed is None else max(self.labels_needed - self.n, 1)


def certify_path(
    losses: npt.ArrayLike | GradedLosses, limit: float, delta: float = 0.05, bound: MeanBound = TERNARY
) -> Certificate | NotCertified:
    """Certify the last policy before the first that cannot be shown to keep its mean loss within `limit`.

    losses: (p, n) in the bound's range; row j is policy j of a path fixed beforehand, safest first; column i is one
    calibration prompt. Any target that is a mean fits: the quality lost against a reference, in [-1, 1]; 1 - quality,
    in [0, 1] with limit 1 - Q; whether the strong model answers, 0 or 1, with `MeanBound("binomial", 0, 1)`; the cost
    per request with `MeanBound("betting", 0, highest possible cost)`. With `GradedLosses` and the rectified method it
    is the mean human loss. Choose the bound, like the path, without looking at these losses (`bounds.choose_method`).

    Raises DataError for losses outside the range, NaN, an empty matrix, or delta outside (0, 1).
    """
    sample = loss_sample(losses, bound)
    check_delta(delta)
    passed = _count_passed(sample, limit, delta, bound)
    shown = sample[max(passed - 1, 0) : max(passed, 1)]
    n = int(sample.graded.sum()) if isinstance(sample, GradedLosses) else sample.shape[1]
    estimate = float(shown.mean(axis=1)[0])
    upper = float(upper_bound(shown, delta, bound)[0])
    if passed:
        return Certificate(
            index=passed - 1,
            limit=float(limit),
            delta=delta,
            method=bound.method,
            n=n,
            estimate=estimate,
            upper_bound=min(upper, float(limit)),
        )
    return NotCertified(
        limit=float(limit),
        delta=delta,
        method=bound.method,
        n=n,
        estimate=estimate,
        upper_bound=upper,
        labels_needed=labels_needed(shown, limit, delta, bound),
    )


def certify_groups(
    losses: npt.ArrayLike | GradedLosses,
    groups: Sequence[Hashable],
    limit: float,
    delta: float = 0.05,
    bound: MeanBound = TERNARY,
    *,
    simultaneous: bool = False,
) -> dict[Hashable, Certificate | NotCertified]:
    """Certify one policy per group (Mondrian): the mean loss *within* the group is within the limit.

    losses: (p, n). groups: (n,) labels known before routing. Each group is certified from its own prompts. By default
    every certificate holds with confidence 1 - delta by itself; with `simultaneous` all of them hold together, at
    delta / number of groups each (Bonferroni). Raises DataError as `certify_path`.
    """
    sample = loss_sample(losses, bound)
    if len(groups) != sample.shape[1]:
        raise DataError(
            f"groups must have one label per prompt, {sample.shape[1]}; got {len(groups)}. Align them first."
        )
    members = rows_by_label(groups)
    share = check_delta(delta) / (len(members) if simultaneous else 1)
    return {label: certify_path(_columns(sample, own), limit, share, bound) for label, own in members.items()}


def _columns(sample: Float64 | GradedLosses, chosen: list[int]) -> Float64 | GradedLosses:
    return sample.columns(np.array(chosen)) if isinstance(sample, GradedLosses) else sample[:, chosen]


def _count_passed(sample: Float64 | GradedLosses, limit: float, delta: float, bound: MeanBound) -> int:
    """Return how many policies of the path pass the test before the first that fails."""
    step = max(1, _BLOCK_CELLS // sample.shape[1])
    for start in range(0, len(sample), step):
        passed = excludes(sample[start : start + step], limit, delta, bound)
        if not passed.all():
            return start + int(np.argmin(passed))
    return len(sample)

"""Certificates by Learn-then-Test: the cheapest policy of a path whose mean loss is provably in bounds.

The guarantee. Calibration prompts are independent draws of the traffic the policy will serve, and were used
for nothing before: not for fitting, not for choosing thresholds, path or bound. Then, whatever the law of the
losses, P(a policy is certified whose true mean loss exceeds the limit) <= delta, over the draw of the
calibration prompts.

The method is Learn-then-Test with fixed-sequence testing (Angelopoulos, Bates, Candes, Jordan & Lei 2021; the
multiple-testing step is Maurer, Hothorn & Lehmacher 1995). Policies are laid on a path from safest to
cheapest before any calibration loss is seen. Walking the path, each policy's hypothesis "my mean loss exceeds
the limit" is tested at the full level delta, and the walk stops at the first one that cannot be rejected. A
false certificate needs a false rejection of the first true hypothesis on the path, which has probability at
most delta; so the length and fineness of the path cost nothing, and the dependence between its policies does
not matter.

What is not done, and why:

* Reusing fit labels. Out-of-fold losses are not independent across folds (each label also moves the
  probes of the other folds), so no finite-sample distribution-free bound holds for them without a price.
  Conditionally valid e-values of K folds can be merged (Hoelder's inequality on their geometric mean) at
  an effective sample of n / K; testing every fold's probe at delta / K costs as much. Cross-validation
  intervals that do use all n (Bayle et al. 2020) are asymptotic and assume stability. Only a split is
  provable here; docs/decisions/0003-certificate.md chooses its ratio by evidence. Cross-fitting is for
  what needs no proof: the penalty, and the thresholds of the path.
* Thresholds taken from calibration gains. They would make the policies depend on the calibration sample;
  take quantiles of out-of-fold gains of the fit split instead.
* A level split over the policies (Bonferroni, fallback): on a path whose loss grows with saving,
  fixed-sequence testing at the full level dominates. Several *targets* or *groups* do split it, see
  below.

Every draw of the traffic is one column. Equal texts stay columns of their own, or a prompt that is asked often
would weigh as little as one that is asked once; only several labels of one draw are averaged before calling.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.certificates.bounds import BoundName, Float64, check_delta, excludes, loss_matrix, upper_bound
from probes.certificates.label_planning import labels_needed
from probes.errors import DataError

_BLOCK_CELLS = 2**20  # losses tested at once, so that the walk stops soon after the first failure


@dataclass(frozen=True, slots=True)
class Certificate:
    """Policy `index` of the path has a mean loss of at most `limit`, at confidence 1 - delta.

    index: into the path, 0 the safest. n: calibration prompts. estimate: mean calibration loss of that
    policy. upper_bound: its own bound, as if it had been the only policy tested; never above `limit`, and to
    be read as a description: the certified figure is `limit`.
    """

    index: int
    limit: float
    delta: float
    bound: BoundName
    n: int
    estimate: float
    upper_bound: float


@dataclass(frozen=True, slots=True)
class ThresholdCertificate:
    """The two-model form: send a prompt to the weak model when its predicted gain is below `threshold`.

    weak_share: the share of calibration prompts it sends there, in [0, 1].
    """

    threshold: float
    weak_share: float
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class NotCertified:
    """No policy of the path can be certified with these labels; all figures are of its safest policy.

    labels_needed: calibration prompts with which that policy would be certified 4 times in 5, if its losses
    are spread as observed; None if its mean loss is not below the limit, or if 100,000 would not do.
    """

    limit: float
    delta: float
    bound: BoundName
    n: int
    estimate: float
    upper_bound: float
    labels_needed: int | None

    @property
    def more_labels(self) -> int | None:
        """Labels to add to the `n` at hand, or None where no number is known to be enough."""
        return None if self.labels_needed is None else max(self.labels_needed - self.n, 1)


def certify_path(
    losses: npt.ArrayLike,
    limit: float,
    delta: float = 0.05,
    *,
    bound: BoundName = "ternary",
    low: float = -1.0,
    high: float = 1.0,
) -> Certificate | NotCertified:
    """Certify the last policy before the first that cannot be shown to keep its mean loss within `limit`.

    losses: (p, n) in [low, high]; row j is policy j of a path fixed beforehand, safest first; column i is one
    calibration prompt. Any target that is a mean fits: quality drop against a reference in [-1, 1]; 1 -
    quality in [0, 1] with limit 1 - Q; sent to the strong model, 0 or 1 ("binomial", low=0); cost per request
    in [0, dearest possible] ("betting", low=0, high=dearest). bound: see `bounds`; choose it, like the
    path, without looking at these losses (`choose_bound`).

    Raises DataError for losses outside [low, high], NaN, an empty matrix, delta outside (0, 1).
    """
    matrix = loss_matrix(losses, low, high)
    check_delta(delta)
    passed = _walk(matrix, limit, delta, bound, low, high)
    shown = matrix[max(passed - 1, 0)]
    n, estimate = matrix.shape[1], float(shown.mean())
    upper = float(upper_bound(shown, delta, bound=bound, low=low, high=high)[0])
    if passed:
        return Certificate(passed - 1, float(limit), delta, bound, n, estimate, min(upper, float(limit)))
    needed = labels_needed(shown, limit, delta, bound=bound, low=low, high=high)
    return NotCertified(float(limit), delta, bound, n, estimate, upper, needed)


def certify_threshold(
    gain: npt.ArrayLike,
    drop_if_weak: npt.ArrayLike,
    thresholds: npt.ArrayLike,
    limit: float,
    delta: float = 0.05,
    *,
    bound: BoundName = "ternary",
) -> ThresholdCertificate | NotCertified:
    """Certify the largest threshold on predicted gain whose mean quality drop is within `limit`.

    gain: (n,) predicted gain of the strong over the weak model. drop_if_weak: (n,) strong score minus weak
    score, in [-1, 1]. thresholds: (p,) ascending, from the fit split (quantiles of out-of-fold gains, say
    200). A prompt goes to the weak model when gain < threshold. The reference is always strong, which never
    drops: NotCertified means that nothing beyond it can be promised.

    Raises DataError as `certify_path`, and for thresholds that do not ascend or lengths that differ.
    """
    grid = np.asarray(thresholds, dtype=np.float64)
    if grid.ndim != 1 or not grid.size or not np.isfinite(grid).all() or (np.diff(grid) < 0).any():
        raise DataError(
            f"thresholds must be finite and ascend, safest first; got {grid.size} of shape {grid.shape}. "
            "Take sorted quantiles of out-of-fold gains of the fit split."
        )
    scores = np.asarray(gain, dtype=np.float64)
    weak = scores[None, :] < grid[:, None]
    answer = certify_path(policy_drops(scores, drop_if_weak, grid), limit, delta, bound=bound)
    if isinstance(answer, NotCertified):
        return answer
    return ThresholdCertificate(float(grid[answer.index]), float(weak[answer.index].mean()), answer)


def policy_drops(gain: npt.ArrayLike, drop_if_weak: npt.ArrayLike, thresholds: npt.ArrayLike) -> Float64:
    """Return (p, n) drops of the threshold policies: `drop_if_weak` where gain < threshold, else exactly 0.

    gain, drop_if_weak: (n,). thresholds: (p,). Raises DataError for gains that are not finite or lengths that
    differ.
    """
    scores, drops = np.asarray(gain, dtype=np.float64), np.asarray(drop_if_weak, dtype=np.float64)
    if scores.ndim != 1 or scores.shape != drops.shape:
        raise DataError(
            f"gain and drop_if_weak must have one entry per prompt each; got shapes {scores.shape} and "
            f"{drops.shape}. Align them by prompt id first."
        )
    if not np.isfinite(scores).all():
        row = int(np.argmin(np.isfinite(scores)))
        raise DataError(f"gain must be finite; prompt {row} has {scores[row]}. Drop or repair that prompt.")
    return np.where(scores[None, :] < np.asarray(thresholds, dtype=np.float64)[:, None], drops[None, :], 0.0)


def certify_targets(
    losses: npt.ArrayLike,
    limits: Sequence[float],
    delta: float = 0.05,
    *,
    bound: BoundName = "ternary",
    low: float = -1.0,
    high: float = 1.0,
) -> dict[float, Certificate | NotCertified]:
    """Certify one policy for each limit so that *all* certificates hold together with confidence 1 - delta.

    Each limit is tested at delta / len(limits) (Bonferroni): the walks of different limits end at different
    policies, so no single fixed sequence serves them all. Raises DataError as `certify_path`, and for no
    limit or a limit given twice.
    """
    if not limits or len(set(limits)) < len(limits):
        raise DataError(f"limits must be one or more different numbers; got {list(limits)}.")
    share = check_delta(delta) / len(limits)
    return {m: certify_path(losses, m, share, bound=bound, low=low, high=high) for m in limits}


def certify_groups(
    losses: npt.ArrayLike,
    groups: Sequence[Hashable],
    limit: float,
    delta: float = 0.05,
    *,
    simultaneous: bool = False,
    bound: BoundName = "ternary",
    low: float = -1.0,
    high: float = 1.0,
) -> dict[Hashable, Certificate | NotCertified]:
    """Certify one policy per group (Mondrian): the mean loss *within* the group is within the limit.

    losses: (p, n). groups: (n,) labels known before routing. Each group is certified from its own prompts. By
    default every certificate holds with confidence 1 - delta by itself; with `simultaneous` all of them
    together do, at delta / number of groups each (Bonferroni). Raises DataError as `certify_path`.
    """
    matrix = loss_matrix(losses, low, high)
    if len(groups) != matrix.shape[1]:
        raise DataError(
            f"groups must have one label per prompt, {matrix.shape[1]}; got {len(groups)}. Align them first."
        )
    members: dict[Hashable, list[int]] = {}
    for column, label in enumerate(groups):
        members.setdefault(label, []).append(column)
    share = check_delta(delta) / (len(members) if simultaneous else 1)
    return {
        label: certify_path(matrix[:, columns], limit, share, bound=bound, low=low, high=high)
        for label, columns in members.items()
    }


def _walk(matrix: Float64, limit: float, delta: float, bound: BoundName, low: float, high: float) -> int:
    """Return how many policies pass before the first that fails."""
    step = max(1, _BLOCK_CELLS // matrix.shape[1])
    for start in range(0, len(matrix), step):
        block = matrix[start : start + step]
        passed = excludes(block, limit, delta, bound=bound, low=low, high=high)
        if not passed.all():
            return start + int(np.argmin(passed))
    return len(matrix)

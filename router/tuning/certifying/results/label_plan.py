"""Estimate from the losses at hand what more labelled calibration prompts would achieve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.certificates.fixed_sequence import Certificate, certify_path
from probes.certificates.human_grades import GradedLosses
from probes.certificates.label_planning import fit_learning_curve, labels_needed
from router.tuning.certifying.rule_paths import ChoiceMatrix
from router.tuning.certifying.targets import Losses
from router.tuning.outcomes.datasets import FloatArray

#: Shares of the traffic, to be kept from the reference, that a plan gives the number of labels for.
PLANNED_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)

#: The parts of the calibration prompts at which the learning curve is measured, and how often each part is drawn.
PARTS, REPEATS = (0.125, 0.25, 0.5, 0.75), 6

#: A plan looks no further than this number of labels.
MAX_LABELS = 50_000


@dataclass(frozen=True)
class LabelsForShare:
    """Says how many labels would certify a policy under which `share` of the traffic does not go to the reference.

    loss_estimate: its mean quality loss on the calibration prompts. labels: in total; None if that loss is not below
    the limit, or if MAX_LABELS are not enough.
    """

    share: float
    loss_estimate: float
    labels: int | None


@dataclass(frozen=True)
class CurvePoint:
    """Says which share of the traffic would be certified not to need the reference with `n` labels.

    low, high: a 95 % interval if the point is projected, None if it is measured.
    """

    n: int
    share: float
    low: float | None
    high: float | None
    projected: bool


@dataclass(frozen=True)
class LabelPlan:
    """Says how many labels a target on quality loss needs for each share of traffic, and gives the learning curve."""

    limit: float
    steps: tuple[LabelsForShare, ...]
    curve: tuple[CurvePoint, ...]


def plan_labels(losses: Losses, chosen: ChoiceMatrix, reference: int, delta: float, *, seed: int = 0) -> LabelPlan:
    """Return the plan for the policies of a path, which choose the candidates `chosen` (p, n) and have these losses."""
    away = (chosen != reference).mean(axis=1)
    steps: list[LabelsForShare] = []
    for share in PLANNED_SHARES:
        if share > away.max():
            break
        row = int(np.argmax(away >= share))
        kept = losses.matrix[row : row + 1]
        needed = labels_needed(kept, losses.limit, delta, losses.bound, max_labels=MAX_LABELS)
        # Fixed-sequence testing certifies a share only after all smaller ones, so it needs at least as many labels.
        if steps and needed is not None:
            before = steps[-1].labels
            needed = None if before is None else max(needed, before)
        steps.append(LabelsForShare(float(away[row]), losses.mean(row), needed))
    return LabelPlan(losses.limit, tuple(steps), _curve(losses, away, delta, np.random.default_rng(seed)))


def _curve(losses: Losses, away: FloatArray, delta: float, rng: np.random.Generator) -> tuple[CurvePoint, ...]:
    n = int(_labelled(losses).size)
    sizes = [max(int(n * part), 1) for part in PARTS]
    measured = np.array(
        [
            [_certified(losses, away, rng.choice(_labelled(losses), size, replace=False), delta) for size in sizes]
            for _ in range(REPEATS)
        ]
    )
    points = [
        CurvePoint(size, float(share), None, None, False) for size, share in zip(sizes, measured.mean(0), strict=True)
    ]
    if measured.max() == 0.0:
        return tuple(points)
    curve = fit_learning_curve(sizes, measured, seed=0)
    more = np.array([n, 2 * n, 4 * n])
    low, high = (np.clip(edge, 0.0, 1.0) for edge in curve.interval(more))
    shares = np.clip(curve.predict(more), 0.0, 1.0)
    projected = (
        CurvePoint(int(size), float(share), float(a), float(b), True)
        for size, share, a, b in zip(more, shares, low, high, strict=True)
    )
    return (*points, *projected)


def _labelled(losses: Losses) -> npt.NDArray[np.int64]:
    """Return the numbers of the draws that have a label: a human grade, if the target is about people."""
    matrix = losses.matrix
    known = matrix.graded if isinstance(matrix, GradedLosses) else np.ones(matrix.shape[1], dtype=np.bool_)
    return np.flatnonzero(known)


def _certified(losses: Losses, away: FloatArray, columns: npt.NDArray[np.int64], delta: float) -> float:
    x = losses
    if isinstance(x.matrix, GradedLosses):
        # The draws that only the judge scored stay, because a plan is about human grades.
        columns = np.concatenate([columns, np.flatnonzero(~x.matrix.graded)])
        answer = certify_path(x.matrix.columns(columns), x.limit, delta, x.bound)
    else:
        answer = certify_path(x.matrix[:, columns], x.limit, delta, x.bound)
    return float(away[answer.index]) if isinstance(answer, Certificate) else 0.0

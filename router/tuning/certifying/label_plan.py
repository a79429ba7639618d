"""Label planning: what more calibration prompts would buy, from the losses at hand. Estimates; nothing is certified."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.certificates.fixed_sequence import Certificate, certify_path
from probes.certificates.label_planning import fit_learning_curve, labels_needed
from router.tuning.certifying.rule_paths import Choices, FloatArray
from router.tuning.certifying.targets import Losses

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)

#: Parts of the calibration prompts that the learning curve is measured at, and how often each is drawn.
PARTS, REPEATS = (0.125, 0.25, 0.5, 0.75), 6

MAX_LABELS = 50_000


@dataclass(frozen=True)
class Step:
    """To keep `share` of the traffic from the reference: its quality loss here, and the labels that would certify it.

    labels: in total; None where the loss here is not below the limit, or MAX_LABELS would not do.
    """

    share: float
    loss_estimate: float
    labels: int | None


@dataclass(frozen=True)
class CurvePoint:
    """Share of traffic certified away from the reference with `n` labels; the last ones are projected."""

    n: int
    share: float
    low: float | None
    high: float | None
    projected: bool


@dataclass(frozen=True)
class Plan:
    """How far labels go towards a target on quality loss."""

    limit: float
    steps: tuple[Step, ...]
    curve: tuple[CurvePoint, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def plan(losses: Losses, chosen: Choices, reference: int, delta: float, *, seed: int = 0) -> Plan:
    """The plan for a path of policies (p, n) of candidate numbers whose losses are `losses`."""
    away = (chosen != reference).mean(axis=1)
    steps: list[Step] = []
    for share in SHARES:
        if share > away.max():
            break
        row = int(np.argmax(away >= share))
        kept = losses.matrix[row]
        needed = labels_needed(kept, losses.limit, delta, losses.bound, max_labels=MAX_LABELS)
        # The walk certifies a share only after all smaller ones: it never needs fewer labels than they do.
        if steps and needed is not None:
            before = steps[-1].labels
            needed = None if before is None else max(needed, before)
        steps.append(Step(float(away[row]), float(kept.mean()), needed))
    return Plan(losses.limit, tuple(steps), _curve(losses, away, delta, np.random.default_rng(seed)))


def _curve(losses: Losses, away: FloatArray, delta: float, rng: np.random.Generator) -> tuple[CurvePoint, ...]:
    n = losses.matrix.shape[1]
    sizes = [max(int(n * part), 1) for part in PARTS]
    measured = np.array(
        [
            [_certified(losses, away, rng.choice(n, size, replace=False), delta) for size in sizes]
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


def _certified(losses: Losses, away: FloatArray, columns: npt.NDArray[np.int64], delta: float) -> float:
    x = losses
    answer = certify_path(x.matrix[:, columns], x.limit, delta, x.bound)
    return float(away[answer.index]) if isinstance(answer, Certificate) else 0.0

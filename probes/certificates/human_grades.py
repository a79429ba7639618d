"""Hold losses of which only some are graded by people, and test their mean human loss by prediction-powered betting.

A judge (a model, or any program) has scored every draw; people have graded a random part of the draws. The mean that is
bounded is that of the human losses, so a wrong judge costs labels and never validity. The *rectifier* is what is added
to the mean of the judged losses to get the mean of the human ones: the mean of human loss minus judged loss, which only
the graded draws show. The idea is prediction-powered inference (Angelopoulos, Bates, Fannjiang, Jordan & Zrnic 2023,
Science 382:669), with the judge's weight tuned as in PPI++ (Angelopoulos, Duchi & Zrnic 2023), and by betting
(Waudby-Smith & Ramdas 2024; Csillag, Struchiner & Goedert 2025, "Prediction-powered e-values").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes._checks import Bool, Float64
from probes.certificates.betting import BOLDEST, inverse_mills
from probes.errors import DataError

PRIOR_WEIGHT, PRIOR_DRAWS = 0.75, 5.0
"""The weight that the judge has before the first human grade, and how many pseudo-draws speak for it."""


@dataclass(frozen=True, slots=True, eq=False)
class GradedLosses:
    """Holds the losses of p policies on n draws: judged ones of all, human ones of a random part.

    Draws are independent, their order was fixed before any loss was seen, and which of them people graded depends on
    chance only. Slicing picks policies, as it does with an array (p, n).

    Attributes:
        human: (p, n) what people say, NaN in the columns that nobody graded; these are the same for all policies.
        judged: (p, n) what the judge says.
    """

    human: Float64
    judged: Float64

    def __post_init__(self) -> None:
        if self.human.ndim != 2 or self.human.shape != self.judged.shape or 0 in self.human.shape:
            raise DataError(
                "human and judged losses must be two matrices (policies, prompts) of one shape, with at least one of "
                f"each; got {self.human.shape} and {self.judged.shape}."
            )
        known = np.isfinite(self.human)
        if (known != known[:1]).any() or not known.any():
            raise DataError(
                "human losses must be known for the same prompts of every policy, and for one prompt at least."
            )

    def __len__(self) -> int:
        return len(self.judged)

    def __getitem__(self, policies: slice) -> GradedLosses:
        return GradedLosses(self.human[policies], self.judged[policies])

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of policies and of draws, (p, n)."""
        return len(self.judged), self.judged.shape[1]

    @property
    def graded(self) -> Bool:
        """Booleans (n,) that are True for the draws that people graded."""
        return np.asarray(np.isfinite(self.human[0]))

    def columns(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> GradedLosses:
        """Return the losses on the draws with these numbers, or where `chosen` (n,) is True."""
        return GradedLosses(self.human[:, chosen], self.judged[:, chosen])

    def mean(self, axis: int = 1) -> Float64:
        """Return (p,) estimates of the mean human loss, without bias from the judge: PPI++ with the best weight.

        axis: always 1; it is there because arrays have it.
        """
        part = self.graded
        human, judged = self.human[:, part], self.judged[:, part]
        centred = judged - judged.mean(axis=axis, keepdims=True)
        spread = (centred**2).mean(axis=axis) * (1 + part.sum() / max((~part).sum(), 1))
        weight = np.clip((human * centred).mean(axis=axis) / np.where(spread > 0, spread, np.inf), 0.0, 1.0)
        if part.all():
            return np.asarray(human.mean(axis=axis))
        rest = self.judged[:, ~part].mean(axis=axis)
        return np.asarray(human.mean(axis=axis) + weight * (rest - judged.mean(axis=axis)))


def rectified_bets(losses: GradedLosses, limit: Float64, delta: float, low: float, high: float) -> Bool:
    """Return (p, k) booleans: True if "mean human loss > limit" is rejected at level delta.

    losses: of p policies, in [low, high]. limit: (p, k).

    The game. The draws that only the judge scored are dealt out in equal blocks, one to each human grade. Round i has
    a human loss h, the judge's loss j of the same draw, and B judged losses j_1 ... j_B of its block. Wealth starts at
    1 and is multiplied by

        [1 + b (limit - (h - w j + w t))] * (1 - a (j_1 - t)) * ... * (1 - a (j_B - t)),    a = b w / B.

    The bet b >= 0, the weight w in [0, 1] of the judge, and t, a guess at the mean judged loss, depend on earlier
    rounds only. b is so small that no factor can reach 0. In a round without a block w is 0, which is plain betting.

    Validity. Write H and J for the means of human and judged losses, whatever they are, and u = b w (J - t). A human
    grade and its block are independent of each other and of the past. If H >= limit, the first factor has the mean
    1 + b (limit - H) + u <= 1 + u, and each other factor has the mean 1 - u / B. So given the past, the mean of the
    product is at most (1 + u) (1 - u / B)^B <= exp(u) exp(-u) = 1: the wealth is a supermartingale. By Ville's
    inequality it ever reaches 1 / delta with probability at most delta. Nothing was assumed of the judge; H and J need
    not be near each other. If the guess t is right, u = 0 and nothing is lost by 1 + x <= exp(x).

    A block enters by its sum and its sum of squares only. With y = -(j - t) / (high - t) >= -1 and q = a (high - t) in
    [0, 1), log(1 + q y) >= q y + (log(1 - q) + q) y^2, because (log(1 + q y) - q y) / y^2 grows with y (Fan, Grama &
    Liu 2015). The right side replaces the left one, which can only make wealth smaller.

    The choices decide the power only. w is the regression of human on judged losses, divided by 1 + 1 / B for the noise
    of the block: it is near 1 for a judge that is right and near 0 for a useless one, which then costs next to nothing.
    b aims at the last round, as in `betting.targeted_bets`, with the variance that is left at this weight.
    """
    part = losses.graded
    blocks = _Blocks.of(losses.judged[:, ~part], int(part.sum()))
    human, judged = (np.ascontiguousarray(x[:, part].T)[:, :, None] for x in (losses.human, losses.judged))
    target, n = -math.log(delta), len(human)
    log_wealth = np.zeros(limit.shape)
    reached = np.broadcast_to(limit >= high, limit.shape).copy()
    log_phi, ratio = inverse_mills()
    past = _Past(len(losses), low, high)
    for i in range(n):
        size = int(blocks.sizes[i])
        # None of these may look at round i: that they depend on the past only is what the proof needs.
        weight, guess = past.weight(size), past.guess
        room = high - guess
        scale = np.sqrt(past.second_moment(limit, weight, size) * (n - i))
        cap = BOLDEST / np.maximum(high - limit + weight * (guess - low), 1e-12)
        if size:
            cap = np.minimum(cap, BOLDEST * size / np.maximum(weight * room, 1e-12))
        bet = np.minimum(np.interp(log_wealth - target, log_phi, ratio) / scale, cap)
        growth = np.log1p(bet * (limit - human[i] + weight * (judged[i] - guess)))
        if size:
            growth += _block_growth(bet * weight / size, room, blocks.around(i, guess))
        log_wealth = np.where(reached, log_wealth, log_wealth + growth)
        reached |= log_wealth >= target
        past.add(human[i], judged[i], blocks.sums[i], size)
    return reached


def _block_growth(share: Float64, room: Float64, deviations: tuple[Float64, Float64]) -> Float64:
    """Return a lower limit of the sum of log(1 - share d) over the deviations d <= room, from their sum and squares."""
    total, squares = deviations
    q = share * room
    return np.asarray(-share * total + (np.log1p(-q) + q) * squares / room**2)


@dataclass(frozen=True, slots=True, eq=False)
class _Blocks:
    """Holds the judged losses dealt out to n rounds: sizes (n,), and sums and sums of squares (n, p, 1)."""

    sizes: npt.NDArray[np.intp]
    sums: Float64
    squares: Float64

    @classmethod
    def of(cls, judged_only: Float64, rounds: int) -> _Blocks:
        ends = np.linspace(0, judged_only.shape[1], rounds + 1).astype(np.intp)
        totals = [_differences_at(values, ends) for values in (judged_only, judged_only**2)]
        return cls(np.diff(ends), *totals)

    def around(self, i: int, guess: Float64) -> tuple[Float64, Float64]:
        """Return the sum of the deviations of block i from `guess`, and the sum of their squares."""
        total, size = self.sums[i], self.sizes[i]
        squares = self.squares[i] - 2 * guess * total + size * guess**2
        return total - size * guess, np.maximum(squares, 0.0)


def _differences_at(values: Float64, ends: npt.NDArray[np.intp]) -> Float64:
    sums = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)[:, ends]
    return np.ascontiguousarray(np.diff(sums, axis=1).T)[:, :, None]


class _Past:
    """Sums up the rounds that are over, for p policies; every array is (p, 1)."""

    def __init__(self, n_policies: int, low: float, high: float) -> None:
        zero = np.zeros((n_policies, 1))
        self.rounds, self.draws = 0, 1  # the guess begins with one pseudo-draw in the middle of the range
        self.judged_total = zero + (low + high) / 2
        self.pseudo_variance = ((high - low) / 4) ** 2
        self.h, self.j, self.hh, self.hj, self.jj = (zero.copy() for _ in range(5))

    @property
    def guess(self) -> Float64:
        """The mean judged loss of all draws so far; always below `high`."""
        return self.judged_total / self.draws

    def weight(self, size: int) -> Float64:
        """Return the judge's weight for a round with a block of this size; 0 without a block."""
        if not size:
            return np.zeros_like(self.h)
        rounds, prior = max(self.rounds, 1), PRIOR_DRAWS * self.pseudo_variance
        covariance = self.hj - self.h * self.j / rounds + PRIOR_WEIGHT * prior
        spread = np.maximum(self.jj - self.j**2 / rounds, 0.0) + prior
        return np.clip(covariance / (spread * (1 + 1 / size)), 0.0, 1.0)

    def second_moment(self, limit: Float64, weight: Float64, size: int) -> Float64:
        """Return the mean square of limit minus rectified loss, as it would have been at this weight.

        One pseudo-draw with the largest variance is among the draws.
        """
        t = max(self.rounds, 1)
        h, j = self.h / t, self.j / t
        noise = 1 + 1 / max(size, 1)
        variance = self.hh / t - h**2 - 2 * weight * (self.hj / t - h * j) + weight**2 * (self.jj / t - j**2) * noise
        mean = h + weight * (self.guess - j)
        total = self.rounds * (np.maximum(variance, 0.0) + (limit - mean) ** 2)
        return np.asarray((self.pseudo_variance + total) / (self.rounds + 1))

    def add(self, human: Float64, judged: Float64, block: Float64, size: int) -> None:
        """Add one round: a human loss, its judged loss, and the sum of its block."""
        self.rounds += 1
        self.draws += 1 + size
        self.judged_total = self.judged_total + judged + block
        self.h, self.j = self.h + human, self.j + judged
        self.hh, self.hj, self.jj = self.hh + human**2, self.hj + human * judged, self.jj + judged**2

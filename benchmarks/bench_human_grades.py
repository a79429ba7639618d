"""Measure how many human grades a certificate needs with a judge beside them and without one; print JSON.

    python -m benchmarks.bench_human_grades > human_grades.json

Every row is one situation: a law of the human loss, a judge, and a limit on the mean human loss. For each number of
grades the power is the share of experiments in which the policy is certified; the number of grades for a power of 0.8
is interpolated between the numbers tried. Without a judge the better of the two bounds of paired losses counts. The
judge scores the graded draws and `--judged` times as many others. `wrong_at_most` is the highest rate of false
certificates, from experiments whose limit is the true mean itself. `in_the_limit` is the ratio that many grades come
to: 1 - r^2 k / (k + 1), with r the correlation of human and judged losses and k the judged draws for each grade.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from probes._checks import Float64
from probes.certificates.bounds import MeanBound, excludes
from probes.certificates.human_grades import GradedLosses

DELTA: Final = 0.05
POWER: Final = 0.8
BETTING, RECTIFIED = MeanBound("betting"), MeanBound("rectified")
Judge = Callable[[Float64, Float64, np.random.Generator], tuple[Float64, Float64]]


def right_verdicts(share: float) -> Judge:
    """Return a judge that is right about each answer with this probability, independently of the other answer."""

    def judge(strong: Float64, weak: Float64, rng: np.random.Generator) -> tuple[Float64, Float64]:
        wrong = rng.random((2, *strong.shape)) >= share
        return np.abs(strong - wrong[0]), np.abs(weak - wrong[1])

    return judge


def right_pairs(share: float) -> Judge:
    """Return a judge whose comparison of the two answers is right with this probability, and else one step away."""

    def judge(strong: Float64, weak: Float64, rng: np.random.Generator) -> tuple[Float64, Float64]:
        drop = strong - weak
        step = np.where(drop == 0, rng.choice([-1.0, 1.0], drop.shape), -drop)
        seen = np.where(rng.random(drop.shape) < share, drop, drop + step)
        return np.maximum(seen, 0.0), np.maximum(-seen, 0.0)

    return judge


def kind_to_weak(strong: Float64, weak: Float64, rng: np.random.Generator) -> tuple[Float64, Float64]:
    """Return verdicts that are right nine times in ten and then praise 15 % more of the weak model's answers."""
    seen_strong, seen_weak = right_pairs(0.9)(strong, weak, rng)
    return seen_strong, np.maximum(seen_weak, rng.random(weak.shape) < 0.15)


def guessing(strong: Float64, weak: Float64, rng: np.random.Generator) -> tuple[Float64, Float64]:
    """Return verdicts by the toss of a coin."""
    tosses = rng.integers(0, 2, (2, *strong.shape)).astype(float)
    return tosses[0], tosses[1]


JUDGES: Final[dict[str, Judge]] = {
    "pairs right 9 in 10": right_pairs(0.9),
    "pairs right 8 in 10": right_pairs(0.8),
    "each answer right 9 in 10": right_verdicts(0.9),
    "9 in 10, 15 points too kind to the weak model": kind_to_weak,
    "perfect": right_pairs(1.0),
    "guessing": guessing,
}


@dataclass(frozen=True)
class Law:
    """The law of paired scores of 0 and 1: chances that only the strong, only the weak, or both models are right.

    share: the part of the draws that the weak model answers. limit: what is to be certified.
    """

    only_strong: float
    only_weak: float
    both: float
    share: float
    limit: float

    @property
    def mean(self) -> float:
        """The true mean loss."""
        return self.share * (self.only_strong - self.only_weak)

    def draw(self, judge: Judge, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Float64, Float64]:
        """Return human and judged losses of this shape."""
        neither = 1 - self.only_strong - self.only_weak - self.both
        kind = rng.choice(4, shape, p=[self.only_strong, self.only_weak, self.both, neither])
        strong, weak = np.isin(kind, (0, 2)).astype(float), np.isin(kind, (1, 2)).astype(float)
        judged_strong, judged_weak = judge(strong, weak, rng)
        routed = rng.random(shape) < self.share
        return routed * (strong - weak), routed * (judged_strong - judged_weak)


LAWS: Final = {
    "all to weak, 30 % differ": Law(0.15, 0.15, 0.6, share=1.0, limit=0.05),
    "half to weak, 25 % differ": Law(0.15, 0.10, 0.6, share=0.5, limit=0.06),
    "half to weak, 25 % differ, a sharper limit": Law(0.15, 0.10, 0.6, share=0.5, limit=0.04),
    "a third to weak, 15 % differ": Law(0.09, 0.06, 0.7, share=0.33, limit=0.03),
}


def experiments(law: Law, judge: Judge, grades: int, judged: int, draws: int) -> GradedLosses:
    """Return the losses of `draws` independent experiments with this many grades and `judged` times as many others."""
    rng = np.random.default_rng(grades)
    human, seen = law.draw(judge, (draws, grades * (1 + judged)), rng)
    human[:, grades:] = np.nan
    return GradedLosses(human, seen)


def powers(law: Law, judge: Judge, grades: int, judged: int, draws: int) -> dict[str, float]:
    """Return the power with the judge and without, and the rate of false certificates with the judge."""
    losses = experiments(law, judge, grades, judged, draws)
    alone = losses.human[:, :grades]
    return {
        "with": float(excludes(losses, law.limit, DELTA, RECTIFIED).mean()),
        "without": max(float(excludes(alone, law.limit, DELTA, bound).mean()) for bound in (BETTING, MeanBound())),
        "wrong": float(excludes(losses, law.mean, DELTA, RECTIFIED).mean()),
    }


def grades_needed(sizes: list[int], power: list[float]) -> float | None:
    """Return the number of grades with a power of 0.8, interpolated; None if no power reaches it."""
    for number, (size, reached) in enumerate(zip(sizes, power, strict=False)):
        if reached >= POWER:
            if number == 0:
                return float(size)
            before, low = sizes[number - 1], power[number - 1]
            return before + (size - before) * (POWER - low) / (reached - low)
    return None


def measure(name: str, judge_name: str, sizes: list[int], judged: int, draws: int) -> dict[str, object]:
    """Return one row of the report."""
    law, judge = LAWS[name], JUDGES[judge_name]
    human, seen = law.draw(judge, (1, 200_000), np.random.default_rng(1))
    in_the_limit = 1 - np.corrcoef(human[0], seen[0])[0, 1] ** 2 * judged / (judged + 1)
    found: list[dict[str, float]] = []
    for grades in sizes:
        found.append(powers(law, judge, grades, judged, draws))
        if min(found[-1]["with"], found[-1]["without"]) >= POWER:
            break
    with_judge, without = (grades_needed(sizes, [f[key] for f in found]) for key in ("with", "without"))
    wrong = [f["wrong"] for f in found]
    return {
        "law": name,
        "judge": judge_name,
        "limit": law.limit,
        "mean": round(law.mean, 4),
        "judged_per_grade": judged,
        "grades_with_judge": with_judge and round(with_judge),
        "grades_without": without and round(without),
        "ratio": round(with_judge / without, 3) if with_judge and without else None,
        "in_the_limit": round(float(in_the_limit), 3),
        "wrong_at_most": max(wrong),
        "allowed": float(stats.binom.ppf(0.999, draws, DELTA)) / draws,
        "draws": draws,
    }


def main() -> None:
    """Run the measurement and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000, help="experiments for each number of grades")
    parser.add_argument("--judged", type=int, default=10, help="draws that only the judge scores, for each grade")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[60, 90, 130, 180, 250, 350, 500, 700, 1000, 1400, 2000, 2800, 4000]
    )
    arguments = parser.parse_args()
    rows = [measure(law, judge, arguments.sizes, arguments.judged, arguments.draws) for law in LAWS for judge in JUDGES]
    json.dump({"delta": DELTA, "power": POWER, "sizes": arguments.sizes, "rows": rows}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()

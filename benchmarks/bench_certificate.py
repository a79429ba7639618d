"""Compare bounds on MMLU by the weak share that they certify and by how often they fail; print JSON.

    python -m benchmarks.bench_certificate > certificate.json

The truth is known exactly: some prompts are set aside for the fit, the others are the whole population, and calibration
sets are drawn from the population with replacement. A violation is a certified policy that loses more quality on the
population than the target allows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from benchmarks.other_bounds import TESTS, excludes_by
from benchmarks.routing_outcomes import Float64, RoutingOutcomes, load_mmlu, policy_drops, split_and_fit
from probes.certificates.bounds import MeanBound, excludes

DELTA = 0.05
LIMITS = (0.01, 0.02, 0.05)
BETTING = MeanBound("betting")
Rule = Callable[[Float64, float], "np.ndarray"]


def rules() -> dict[str, Rule]:
    """Return the tests to compare, by name; the last two promise nothing at a finite sample size."""
    named: dict[str, Rule] = {
        "ternary": lambda losses, limit: excludes(losses, limit, DELTA),
        "betting": lambda losses, limit: excludes(losses, limit, DELTA, BETTING),
    }
    named |= {name: lambda losses, limit, name=name: excludes_by(name, losses, limit, DELTA) for name in TESTS}
    z = NormalDist().inv_cdf(1 - DELTA)
    named["normal approximation"] = lambda losses, limit: (
        losses.mean(axis=1) + z * losses.std(axis=1) / np.sqrt(losses.shape[1]) <= limit
    )
    named["no certificate"] = lambda losses, limit: losses.mean(axis=1) <= limit
    return named


def last_passed(passed: np.ndarray, name: str) -> int:
    """Return the number of the selected policy: the last one before the first failure, or -1 if the first one fails.

    Without a certificate, the last policy that passes is selected, whatever fails before it.
    """
    if name == "no certificate":
        return int(np.flatnonzero(passed).max(initial=-1))
    return int(np.argmin(passed)) - 1 if not passed.all() else len(passed) - 1


def compare(populations: list[RoutingOutcomes], sizes: list[int], draws: int) -> list[dict[str, object]]:
    """Return a row for each sample size, limit and rule: mean weak share, its spread, violation rate, seconds."""
    found: dict[tuple[int, float, str], list[tuple[float, bool, float]]] = {}
    for seed, population in enumerate(populations):
        rng = np.random.default_rng(10_000 + seed)
        drops = policy_drops(population.gain, population.drop, population.thresholds)
        truth, share = drops.mean(axis=1), (population.gain[None, :] < population.thresholds[:, None]).mean(axis=1)
        for n in sizes:
            for _ in range(draws):
                sample = drops[:, rng.integers(0, drops.shape[1], size=n)]
                for limit in LIMITS:
                    for name, rule in rules().items():
                        start = time.perf_counter()
                        j = last_passed(rule(sample, limit), name)
                        seconds = time.perf_counter() - start
                        outcome = (share[j], bool(truth[j] > limit), seconds) if j >= 0 else (0.0, False, seconds)
                        found.setdefault((n, limit, name), []).append(outcome)
    return [_row(key, np.array(values, dtype=float)) for key, values in found.items()]


def _row(key: tuple[int, float, str], values: Float64) -> dict[str, object]:
    n, limit, name = key
    share, violated, seconds = values.T
    return {
        "n_calibration": n,
        "limit": limit,
        "rule": name,
        "draws": len(values),
        "weak_share": round(float(share.mean()), 4),
        "weak_share_sd": round(float(share.std()), 4),
        "violation_rate": round(float(violated.mean()), 4),
        "seconds": round(float(np.median(seconds)), 4),
    }


def split_ratio(features: Float64, losses: Float64, sizes: list[int], splits: int) -> list[dict[str, object]]:
    """Return the weak share certified at a loss of 0.02 if `n` of all labels calibrate and the others fit."""
    rows = []
    for n in sizes:
        shares = []
        for seed in range(splits):
            population = split_and_fit(features, losses, n, 500 + seed)
            drops = policy_drops(population.gain, population.drop, population.thresholds)
            j = last_passed(excludes(drops, 0.02, DELTA), "ternary")
            shares.append(float((population.gain < population.thresholds[j]).mean()) if j >= 0 else 0.0)
        rows.append(
            {
                "n_calibration": n,
                "n_fit": len(losses) - n,
                "weak_share": round(float(np.mean(shares)), 4),
                "standard_error": round(float(np.std(shares, ddof=1) / np.sqrt(splits)), 4),
            }
        )
    return rows


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=40, help="fit splits, each with its own population")
    parser.add_argument("--draws", type=int, default=5, help="calibration sets drawn per split and size")
    parser.add_argument("--sizes", type=int, nargs="+", default=[800, 4200], help="calibration prompts")
    parser.add_argument("--population", type=int, default=4200, help="prompts not fitted on")
    parser.add_argument("--ratios", type=int, nargs="*", default=[1500, 2500, 3500, 4500, 5500, 6500])
    arguments = parser.parse_args()
    features, losses = load_mmlu()
    populations = [split_and_fit(features, losses, arguments.population, s) for s in range(arguments.splits)]
    report = {
        "data": "routellm_mmlu.parquet",
        "delta": DELTA,
        "n_fit": len(losses) - arguments.population,
        "population": arguments.population,
        "rules": compare(populations, arguments.sizes, arguments.draws),
        "split_ratio": split_ratio(features, losses, arguments.ratios, arguments.splits),
    }
    json.dump(report, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()

"""Compare rules of choosing prompts to label with uniform draws, on real outcomes (docs/label-selection.md).

Run from the project root:

    python -m benchmarks.label_study --data DIR [--cache DIR] [--draws 40] [--rules "A;B"] [--json FILE]

Each draw splits a file's prompts, by text, into a pool and a test half. A rule chooses 50, 100 or 300 prompts of the
pool by their features (and groups) alone; their outcomes are looked up, the recipe of `elle fit` is fitted to them, and
the test half is ranked by predicted gain. Every rule gets the same draws, so differences are paired. The intervals are
over draws: they say what a rule does on this file, and the spread between the files what to expect of another one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.label_rules import ONE_AFTER_THE_OTHER, RANDOM, RULES, Floats, Pool, Rows, fast_ridge
from probes.calibration.choice import DEFAULT_KIND, cross_calibrate
from probes.encoders.spec import MINILM_L6
from probes.grouping import group_numbers
from probes.regression.crossfit import assign_folds
from probes.regression.fit import fit_ridge
from router.tuning.fitting.recipe import FOLDS, risk_through
from router.tuning.outcomes.datasets import Outcomes, read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache

DEFAULT_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"

BUDGETS = (50, 100, 300)

#: Prompts that a rule chooses from; more would cost time and change little.
POOL = 3000

#: File, weak model, strong model.
TASKS: Mapping[str, tuple[str, str, str]] = {
    "MMLU": ("routellm_mmlu.parquet", "Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"),
    "MMLU-Pro": ("mmlu_pro.parquet", "Meta-Llama-3.1-8B-Instruct", "gpt-4o-2024-05-13"),
    "reasoning gym": ("pool/reasoning_gym.parquet", "meta-llama/llama-3.3-70b-instruct", "deepseek/deepseek-r1"),
}


def gain_of_recipe(X: npt.NDArray[np.float32], Y: Floats, texts: Rows, new: npt.NDArray[np.float32]) -> Floats:
    """Return the predicted gain (n,) of new rows, by ridge and calibration as `elle fit` fits them to few labels."""
    predict, alpha = fast_ridge(X, Y)
    folds = assign_folds(texts, FOLDS, 0)
    held_out = np.empty(Y.shape)
    for fold in np.unique(folds):
        inside = folds == fold
        held_out[inside] = fast_ridge(X[~inside], Y[~inside], alpha)[0](X[inside])
    maps, _ = cross_calibrate(DEFAULT_KIND, held_out, Y, folds)
    risk = risk_through(maps, predict(new))
    return np.asarray(risk[:, 0] - risk[:, 1])


def check_recipe(X: npt.NDArray[np.float32], Y: Floats) -> None:
    """Raise SystemExit unless the fast fit predicts what that of the product does."""
    predict, alpha = fast_ridge(X[:100], Y[:100])
    solution = fit_ridge(X[:100], Y[:100])
    if alpha != solution.alpha[0] or not np.allclose(predict(X), solution.probe.predict(X), atol=1e-3):
        raise AssertionError("the study's ridge must be that of probes.fit")


# --- the study ---


def apgr(gain: Floats, truth: Floats) -> float:
    """Return the APGR: the mean gap recovered over all shares of strong calls. Random has 0.5."""
    _, tie = np.unique(-gain, return_inverse=True)
    calls, won = np.bincount(tie), np.bincount(tie, truth)
    return float(np.trapezoid(np.r_[0, won.cumsum()] / won.sum(), np.r_[0, calls.cumsum()] / calls.sum()))


def one_draw(
    rules: Sequence[str], outcomes: Outcomes, X: npt.NDArray[np.float32], number: int
) -> dict[tuple[str, int, str], float]:
    """Return the APGR by rule, budget and fit (`ridge`, or `recipe` with calibration) on one split."""
    texts = group_numbers(outcomes.texts)
    rng = np.random.default_rng([number, 0])
    in_pool = (rng.random(texts.max() + 1) < 0.5)[texts]
    members, test = np.flatnonzero(in_pool), np.flatnonzero(~in_pool)
    # One prompt of each text: a rule must not be charged for twins that a person would not label twice.
    members = members[np.unique(texts[members], return_index=True)[1]]
    members = rng.permutation(members)[:POOL]
    raw, losses = X[members], 1.0 - outcomes.scores
    Z = raw.copy()
    Z = (Z - Z.mean(axis=0)) / np.maximum(Z.std(axis=0), 1e-9)
    values, basis = np.linalg.eigh(Z.T @ Z / len(Z))
    principal = Z @ basis[:, :-101:-1]
    leverage = (((Z @ basis) ** 2) / (values + 1e-2)).sum(axis=1)
    groups = np.unique(np.array(outcomes.groups)[members], return_inverse=True)[1]
    truth = losses[test, 0] - losses[test, 1]
    found = {}
    for place, name in enumerate(RULES):
        if name not in rules:
            continue
        order: Rows = np.empty(0, dtype=np.int64)
        for k in sorted(BUDGETS, reverse=True):
            pool = Pool(
                Z, principal, leverage, groups, losses[members], raw, np.random.default_rng([number, place + 1, k])
            )
            # Rules that choose one prompt after the other choose the first k whatever comes after.
            order = order if name in ONE_AFTER_THE_OTHER and len(order) else RULES[name](pool, k)
            rows = members[order[:k]]
            if len(np.unique(rows)) != k:
                raise AssertionError(f"{name} must choose {k} distinct prompts")
            predicted = fast_ridge(X[rows], losses[rows])[0](X[test])
            found[name, k, "ridge"] = apgr(predicted[:, 0] - predicted[:, 1], truth)
            found[name, k, "recipe"] = apgr(gain_of_recipe(X[rows], losses[rows], texts[rows], X[test]), truth)
    return found


def load(name: str, data: Path, cache: Path | None) -> tuple[Outcomes, npt.NDArray[np.float32]]:
    """Return the prompts that both models answered, with their features."""
    file, weak, strong = TASKS[name]
    outcomes = read_outcomes(data / file).select_models((weak, strong)).complete_rows()
    return outcomes, FeatureCache(cache).features(MINILM_L6, outcomes.texts)


def summary(draws: Sequence[Mapping[tuple[str, int, str], float]], rules: Sequence[str]) -> dict[str, Any]:
    """Return the mean APGR, and the mean lead over random with its 95 % interval, by fit, budget and rule."""
    result: dict[str, Any] = {}
    for fit in ("ridge", "recipe"):
        for k in BUDGETS:
            base = np.array([draw[RANDOM, k, fit] for draw in draws])
            for name in rules:
                values = np.array([draw[name, k, fit] for draw in draws])
                lead = values - base
                half = 1.96 * lead.std(ddof=1) / np.sqrt(len(lead))
                result.setdefault(fit, {}).setdefault(str(k), {})[name] = {
                    "apgr": float(values.mean()),
                    "worst_tenth": float(np.quantile(values, 0.1)),
                    "lead": [float(lead.mean()), float(lead.mean() - half), float(lead.mean() + half)],
                }
    return result


def print_table(task: str, found: Mapping[str, Any], rules: Sequence[str]) -> None:
    """Print a Markdown table: for each rule the APGR at each budget, and the lead over random with its interval."""
    for fit in ("recipe", "ridge"):
        print(f"\n{task}, {fit}\n\n| rule | " + " | ".join(f"{k} labels" for k in BUDGETS) + " |")
        print("|---|" + "---|" * len(BUDGETS))
        for name in rules:
            cells = []
            for k in BUDGETS:
                one = found[fit][str(k)][name]
                lead, low, high = one["lead"]
                cells.append(f"{one['apgr']:.3f}" + (f" ({lead:+.3f}: {low:+.3f} to {high:+.3f})" if lead else ""))
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print the tables, and write the figures as JSON if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--cache", type=Path, help="where encoded prompts are kept (default: elle's cache)")
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--tasks", default=";".join(TASKS))
    parser.add_argument("--rules", default=";".join(RULES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"--data must be the folder of the routing outcomes, got {options.data}: give its path")
    rules = list(dict.fromkeys([RANDOM, *options.rules.split(";")]))
    figures = {}
    for task in options.tasks.split(";"):
        outcomes, X = load(task, options.data, options.cache)
        check_recipe(X, 1.0 - outcomes.scores)
        print(f"\n{task}: {len(outcomes):,} prompts, {outcomes.models}", flush=True)
        draws = []
        for number in range(options.draws):
            draws.append(one_draw(rules, outcomes, X, number))
            print(f"draw {number + 1} of {options.draws}", file=sys.stderr, flush=True)
        figures[task] = {"models": outcomes.models, "n": len(outcomes), **summary(draws, rules)}
        print_table(task, figures[task], rules)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

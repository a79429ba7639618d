"""Which prompts to label first: rules of choosing against uniform draws, on real outcomes; docs/label-selection.md.

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.calibration.choice import DEFAULT_KIND, cross_calibrate
from probes.encoders.spec import MINILM_L6
from probes.regression.crossfit import assign_folds
from probes.regression.fit import fit_ridge
from probes.regression.solution import DEFAULT_ALPHAS, choose_alpha
from router.tuning.fitting.recipe import FOLDS, risk_through
from router.tuning.outcomes.datasets import Outcomes, read_outcomes
from router.tuning.outcomes.distinct_texts import text_numbers
from router.tuning.outcomes.feature_cache import FeatureCache

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

DEFAULT_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
BUDGETS = (50, 100, 300)
#: Prompts that a rule chooses from; more would cost time and change little.
POOL = 3000
RANDOM = "random"

#: File, weak model, strong model.
TASKS: Mapping[str, tuple[str, str, str]] = {
    "MMLU": ("routellm_mmlu.parquet", "Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"),
    "MMLU-Pro": ("mmlu_pro.parquet", "Meta-Llama-3.1-8B-Instruct", "gpt-4o-2024-05-13"),
    "reasoning gym": ("pool/reasoning_gym.parquet", "meta-llama/llama-3.3-70b-instruct", "deepseek/deepseek-r1"),
}


@dataclass(frozen=True)
class Pool:
    """What a rule may look at: features (n, d) standardised over the pool, a number per group, a random stream.

    principal: (n, 100), coordinates along the largest principal components. leverage: (n,). losses: (n, 2), for rules
    that buy labels in two steps; they look up those of the first step only.
    """

    Z: npt.NDArray[np.float32]
    principal: npt.NDArray[np.float32]
    leverage: Floats
    groups: Rows
    losses: Floats
    raw: npt.NDArray[np.float32]
    rng: np.random.Generator


Rule = Callable[[Pool, int], Rows]


# --- rules ---


def uniform(pool: Pool, k: int) -> Rows:
    """Every prompt equally likely."""
    return pool.rng.choice(len(pool.Z), k, replace=False)


def by_group(pool: Pool, k: int) -> Rows:
    """Systematic draw along the groups: each gets its share of the labels."""
    return _systematic(pool, pool.groups, k)


def one_per_cluster(pool: Pool, k: int) -> Rows:
    """k-means with k clusters; of each the member nearest to its centre."""
    centres, home = _kmeans(pool.principal[:, :50], k, pool.rng)
    distance = ((pool.principal[:, :50] - centres[home]) ** 2).sum(axis=1)
    order = np.lexsort((distance, home))
    return order[np.unique(home[order], return_index=True)[1]]


def random_per_cluster(pool: Pool, k: int) -> Rows:
    """k-means with k clusters; of each a random member."""
    _, home = _kmeans(pool.principal[:, :50], k, pool.rng)
    order = pool.rng.permutation(len(home))
    return order[np.unique(home[order], return_index=True)[1]]


def strata_of_clusters(pool: Pool, k: int) -> Rows:
    """k-means with 20 clusters; each gets its share of the labels, at random."""
    _, home = _kmeans(pool.principal[:, :50], 20, pool.rng)
    return _systematic(pool, home, k)


def k_center(pool: Pool, k: int) -> Rows:
    """Farthest first (Sener and Savarese 2018), from a random start."""
    Z = pool.Z
    chosen = [int(pool.rng.integers(len(Z)))]
    squares = np.einsum("ij,ij->i", Z, Z)
    nearest = np.full(len(Z), np.inf)
    while len(chosen) < k:
        last = chosen[-1]
        nearest = np.minimum(nearest, squares + squares[last] - 2 * Z @ Z[last])
        nearest[chosen] = -np.inf
        chosen.append(int(np.argmax(nearest)))
    return np.array(chosen)


def top_leverage(pool: Pool, k: int) -> Rows:
    """The largest leverages."""
    return np.argsort(-pool.leverage, kind="stable")[:k]


def leverage_sampling(pool: Pool, k: int) -> Rows:
    """Drawn in proportion to leverage."""
    h = pool.leverage
    return pool.rng.choice(len(h), k, replace=False, p=h / h.sum())


def d_optimal(components: int | None) -> Rule:
    """Greedy D-optimal design: each step the largest variance given what was chosen; a ridge's alpha of 1, or of d."""

    def rule(pool: Pool, k: int) -> Rows:
        Z = pool.Z if components is None else pool.principal[:, :components] / np.sqrt(pool.Z.shape[1])
        return _greedy(Z, np.ones(len(Z)), k)

    return rule


def leverage_times_gain(pool: Pool, k: int) -> Rows:
    """A third at random; the rest D-optimal times the gain that a fit to that third predicts, if positive."""
    first = uniform(pool, max(k // 3, 20))
    predict = fast_ridge(pool.raw[first], pool.losses[first])[0]
    loss = predict(pool.raw)
    worth = np.maximum(loss[:, 0] - loss[:, 1], 0.0)
    return _after(pool, first, worth, k)


def leverage_times_uncertainty(pool: Pool, k: int) -> Rows:
    """A third at random; the rest D-optimal times p (1 - p) of the weak model's predicted loss p."""
    first = uniform(pool, max(k // 3, 20))
    p = np.clip(fast_ridge(pool.raw[first], pool.losses[first])[0](pool.raw)[:, 0], 0.05, 0.95)
    return _after(pool, first, p * (1 - p), k)


def near_the_threshold(pool: Pool, k: int) -> Rows:
    """A third at random; the rest where the predicted gain is nearest to its median, at random among the nearest 3k."""
    first = uniform(pool, max(k // 3, 20))
    loss = fast_ridge(pool.raw[first], pool.losses[first])[0](pool.raw)
    gain = loss[:, 0] - loss[:, 1]
    near = np.setdiff1d(np.argsort(np.abs(gain - np.median(gain)))[: 3 * k], first)
    return np.concatenate([first, pool.rng.choice(near, k - len(first), replace=False)])


def transductive(pool: Pool, k: int) -> Rows:
    """Transductive design (Yu, Bi and Tresp 2006): each step lowers the mean variance over the pool most.

    On 100 principal components, the ridge's alpha their number times their mean variance.
    """
    U = pool.principal
    values = (U**2).mean(axis=0)
    U = U / np.sqrt(values.sum())
    inverse, chosen = np.eye(100), np.empty(k, dtype=np.int64)
    open_ = np.ones(len(U), dtype=bool)
    for step in range(k):
        V = U @ inverse
        worth = (V**2 @ values) / (1 + np.einsum("ij,ij->i", V, U))
        best = int(np.argmax(np.where(open_, worth, -np.inf)))
        chosen[step], open_[best] = best, False
        inverse -= np.outer(V[best], V[best]) / (1 + U[best] @ V[best])
    return chosen


def herding(pool: Pool, k: int) -> Rows:
    """Kernel herding (Chen, Welling and Smola 2010): the chosen keep the pool's mean in random Fourier features."""
    Z = pool.principal[:, :50]
    # The usual width of the kernel: the median distance of two members.
    some = Z[pool.rng.choice(len(Z), 500)]
    width = np.sqrt(np.median(((some[:250] - some[250:]) ** 2).sum(axis=1)))
    angles = Z @ pool.rng.normal(size=(50, 1000)) / width + pool.rng.uniform(0, 2 * np.pi, 1000)
    F = np.cos(angles)
    mean, total, chosen = F.mean(axis=0), np.zeros(1000), []
    for step in range(k):
        score = F @ (mean - total / (step + 1))
        score[chosen] = -np.inf
        chosen.append(int(np.argmax(score)))
        total += F[chosen[-1]]
    return np.array(chosen)


RULES: Mapping[str, Rule] = {
    RANDOM: uniform,
    "strata by group": by_group,
    "strata by 20 clusters": strata_of_clusters,
    "k clusters, a random member": random_per_cluster,
    "k clusters, the nearest to the centre": one_per_cluster,
    "kernel herding": herding,
    "k-center": k_center,
    "largest leverage": top_leverage,
    "leverage sampling": leverage_sampling,
    "D-optimal": d_optimal(None),
    "D-optimal on 20 components": d_optimal(20),
    "transductive on 100 components": transductive,
    "D-optimal x predicted gain": leverage_times_gain,
    "D-optimal x uncertainty": leverage_times_uncertainty,
    "near the threshold": near_the_threshold,
}

ONE_AFTER_THE_OTHER = {
    *("kernel herding", "k-center", "largest leverage"),
    *("D-optimal", "D-optimal on 20 components", "transductive on 100 components"),
}


def _kmeans(Z: Floats, k: int, rng: np.random.Generator) -> tuple[Floats, Rows]:
    from sklearn.cluster import KMeans

    found = KMeans(k, n_init=1, max_iter=20, random_state=int(rng.integers(2**31))).fit(Z)
    return found.cluster_centers_, found.labels_.astype(np.int64)


def _systematic(pool: Pool, strata: Rows, k: int) -> Rows:
    """Every (n / k)-th of the pool ordered by stratum, at random within: shares as in the pool, to within one label."""
    order = np.lexsort((pool.rng.random(len(strata)), strata))
    places = (np.arange(k) + pool.rng.random()) * len(order) / k
    return order[places.astype(np.int64)]


def _greedy(U: Floats, worth: Floats, k: int) -> Rows:
    leverage = np.einsum("ij,ij->i", U, U)
    directions, open_ = np.empty((k, U.shape[1])), np.ones(len(U), dtype=bool)
    chosen = np.empty(k, dtype=np.int64)
    for step in range(k):
        best = int(np.argmax(np.where(open_, worth * np.log1p(leverage), -np.inf)))
        chosen[step], open_[best] = best, False
        z = U[best]
        directions[step] = (z - directions[:step].T @ (directions[:step] @ z)) / np.sqrt(1 + leverage[best])
        leverage = np.maximum(leverage - (U @ directions[step]) ** 2, 0.0)
    return chosen


def _after(pool: Pool, first: Rows, worth: Floats, k: int) -> Rows:
    """`first`, then D-optimal times `worth` given it."""
    d = pool.Z.shape[1]
    inverse = np.linalg.inv(pool.Z[first].T @ pool.Z[first] + d * np.eye(d))
    U = pool.Z @ np.linalg.cholesky(inverse).astype(np.float32)
    worth = worth.copy()
    worth[first] = -1.0
    return np.concatenate([first, _greedy(U, worth, k - len(first))])


# --- the recipe of `elle fit`, for few labels ---


def fast_ridge(
    X: npt.NDArray[np.float32], Y: Floats, alpha: float | None = None
) -> tuple[Callable[[npt.NDArray[np.float32]], Floats], float]:
    """The fit of `fit_ridge`, by the k rows instead of the d features; `check_recipe` holds the two together."""
    X64 = X.astype(np.float64)
    mean, scale = X64.mean(axis=0), X64.std(axis=0)
    inverse = np.where(scale > 1e-9, 1 / np.maximum(scale, 1e-9), 0.0)
    Z = (X64 - mean) * inverse
    squares, left = np.linalg.eigh(Z @ Z.T)
    varies = squares > 1e-9 * squares[-1]
    squares, left, base = squares[varies], left[:, varies], Y.mean(axis=0)
    projected = left.T @ (Y - base)
    if alpha is None:
        errors = np.empty((len(DEFAULT_ALPHAS), Y.shape[1]))
        for i, one in enumerate(DEFAULT_ALPHAS):
            shrunk = squares / (squares + one)
            hat = 1 / len(Y) + (left**2) @ shrunk
            residual = Y - base - left @ (shrunk[:, None] * projected)
            errors[i] = ((residual / (1 - hat)[:, None]) ** 2).mean(axis=0)
        alpha = float(choose_alpha(DEFAULT_ALPHAS, errors, Y.var(axis=0), False)[0])
    coef = Z.T @ (left @ (projected / (squares + alpha)[:, None])) * inverse[:, None]
    return lambda new: new @ coef.astype(np.float32) + (base - mean @ coef), alpha


def gain_of_recipe(X: npt.NDArray[np.float32], Y: Floats, texts: Rows, new: npt.NDArray[np.float32]) -> Floats:
    """Predicted gain (n,) of new rows by ridge and calibration as `elle fit` fits them to few labels."""
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
    """Stop unless the fast fit predicts what the product's does."""
    predict, alpha = fast_ridge(X[:100], Y[:100])
    solution = fit_ridge(X[:100], Y[:100])
    if alpha != solution.alpha[0] or not np.allclose(predict(X), solution.probe.predict(X), atol=1e-3):
        raise AssertionError("the study's ridge must be that of probes.fit")


# --- the study ---


def apgr(gain: Floats, truth: Floats) -> float:
    """Trapezoid of the gap recovered over the share of strong calls, ties averaged; random 0.5."""
    _, tie = np.unique(-gain, return_inverse=True)
    calls, won = np.bincount(tie), np.bincount(tie, truth)
    return float(np.trapezoid(np.r_[0, won.cumsum()] / won.sum(), np.r_[0, calls.cumsum()] / calls.sum()))


def one_draw(
    rules: Sequence[str], outcomes: Outcomes, X: npt.NDArray[np.float32], number: int
) -> dict[tuple[str, int, str], float]:
    """APGR by rule, budget and fit (`ridge`, or `recipe` with calibration) on one split into pool and test."""
    texts = text_numbers(outcomes.texts)
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
    """Prompts that both models answered, with features."""
    file, weak, strong = TASKS[name]
    outcomes = read_outcomes(data / file).select_models((weak, strong)).complete_rows()
    return outcomes, FeatureCache(cache).features(MINILM_L6, outcomes.texts)


def summary(draws: Sequence[Mapping[tuple[str, int, str], float]], rules: Sequence[str]) -> dict[str, Any]:
    """Mean APGR and mean lead over random with its 95 % interval over draws, by fit, budget and rule."""
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
    """Markdown: a row per rule, the recipe's APGR at each budget and the lead over random with its interval."""
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
    """Print the tables, and write the figures as JSON where asked."""
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

"""Route among ten models: each prompt goes to the model of best predicted quality minus price times expected cost.

Candidates are the models that no cheaper one matches in mean quality. They and the price are tuned on the other folds,
to a quality or to a cost, with "always this model" among the choices; what that reaches is measured on the fold left
out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Quality points per USD that a person would trade, from "money is no object" to "only money counts".
PRICES: FloatArray = np.concatenate([[0.0], np.geomspace(1e-1, 1e6, 300)])


@dataclass(frozen=True)
class Table:
    """Holds what m models did on n prompts and what that cost, with the folds and texts of the prompts.

    Attributes:
        scores, costs: (n, m), 0 to 1 and USD. expected_costs: (n, m), USD, known before the answer.
        fold, texts: (n,).
    """

    scores: FloatArray
    costs: FloatArray
    expected_costs: FloatArray
    fold: IntArray
    texts: IntArray


def choose(
    quality: FloatArray, expected_costs: FloatArray, price: float, allowed: npt.NDArray[np.bool_] | None = None
) -> IntArray:
    """Return the model of each prompt, (n,): the best quality minus price times cost; the cheaper of equals."""
    value = quality - price * expected_costs
    if allowed is not None:
        value = np.where(allowed, value, -np.inf)
    best = value >= value.max(axis=1, keepdims=True) - 1e-12
    return np.argmin(np.where(best, expected_costs, np.inf), axis=1)


def undominated(quality: FloatArray, cost: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which models have a higher mean quality (m,) than every model that costs no more, (m,)."""
    return np.array([not np.any((cost <= cost[j]) & (quality >= quality[j]) & (np.arange(len(cost)) != j))
                     for j in range(len(cost))])  # fmt: skip


Pick = Callable[[FloatArray, FloatArray, IntArray], int]


def tuned(
    quality: FloatArray, table: Table, picks: Mapping[str, Pick], *, every_candidate: bool = False
) -> dict[str, IntArray]:
    """Return the choices (n,) that each pick makes, with candidates and price tuned on the other folds.

    pick(mean quality (p,), mean cost (p,), rows tuned on) returns which of p policies to take: PRICES in their order,
    then every single model. every_candidate: dominated models may answer too.
    """
    rows, m = np.arange(len(table.fold)), quality.shape[1]
    found = {name: np.empty(len(rows), dtype=np.int64) for name in picks}
    for number in np.unique(table.fold):
        test = table.fold == number
        tune = np.flatnonzero(~test)
        allowed = undominated(table.scores[tune].mean(axis=0), table.costs[tune].mean(axis=0))
        allowed |= every_candidate
        priced = [choose(quality, table.expected_costs, price, allowed) for price in PRICES]
        choices = np.stack([*priced, *(np.full(len(rows), j) for j in range(m))])
        reached, spent = table.scores[tune, choices[:, tune]], table.costs[tune, choices[:, tune]]
        for name, pick in picks.items():
            policy = pick(reached.mean(axis=1), spent.mean(axis=1), tune)
            found[name][test] = choices[policy, test]
    return found


def to_quality(table: Table, model: int) -> Pick:
    """Pick the cheapest policy that reaches this model's quality on the rows tuned on; else the best there is."""

    def pick(quality: FloatArray, cost: FloatArray, rows: IntArray) -> int:
        enough = quality >= table.scores[rows, model].mean()
        return int(np.argmin(np.where(enough, cost, np.inf))) if enough.any() else int(np.argmax(quality))

    return pick


def to_cost(table: Table, model: int) -> Pick:
    """Pick the best policy that costs no more than this model on the rows tuned on; else the cheapest there is."""

    def pick(quality: FloatArray, cost: FloatArray, rows: IntArray) -> int:
        within = cost <= table.costs[rows, model].mean()
        return int(np.argmax(np.where(within, quality, -np.inf))) if within.any() else int(np.argmin(cost))

    return pick


def compare(choice: IntArray, model: int, table: Table, *, resamples: int, seed: int = 0) -> dict[str, Any]:
    """Return the quality above the single model, and the cost as a share of its cost, with paired intervals."""
    rows = np.arange(len(choice))
    quality = table.scores[rows, choice] - table.scores[:, model]
    own, single = table.costs[rows, choice], table.costs[:, model]
    _, position = np.unique(table.texts, return_inverse=True)
    n_texts, rng = int(position.max()) + 1, np.random.default_rng(seed)
    draws = np.empty((resamples, 2))
    for number in range(resamples):
        weight = np.bincount(rng.integers(0, n_texts, n_texts), minlength=n_texts)[position]
        draws[number] = weight @ quality / weight.sum(), weight @ own / (weight @ single)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return {
        "quality": float(table.scores[rows, choice].mean()),
        "cost_usd_per_1k": float(1000 * own.mean()),
        "quality_above": {"value": float(quality.mean()), "low": low[0], "high": high[0]},
        "cost_share": {"value": float(own.sum() / single.sum()), "low": low[1], "high": high[1]},
    }


def group_means(scores: FloatArray, groups: npt.NDArray[np.str_], fold: IntArray) -> FloatArray:
    """Return the mean scores of a prompt's group on the other folds, (n, m), shrunk to all prompts' by ten."""
    found = np.empty(scores.shape)
    for number in np.unique(fold):
        train = fold != number
        overall = scores[train].mean(axis=0)
        for group in np.unique(groups[~train]):
            rows = train & (groups == group)
            mean = (10 * overall + scores[rows].sum(axis=0)) / (10 + rows.sum())
            found[(fold == number) & (groups == group)] = mean
    return found


def many_model_results(
    table: Table, models: tuple[str, ...], routers: dict[str, FloatArray], *, resamples: int
) -> dict[str, Any]:
    """Compare every router, by its predicted quality (n, m), at the best model's quality and at each model's cost."""
    best = int(np.argmax(table.scores.mean(axis=0)))
    singles = {
        model: {"quality": float(table.scores[:, j].mean()), "cost_usd_per_1k": float(1000 * table.costs[:, j].mean())}
        for j, model in enumerate(models)
    }
    found: dict[str, Any] = {"n": len(table.fold), "singles": singles, "best_single": models[best], "routers": {}}
    for name, quality in routers.items():
        picks = {"best": to_quality(table, best)} | {model: to_cost(table, j) for j, model in enumerate(models)}
        # Who knows the outcomes can use a model that is worse on average.
        choices = tuned(quality, table, picks, every_candidate=name == "oracle")
        found["routers"][name] = {
            "at_quality_of_best_single": compare(choices["best"], best, table, resamples=resamples),
            "at_cost_of": {
                model: compare(choices[model], j, table, resamples=resamples) for j, model in enumerate(models)
            },
        }
    return found

"""Ten models at once: each prompt to the model with the best predicted quality minus a price times its expected cost.

The price is tuned on the other folds, to a quality or to a cost; what it reaches is measured on the fold left out.
"""

from __future__ import annotations

from collections.abc import Callable
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
    """What m models did on n prompts and what that cost, with the folds and texts of the prompts.

    Attributes:
        scores, costs: (n, m), 0 to 1 and USD. expected_costs: (n, m), USD, known before the answer.
        fold, texts: (n,).
    """

    scores: FloatArray
    costs: FloatArray
    expected_costs: FloatArray
    fold: IntArray
    texts: IntArray


def choose(quality: FloatArray, expected_costs: FloatArray, price: float) -> IntArray:
    """The model of each prompt, (n,): best quality minus price times cost; the cheaper of equals."""
    value = quality - price * expected_costs
    best = value >= value.max(axis=1, keepdims=True) - 1e-12
    return np.argmin(np.where(best, expected_costs, np.inf), axis=1)


def tuned(quality: FloatArray, table: Table, pick: Callable[[FloatArray, FloatArray, IntArray], int]) -> IntArray:
    """The choices with the price tuned on the other folds.

    pick(mean quality (p,), mean cost (p,), rows tuned on) returns which of PRICES to take.
    """
    choices = np.stack([choose(quality, table.expected_costs, price) for price in PRICES])
    rows = np.arange(len(table.fold))
    reached, spent = table.scores[rows, choices], table.costs[rows, choices]
    found = np.empty(len(rows), dtype=np.int64)
    for number in np.unique(table.fold):
        tune = np.flatnonzero(table.fold != number)
        price = pick(reached[:, tune].mean(axis=1), spent[:, tune].mean(axis=1), tune)
        found[table.fold == number] = choices[price, table.fold == number]
    return found


def to_quality(table: Table, model: int) -> Callable[[FloatArray, FloatArray, IntArray], int]:
    """Cheapest price that reaches this model's quality on the rows tuned on; else the best there is."""

    def pick(quality: FloatArray, cost: FloatArray, rows: IntArray) -> int:
        enough = quality >= table.scores[rows, model].mean()
        return int(np.argmin(np.where(enough, cost, np.inf))) if enough.any() else int(np.argmax(quality))

    return pick


def to_cost(table: Table, model: int) -> Callable[[FloatArray, FloatArray, IntArray], int]:
    """Best price that costs no more than this model on the rows tuned on; else the cheapest there is."""

    def pick(quality: FloatArray, cost: FloatArray, rows: IntArray) -> int:
        within = cost <= table.costs[rows, model].mean()
        return int(np.argmax(np.where(within, quality, -np.inf))) if within.any() else int(np.argmin(cost))

    return pick


def compare(choice: IntArray, model: int, table: Table, *, resamples: int, seed: int = 0) -> dict[str, Any]:
    """Quality above the single model, and cost as a share of its cost, each with a paired bootstrap interval."""
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
    """Mean scores of a prompt's group on the other folds, (n, m), shrunk to all prompts' by ten."""
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
    """Every router (predicted quality (n, m) by name) at the best single model's quality and at each one's cost."""
    best = int(np.argmax(table.scores.mean(axis=0)))
    singles = {
        model: {"quality": float(table.scores[:, j].mean()), "cost_usd_per_1k": float(1000 * table.costs[:, j].mean())}
        for j, model in enumerate(models)
    }
    found: dict[str, Any] = {"n": len(table.fold), "singles": singles, "best_single": models[best], "routers": {}}
    for name, quality in routers.items():
        at_quality = compare(tuned(quality, table, to_quality(table, best)), best, table, resamples=resamples)
        at_cost = {
            model: compare(tuned(quality, table, to_cost(table, j)), j, table, resamples=resamples)
            for j, model in enumerate(models)
        }
        found["routers"][name] = {"at_quality_of_best_single": at_quality, "at_cost_of": at_cost}
    return found

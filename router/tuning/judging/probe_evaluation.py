"""Evaluate a probe on one pair of models: how well it ranks prompts by the gain of the strong one, beside baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from probes.grouping import group_numbers
from probes.measures.bootstrap import Interval
from probes.probe import DataSource, DifficultyProbe, fingerprints
from router.tuning.judging.baselines import Baseline, quick_baselines
from router.tuning.judging.cross_validation import (
    BASELINE_FOLDS,
    Split,
    probe_risk,
    score_baselines,
    split_folds,
)
from router.tuning.judging.ranking import Ranking, RouterScores, Truth, measure
from router.tuning.judging.slices import Slice, measure_slices, slice_labels
from router.tuning.outcomes.datasets import Outcomes

FloatArray = npt.NDArray[np.float64]

#: The name of the probe among the routers that are compared.
PROBE = "predicted gain"

#: What the figure of each split lets a reader expect.
EXPECT = {
    "random": "expect it for prompts of the kinds the probe was fitted on",
    "group": "expect it for kinds of prompts it was not fitted on (other groups, new tasks)",
}


class NoQualityGapError(DataError):
    """The strong model is no better than the weak one, so that no share of the gap between them can be measured."""


@dataclass(frozen=True)
class EvaluationOptions:
    """Holds the options of an evaluation of a probe.

    Attributes:
        folds: number of folds in which the recipe of `elle fit` is refitted on the data; None judges the probe itself.
        split: how the folds are drawn, by prompt text (`random`) or by whole groups.
        baselines: the routers that the probe is compared with.
        resamples: of the bootstrap, 2 or more.
        seed: of the folds and of the bootstrap.
    """

    folds: int | None = None
    split: Split = "random"
    baselines: tuple[Baseline, ...] = field(default_factory=quick_baselines)
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class ScoredRouters:
    """Holds what the probe and the baselines say of the same prompts, before anything is measured.

    Attributes:
        outcomes: of exactly two models, weak and strong in this order; every score is known.
        risk: (n, 2), the probe's calibrated risk of both models.
        routers: the probe's scores by the name PROBE, then those of each baseline by its name.
        skipped: why a baseline could not be run, by its name.
    """

    outcomes: Outcomes
    risk: FloatArray
    routers: Mapping[str, RouterScores]
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def truth(self) -> Truth:
        """The scores, texts and costs of the two models, which rankings are measured by."""
        costs = self.outcomes.cost_usd
        known = bool(np.isfinite(costs).all())
        return Truth(self.outcomes.scores, group_numbers(self.outcomes.texts), costs if known else None)


@dataclass(frozen=True)
class Evaluation:
    """Holds the figures of a probe and of the baselines on one pair of models.

    Attributes:
        n: prompts that both models answered.
        n_seen_in_fit: how many of them the probe was fitted on; figures on those flatter it. 0 if it is refitted.
        weak, strong: the models. weak_score, strong_score: their mean scores. weak_cost_usd, strong_cost_usd: their
            mean costs, None if some cost is unknown.
        split, folds: how the recipe was refitted on the data; both None if the probe itself was judged.
        probe: the figures of the ranking by predicted gain.
        baselines: the figures of each baseline by its name, with the probe's lead over it.
        splits: APGR by `random` and by `group` split; without `group` if the data have no two groups.
        slices: figures of parts of the data, by `group`, `length` and `script`, then by the part's label.
        skipped: why a baseline was not run, by its name.
        data: the files, with their SHA-256 and number of rows.
        n_estimated_costs: answers whose cost rests on an estimated number of tokens.
    """

    n: int
    n_seen_in_fit: int
    weak: str
    strong: str
    weak_score: float
    strong_score: float
    weak_cost_usd: float | None
    strong_cost_usd: float | None
    split: Split | None
    folds: int | None
    probe: Ranking
    baselines: Mapping[str, Ranking]
    splits: Mapping[str, Interval]
    slices: Mapping[str, Mapping[str, Slice]]
    skipped: Mapping[str, str]
    data: tuple[DataSource, ...]
    n_estimated_costs: int = 0

    @property
    def warning(self) -> str | None:
        """What the reader must know before believing the figures, or None if there is nothing to know."""
        if not self.n_seen_in_fit:
            return None
        return (
            f"{self.n_seen_in_fit:,} of these {self.n:,} prompts were used to fit the probe, so the figures "
            f"flatter it. Evaluate on other prompts, or refit its recipe on folds of these with --cv."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, the probe's ranking at the top level."""
        return {
            "n": self.n,
            "n_seen_in_fit": self.n_seen_in_fit,
            "weak": {"model": self.weak, "score": self.weak_score, "mean_cost_usd": self.weak_cost_usd},
            "strong": {"model": self.strong, "score": self.strong_score, "mean_cost_usd": self.strong_cost_usd},
            "split": self.split,
            "folds": self.folds,
            **self.probe.to_dict(),
            "baselines": {name: ranking.to_dict() for name, ranking in self.baselines.items()},
            "baselines_not_run": dict(self.skipped),
            "splits": {name: {"apgr": asdict(apgr), "expect": EXPECT[name]} for name, apgr in self.splits.items()},
            "slices": {
                by: {label: one.to_dict() for label, one in slices.items()} for by, slices in self.slices.items()
            },
            "n_estimated_costs": self.n_estimated_costs,
            "data": [asdict(source) for source in self.data],
            "warning": self.warning,
        }


def score_routers(
    probe: DifficultyProbe | None, outcomes: Outcomes, features: npt.NDArray[np.float32], options: EvaluationOptions
) -> ScoredRouters:
    """Let the probe and every baseline score the prompts of `outcomes`, whose features are (n, d).

    outcomes: of exactly two models, weak and strong in this order; every score is known. With `options.folds` the
    recipe of `elle fit` is refitted on the other folds and `probe` is not used. Without, the probe scores all prompts,
    and trained baselines are cross-fitted on the data.
    """
    folds = options.folds
    fold = split_folds(outcomes, folds or BASELINE_FOLDS, options.split, options.seed)
    if folds is None:
        if probe is None:
            raise DataError("judging needs a probe, or a number of folds to refit its recipe in; got neither.")
        columns = [probe.models.index(model) for model in outcomes.models]
        risk = probe.predict(features, outcomes.tasks or None).risk[:, columns].astype(np.float64)
    else:
        risk = probe_risk(outcomes, features, fold, options.seed)
    own = RouterScores(risk[:, 0] - risk[:, 1], risk[:, 0])
    found = score_baselines(outcomes, features, fold, options.baselines, options.seed)
    return ScoredRouters(outcomes, risk, {PROBE: own, **found.by_name}, found.skipped)


def evaluate(
    probe: DifficultyProbe | None, outcomes: Outcomes, features: npt.NDArray[np.float32], options: EvaluationOptions
) -> Evaluation:
    """Score the prompts as `score_routers` does, and return the figures of every router.

    Raises DataError if the strong model is not better than the weak one on the data or on some resample of them.
    """
    return measure_routers(score_routers(probe, outcomes, features, options), probe, features, options)


def measure_routers(
    scored: ScoredRouters,
    probe: DifficultyProbe | None,
    features: npt.NDArray[np.float32],
    options: EvaluationOptions,
) -> Evaluation:
    """Return the figures of routers that were scored with the same probe, features and options."""
    outcomes, truth, folds = scored.outcomes, scored.truth, options.folds
    draws = {"resamples": options.resamples, "seed": options.seed}
    rankings = measure(scored.routers, truth, reference=PROBE, **draws)
    own = rankings.pop(PROBE)
    _require_gap(own, outcomes)
    seen = 0 if probe is None or folds else int(np.isin(fingerprints(outcomes.texts), probe.fitted_on).sum())
    costs = (None, None) if truth.costs is None else tuple(truth.costs.mean(axis=0).tolist())
    labels = slice_labels(outcomes.texts, outcomes.groups)
    return Evaluation(
        n=len(outcomes),
        n_seen_in_fit=seen,
        weak=outcomes.models[0],
        strong=outcomes.models[1],
        weak_score=float(outcomes.scores[:, 0].mean()),
        strong_score=float(outcomes.scores[:, 1].mean()),
        weak_cost_usd=costs[0],
        strong_cost_usd=costs[1],
        split=None if folds is None else options.split,
        folds=folds,
        probe=own,
        baselines=rankings,
        splits={} if folds is None else _both_splits(own, outcomes, features, options),
        slices=measure_slices(scored.routers[PROBE], truth, labels, **draws),
        skipped=scored.skipped,
        data=outcomes.sources,
    )


def _require_gap(ranking: Ranking, outcomes: Outcomes) -> None:
    if "apgr" in ranking.figures:
        return
    (weak, strong), means = outcomes.models, outcomes.scores.mean(axis=0)
    raise NoQualityGapError(
        f"the strong model must be better than the weak one on these data and on every resample of them; {strong} has "
        f"{means[1]:.4f} and {weak} {means[0]:.4f} on {len(outcomes):,} prompts. Swap them, or add prompts."
    )


def _both_splits(
    own: Ranking, outcomes: Outcomes, features: npt.NDArray[np.float32], options: EvaluationOptions
) -> dict[str, Interval]:
    """Return the APGR by both splits, or only by the one asked for if the data have no groups to leave out."""
    if len(set(outcomes.groups)) < 2:
        return {options.split: own.apgr}
    other: Split = "group" if options.split == "random" else "random"
    scored = score_routers(None, outcomes, features, replace(options, split=other, baselines=()))
    ranking = measure(scored.routers, scored.truth, resamples=options.resamples, seed=options.seed)[PROBE]
    both = {options.split: own.apgr, other: ranking.apgr}
    return {name: both[name] for name in ("random", "group")}

"""How well a probe ranks prompts by the gain of the stronger model, beside everything that it has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from probes.errors import DataError
from probes.measures.bootstrap import Interval
from probes.probe import DataSource, DifficultyProbe, fingerprints
from router.tuning.judging.baselines import Baseline, all_baselines, quick_baselines
from router.tuning.judging.cross_validation import (
    BASELINE_FOLDS,
    Split,
    judge_baselines,
    probe_risk,
    split_folds,
)
from router.tuning.judging.pair_data import load_pair
from router.tuning.judging.ranking import Judgement, Ranking, Truth, measure
from router.tuning.judging.slices import Slice, measure_slices, slice_labels
from router.tuning.outcomes.datasets import Outcomes
from router.tuning.outcomes.distinct_texts import text_numbers
from router.tuning.outcomes.feature_cache import Progress

FloatArray = npt.NDArray[np.float64]

PROBE = "predicted gain"

EXPECT = {
    "random": "expect it for prompts of the kinds the probe was fitted on",
    "group": "expect it for kinds of prompts it was not fitted on (other groups, new tasks)",
}


@dataclass(frozen=True)
class Judged:
    """The probe's and the baselines' judgements of the same prompts, for whoever measures or draws them.

    Attributes:
        outcomes: exactly two models, weak and strong in this order, without gaps.
        risk: (n, 2), the probe's calibrated risk of both.
        judgements: the probe's by the name PROBE, then the baselines'.
        skipped: why a baseline could not be run, by its name.
    """

    outcomes: Outcomes
    risk: FloatArray
    judgements: Mapping[str, Judgement]
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def truth(self) -> Truth:
        """What the two models did."""
        costs = self.outcomes.cost_usd
        known = bool(np.isfinite(costs).all())
        return Truth(self.outcomes.scores, text_numbers(self.outcomes.texts), costs if known else None)


@dataclass(frozen=True)
class Evaluation:
    """A probe against data, for one pair of models.

    Attributes:
        n: prompts that both models answered.
        n_seen_in_fit: how many of them the probe was fitted on; figures on those flatter. 0 when it is refitted.
        weak, strong: the models. weak_score, strong_score: their mean scores. weak_cost_usd, strong_cost_usd: their
            mean costs, None where not all are known.
        split, folds: how the probe was refitted on the data themselves; None when it was taken as it is.
        probe: the ranking by predicted gain.
        baselines: by name, each with the probe's lead over it.
        splits: APGR by `random` and `group` split, where both could be had.
        slices: by `group`, `length` and `script`.
        skipped: why a baseline was not run.
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
        """What the reader must know before believing the figures."""
        if not self.n_seen_in_fit:
            return None
        return (
            f"{self.n_seen_in_fit:,} of these {self.n:,} prompts were used to fit the probe, so the figures "
            f"flatter it. Evaluate on other prompts, or refit its recipe on folds of these with --cv."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the probe's ranking at the top level."""
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

    def print(self, console: Console) -> None:
        """Tables for people."""
        title = (
            f"{self.strong} (score {self.strong_score:.3f}) over {self.weak} ({self.weak_score:.3f}), "
            f"{self.n:,} prompts, {self._how()}"
        )
        print_rankings(console, title, {PROBE: self.probe, **self.baselines}, self._constants())
        for name, apgr in self.splits.items():
            text = f"{name:<6} split: APGR {apgr.value:.3f} ({apgr.low:.3f} to {apgr.high:.3f}); {EXPECT[name]}."
            console.print(text, highlight=False)
        console.print(self._slice_table())
        if self.n_estimated_costs:
            console.print(f"{self.n_estimated_costs:,} of {2 * self.n:,} costs are estimates.", highlight=False)
        for name, why in self.skipped.items():
            console.print(f"not run: {name}: {why}", style="dim", highlight=False)
        console.print(
            "APGR: share of the quality gap recovered, averaged over shares of strong calls (random 0.5); beside it, "
            "by how much predicted gain is ahead, paired. CPT: least share of strong calls that recovers this part of "
            "the gap. AIQ: mean quality over the cost axis under the concave hull. Saved: cost against always strong, "
            "at its quality. AUROC, ECE: of the weak model's risk; baselines are calibrated on these very prompts. "
            "Lift: quality above random choice at equal strong share.",
            style="dim",
        )

    def _how(self) -> str:
        if self.split is None:
            return f"the probe as it is; trained baselines by {BASELINE_FOLDS}-fold cross-fitting on these data"
        by = "whole groups left out" if self.split == "group" else "split by prompt text"
        return f"refitted in {self.folds} folds, {by}"

    def _constants(self) -> dict[str, str]:
        costs = (self.weak_cost_usd, self.strong_cost_usd)
        return {
            f"always {name}": f"quality {score:.3f}" + ("" if cost is None else f", {1000 * cost:.3f} USD per 1,000")
            for name, score, cost in zip(
                (self.weak, self.strong), (self.weak_score, self.strong_score), costs, strict=True
            )
        }

    def _slice_table(self) -> Table:
        table = Table(box=None, pad_edge=False, title="Slices, worst lift first", title_justify="left")
        table.add_column("slice")
        for header in ("prompts", "weak", "strong", "lift", "95 %", "APGR"):
            table.add_column(header, justify="right")
        for by, slices in self.slices.items():
            for label, one in sorted(slices.items(), key=lambda item: item[1].lift.value)[:8]:
                lift = one.lift
                table.add_row(
                    f"{by} {label}",
                    f"{one.n:,}",
                    f"{one.weak_score:.3f}",
                    f"{one.strong_score:.3f}",
                    f"{lift.value:+.3f}",
                    f"{lift.low:+.3f} to {lift.high:+.3f}",
                    "-" if one.apgr is None else f"{one.apgr.value:.3f}",
                )
        return table


def print_rankings(
    console: Console, title: str, rankings: Mapping[str, Ranking], remarks: Mapping[str, str] | None = None
) -> None:
    """Rankings as a table for people, with further rows of one remark each."""
    shown = _WIDE if console.width >= _WIDE_FROM else _NARROW
    table = Table(box=None, pad_edge=False)
    table.add_column("ranking by", no_wrap=True)
    for header in shown:
        table.add_column(header.strip(), justify="right", no_wrap=True)
    for name, ranking in rankings.items():
        cells = _cells(ranking)
        table.add_row(name.replace("_", " "), *(cells[header] for header in shown))
    # Not the table's own title: that would be broken at the table's width.
    console.print(title, highlight=False)
    console.print(table)
    for name, remark in (remarks or {}).items():
        console.print(f"{name}: {remark}", highlight=False, style="dim")


#: Columns of the table of rankings; the second interval's header differs by a space, being another column.
_WIDE = ("APGR", "95 %", "ahead by", "95 % ", "CPT20", "CPT50", "CPT80", "AIQ", "saved", "AUROC", "ECE")
_NARROW = ("APGR", "95 %", "ahead by", "95 % ", "CPT50")
_WIDE_FROM = 120


def _cells(ranking: Ranking) -> dict[str, str]:
    ahead = ranking.ahead.get("apgr")
    shares = {"CPT20": "cpt20", "CPT50": "cpt50", "CPT80": "cpt80", "AIQ": "aiq", "saved": "cost_saved"}
    plain = {"AUROC": "auroc", "ECE": "ece"}
    return {
        "APGR": f"{ranking.apgr.value:.3f}",
        "95 %": f"{ranking.apgr.low:.3f} to {ranking.apgr.high:.3f}",
        "ahead by": "" if ahead is None else f"{ahead.value:+.3f}",
        "95 % ": "" if ahead is None else f"{ahead.low:+.3f} to {ahead.high:+.3f}",
        **{header: _cell(ranking.value(name), ".1%") for header, name in shares.items()},
        **{header: _cell(ranking.value(name), ".3f") for header, name in plain.items()},
    }


def _cell(value: float | None, shape: str) -> str:
    return "-" if value is None else format(value, shape)


def evaluate_command(
    probe_dir: Path,
    data: Sequence[Path],
    *,
    weak: str,
    strong: str,
    encoder_dir: Path | None,
    resamples: int,
    seed: int,
    on_progress: Progress | None,
    prices: str | None = None,
    folds: int | None = None,
    split: Split = "random",
    quick: bool = False,
) -> Evaluation:
    """What `elle evaluate` does. Raises ArtifactError, ConfigError, DataError or EncoderError."""
    pair = load_pair(
        probe_dir, data, weak=weak, strong=strong, prices=prices, encoder_dir=encoder_dir, on_progress=on_progress
    )
    baselines = quick_baselines() if quick else all_baselines()
    found = evaluate(
        pair.probe,
        pair.outcomes,
        pair.features,
        folds=folds,
        split=split,
        baselines=baselines,
        resamples=resamples,
        seed=seed,
    )
    return replace(found, n_estimated_costs=pair.n_estimated_costs)


def judge(
    probe: DifficultyProbe | None,
    outcomes: Outcomes,
    features: npt.NDArray[np.float32],
    *,
    folds: int | None = None,
    split: Split = "random",
    baselines: Sequence[Baseline] = (),
    seed: int = 0,
) -> Judged:
    """Judgements of outcomes of exactly two models, weak and strong in this order, without gaps.

    With `folds` the recipe of `elle fit` is refitted on folds of these data and `probe` is not used; without, the
    probe judges as it is and trained baselines are cross-fitted on the data.
    """
    fold = split_folds(outcomes, folds or BASELINE_FOLDS, split, seed)
    if folds is None:
        if probe is None:
            raise DataError("judging needs a probe, or a number of folds to refit its recipe in; got neither.")
        columns = [probe.models.index(model) for model in outcomes.models]
        risk = probe.predict(features).risk[:, columns].astype(np.float64)
    else:
        risk = probe_risk(outcomes, features, fold, seed)
    others = judge_baselines(outcomes, features, fold, baselines, seed)
    own = Judgement(risk[:, 0] - risk[:, 1], risk[:, 0])
    return Judged(outcomes, risk, {PROBE: own, **others.judgements}, others.skipped)


def evaluate(
    probe: DifficultyProbe | None,
    outcomes: Outcomes,
    features: npt.NDArray[np.float32],
    *,
    folds: int | None = None,
    split: Split = "random",
    baselines: Sequence[Baseline] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Figures of a probe, or of its recipe in `folds` folds; see `judge`, and `quick_baselines` for the default.

    Raises DataError where the strong model is not clearly the better one.
    """
    baselines = quick_baselines() if baselines is None else baselines
    judged = judge(probe, outcomes, features, folds=folds, split=split, baselines=baselines, seed=seed)
    return summarise(judged, probe, features, folds=folds, split=split, resamples=resamples, seed=seed)


def summarise(
    judged: Judged,
    probe: DifficultyProbe | None,
    features: npt.NDArray[np.float32],
    *,
    folds: int | None,
    split: Split,
    resamples: int,
    seed: int,
) -> Evaluation:
    """The figures of judgements already made; arguments as they were made with."""
    outcomes, truth = judged.outcomes, judged.truth
    rankings = measure(judged.judgements, truth, reference=PROBE, resamples=resamples, seed=seed)
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
        split=None if folds is None else split,
        folds=folds,
        probe=own,
        baselines=rankings,
        splits={} if folds is None else _other_split(own, outcomes, features, folds, split, resamples, seed),
        slices=measure_slices(judged.judgements[PROBE], truth, labels, resamples=resamples, seed=seed),
        skipped=judged.skipped,
        data=outcomes.sources,
    )


def _require_gap(ranking: Ranking, outcomes: Outcomes) -> None:
    if "apgr" in ranking.figures:
        return
    (weak, strong), means = outcomes.models, outcomes.scores.mean(axis=0)
    raise DataError(
        f"the strong model must be better than the weak one on these data and on every resample of them; {strong} has "
        f"{means[1]:.4f} and {weak} {means[0]:.4f} on {len(outcomes):,} prompts. Swap them, or add prompts."
    )


def _other_split(
    own: Ranking,
    outcomes: Outcomes,
    features: npt.NDArray[np.float32],
    folds: int,
    split: Split,
    resamples: int,
    seed: int,
) -> dict[str, Interval]:
    """APGR by both splits; only the one asked for where the data have no groups to leave out."""
    if len(set(outcomes.groups)) < 2:
        return {split: own.apgr}
    other: Split = "group" if split == "random" else "random"
    judged = judge(None, outcomes, features, folds=folds, split=other, seed=seed)
    ranking = measure(judged.judgements, judged.truth, resamples=resamples, seed=seed)[PROBE]
    both = {split: own.apgr, other: ranking.apgr}
    return {name: both[name] for name in ("random", "group")}

"""Measure a model that joins a probe from few labels (`elle fit --add`) against a ridge on the same labels alone.

    python -m benchmarks.quality.new_model > new_model.json

Each model but the strongest is left out in turn. A probe of the others is fitted on half of the prompts, by text;
labels of the model that was left out are drawn from a fifth, and the ranking by the predicted gain of the strongest
model over it is judged on the rest. Models are the unit of the intervals, and draws within them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.quality.figures import signed_with_interval, with_interval
from probes.grouping import group_numbers
from probes.measures.prediction import ece
from probes.measures.routing import apgr
from probes.probe import DifficultyProbe, ProbeCard
from probes.regression.fit import fit_ridge
from router.tuning.fitting.addition import add_model
from router.tuning.fitting.recipe import fit_maps, risk_through
from router.tuning.outcomes.datasets import Outcomes

FloatArray = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]

#: Shares of the texts that the probe is fitted on, and that labels are drawn from; the rest is judged.
FITTED, LABELLED = 0.5, 0.2

SIZES = (10, 20, 50, 100, 300, 500)

#: What the added model is compared with, on the same draws.
COMPARED = ("own", "difficulty")

NAMES = {
    "added": "**added to the probe (`--add`)**",
    "own": "ridge on these labels alone",
    "difficulty": "difficulty of the others, no label",
    "full": "ridge on every prompt of the fit",
}


@dataclass(frozen=True)
class Parts:
    """Holds the rows of one split of the prompts by text: to fit the probe on, to draw labels from, and to judge."""

    fitted: Rows
    labelled: Rows
    judged: Rows


def split_rows(outcomes: Outcomes, seed: int) -> Parts:
    """Split the rows at random by text."""
    texts = group_numbers(outcomes.texts)
    place = np.random.default_rng(seed).permutation(int(texts.max()) + 1)[texts] / (texts.max() + 1)
    parts = place < FITTED, (place >= FITTED) & (place < FITTED + LABELLED), place >= FITTED + LABELLED
    return Parts(*(np.flatnonzero(inside) for inside in parts))


def new_model_results(
    outcomes: Outcomes,
    features: Features,
    *,
    sizes: Sequence[int] = SIZES,
    splits: int = 2,
    draws: int = 10,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the APGR of each way and number of labels, over all models but the strongest, with intervals.

    outcomes: every model has answered every prompt. For each split there are `draws` draws of labels of each model.
    Numbers of labels that a split has not are left out.
    """
    means = outcomes.scores.mean(axis=0)
    strong = int(np.argmax(means))
    new = [column for column in range(len(outcomes.models)) if column != strong]
    parts = [split_rows(outcomes, seed + number) for number in range(splits)]
    sizes = [size for size in sizes if size <= min(len(one.labelled) for one in parts)]
    rows: dict[str, list[list[dict[str, Any]]]] = {str(size): [[] for _ in new] for size in sizes}
    for one in parts:
        for place, column in enumerate(new):
            left = _LeftOut.fit(outcomes, features, one, column, strong, seed)
            rng = np.random.default_rng([seed, column])
            for size in sizes:
                rows[str(size)][place] += [left.drawn(rng.permutation(one.labelled)[:size]) for _ in range(draws)]
    return {
        "n": len(outcomes),
        "n_fitted": len(parts[0].fitted),
        "n_judged": len(parts[0].judged),
        "strong": outcomes.models[strong],
        "models": [outcomes.models[column] for column in new],
        "splits": splits,
        "draws": splits * draws,
        "by_labels": {size: _figures(found, resamples, seed) for size, found in rows.items()},
        "by_model_at_50": _by_model(rows, [outcomes.models[column] for column in new]),
    }


@dataclass(frozen=True)
class _LeftOut:
    """Holds a probe of all models but one, and what does not depend on the labels of that one."""

    outcomes: Outcomes
    features: Features
    probe: DifficultyProbe
    judged: Rows
    column: int
    strong: int
    fixed: Mapping[str, float]

    @classmethod
    def fit(cls, outcomes: Outcomes, features: Features, parts: Parts, column: int, strong: int, seed: int) -> _LeftOut:
        old = [other for other in range(len(outcomes.models)) if other != column]
        fitted = outcomes.take(parts.fitted, old)
        maps = fit_maps(features[parts.fitted], 1.0 - fitted.scores, fitted.texts, seed)
        probe = DifficultyProbe(
            encoder=None,
            encoder_identity="",
            models=fitted.models,
            linear=maps.linear,
            leverage=maps.leverage,
            leverage_limit=maps.leverage_limit,
            calibrators=maps.calibrators,
            card=ProbeCard(title="the others", created=""),
        )
        found = cls(outcomes, features, probe, parts.judged, column, strong, {})
        full = fit_ridge(features[parts.fitted], 1.0 - outcomes.scores[parts.fitted][:, [column]]).probe
        losses = found.losses_of_others()
        fixed = {
            "difficulty": found.apgr_of(losses.mean(axis=1) - losses[:, found.strong_of_others]),
            "full": found.apgr_of(full.predict(features[parts.judged])[:, 0] - losses[:, found.strong_of_others]),
        }
        return cls(outcomes, features, probe, parts.judged, column, strong, fixed)

    @property
    def strong_of_others(self) -> int:
        return self.probe.models.index(self.outcomes.models[self.strong])

    def losses_of_others(self) -> FloatArray:
        return self.probe.linear.predict(self.features[self.judged]).astype(np.float64)

    def apgr_of(self, gain: FloatArray) -> float:
        scores = self.outcomes.scores[self.judged]
        return apgr(gain, scores[:, self.column], scores[:, self.strong])

    def drawn(self, rows: Rows) -> dict[str, Any]:
        """Return the APGR of every way to rank after the labels of these rows, and the ECE of the new model."""
        labels, X = self.outcomes.take(rows, [self.column]), self.features[rows]
        added = add_model(self.probe, labels, X)
        probe, judged = added.probe, self.features[self.judged]
        risk = risk_through(probe.calibrators, probe.linear.predict(judged).astype(np.float64))
        strong_loss = self.losses_of_others()[:, self.strong_of_others]
        own = fit_ridge(X, 1.0 - labels.scores).probe.predict(judged)[:, 0]
        return {
            "added": self.apgr_of(risk[:, -1] - risk[:, self.strong_of_others]),
            "own": self.apgr_of(own - strong_loss),
            **self.fixed,
            "ece": ece(risk[:, -1], 1.0 - self.outcomes.scores[self.judged, self.column]),
            "way": added.addition.way,
        }


def _figures(by_model: Sequence[Sequence[Mapping[str, Any]]], resamples: int, seed: int) -> dict[str, Any]:
    """Return the means with intervals; `by_model` holds the draws of each model."""
    values = {name: np.array([[draw[name] for draw in own] for own in by_model]) for name in (*NAMES, "ece")}
    ways = [draw["way"] for own in by_model for draw in own]
    return {
        "apgr": {name: _interval(values[name], resamples, seed) for name in NAMES},
        "ahead_of": {name: _interval(values["added"] - values[name], resamples, seed) for name in COMPARED},
        "ece": _interval(values["ece"], resamples, seed),
        "ways": {way: ways.count(way) / len(ways) for way in sorted(set(ways))},
    }


def _interval(values: FloatArray, resamples: int, seed: int) -> dict[str, float]:
    """Return the mean of values (models, draws) with a 95 % interval: models are drawn again, and draws within them."""
    rng, (models, draws) = np.random.default_rng(seed), values.shape
    means = np.empty(resamples)
    for number in range(resamples):
        drawn = values[rng.integers(models, size=models)]
        means[number] = np.take_along_axis(drawn, rng.integers(draws, size=(models, draws)), axis=1).mean()
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}


def _by_model(rows: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], models: Sequence[str]) -> dict[str, Any]:
    """Return the mean APGR of each model with 50 labels; nothing if these were not measured."""
    return {
        model: {name: float(np.mean([draw[name] for draw in own])) for name in NAMES}
        for model, own in zip(models, rows.get("50", []), strict=False)
    }


def new_model_section(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the section of docs/results.md on a model that is added from few labels."""
    by_labels = found["by_labels"]
    yield "## A new model from few labels"
    yield ""
    yield f"MMLU-Pro, {found['n']:,} prompts. Each of {len(found['models'])} models is left out in turn, and joins a"
    yield f"probe of the others (`elle fit --add`), which was fitted on {found['n_fitted']:,} prompts, from labels of"
    yield f"further ones. Figures are the APGR of the ranking by the gain of {found['strong']} over the new model, on"
    yield f"{found['n_judged']:,} prompts that neither saw: means over models, {found['splits']} splits by text, and"
    yield f"{found['draws']} draws of labels of each model in all. Brackets are 95 % intervals by a bootstrap"
    yield "over models, and over draws within each; *ahead* is paired. ECE is of the new model's risk. The usual"
    yield "penalty of `--add` was chosen on these data."
    yield ""
    yield "| ranking by | " + " | ".join(f"{size} labels" for size in by_labels) + " |"
    yield "|---" * (len(by_labels) + 1) + "|"
    for name, label in NAMES.items():
        yield f"| {label} | " + " | ".join(with_interval(one["apgr"][name]) for one in by_labels.values()) + " |"
    for name in COMPARED:
        cells = (signed_with_interval(one["ahead_of"][name]) for one in by_labels.values())
        yield f"| ahead of {NAMES[name]} | " + " | ".join(cells) + " |"
    yield "| ECE | " + " | ".join(with_interval(one["ece"]) for one in by_labels.values()) + " |"


def main() -> None:
    """Print the results as JSON."""
    from benchmarks.bench_quality import run

    print(json.dumps(run(["new_model"], None, 1000), indent=2, allow_nan=False))


if __name__ == "__main__":
    main()

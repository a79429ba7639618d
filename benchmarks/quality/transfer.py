"""Measure transfer to another task: with none of its labels, with a few alone, and with the old fit as prior."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.grouping import group_numbers
from probes.measures.prediction import ece
from probes.measures.routing import apgr
from probes.regression.adapt import adapt
from probes.regression.fit import fit_ridge
from probes.regression.prior import Prior
from router.tuning.fitting.adaptation import move_maps
from router.tuning.fitting.recipe import FittedMaps, fit_maps, risk_through
from router.tuning.judging.ranking import RouterScores, Truth, measure
from router.tuning.outcomes.datasets import Outcomes

FloatArray = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]

#: What the adapted probe is compared with. `old` as shipped, `old_raw` before its calibration maps; `new`, the ridge on
#: the new labels alone, before calibration: maps fitted to so few labels only make its ranking worse.
SOURCES = ("old", "old_raw", "new")

#: Subjects of MMLU that are cut out, one domain at a time, as if they were another task. The first five were looked at
#: when the recipe was chosen (docs/decisions/0002-features.md), the others were not.
DOMAINS: Mapping[str, tuple[str, ...]] = {
    "law": ("international_law", "jurisprudence", "professional_law"),
    "medicine": (
        *("anatomy", "clinical_knowledge", "college_medicine", "medical_genetics"),
        *("professional_medicine", "nutrition", "virology"),
    ),
    "history": ("high_school_european_history", "high_school_us_history", "high_school_world_history", "prehistory"),
    "science": (
        *("astronomy", "college_biology", "college_chemistry", "college_physics"),
        *("conceptual_physics", "high_school_biology", "high_school_chemistry", "high_school_physics"),
    ),
    "psychology": ("high_school_psychology", "professional_psychology"),
    "business": (
        *("business_ethics", "econometrics", "high_school_macroeconomics", "high_school_microeconomics"),
        *("management", "marketing", "professional_accounting"),
    ),
    "philosophy": (
        *("formal_logic", "logical_fallacies", "moral_disputes", "moral_scenarios"),
        *("philosophy", "world_religions"),
    ),
    "computing": (
        *("college_computer_science", "computer_security", "electrical_engineering"),
        *("high_school_computer_science", "machine_learning"),
    ),
}


def transfer_results(
    old: Outcomes,
    old_features: Features,
    new: Outcomes,
    new_features: Features,
    *,
    sizes: Sequence[int],
    draws: int,
    resamples: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the APGR on the new task: with old labels only, with new ones alone, and with the old fit as prior.

    Both data sets hold the same two models, weak and strong. Each of `draws` draws of labels is judged on the new
    task's other texts. Sizes of more than 0.6 of the new task's texts are left out.
    """
    losses = 1.0 - old.scores
    maps = fit_maps(old_features, losses, old.texts, seed, groups=old.groups)
    prior = Prior.of(old_features, losses)
    risk = maps.risk_of(new_features)
    truth = Truth(new.scores, group_numbers(new.texts))
    zero = measure({"": RouterScores(_gain(risk), risk[:, 0])}, truth, resamples=resamples, seed=seed)[""]
    found: dict[str, Any] = {
        "old": [source.name for source in old.sources],
        "new": [source.name for source in new.sources],
        "n_old": len(old),
        "n_new": len(new),
        "no_new_labels": {"apgr": asdict(zero.apgr), "ece": zero.value("ece"), "auroc": zero.value("auroc")},
        "draws": draws,
        "with_labels": {},
    }
    for size in sizes:
        if size <= 0.6 * len(set(new.texts)):
            rows = [_draw(maps, prior, new, new_features, size, seed + 1 + number) for number in range(draws)]
            found["with_labels"][str(size)] = _over_draws(rows)
    return found


def domain_results(
    outcomes: Outcomes, features: Features, *, n_labels: int, draws: int, resamples: int
) -> dict[str, Any]:
    """Return the figures of `transfer_results` for each large domain of MMLU; the old task is the other subjects."""
    return {
        name: transfer_results(
            outcomes.take(np.flatnonzero(~inside)),
            features[~inside],
            outcomes.take(np.flatnonzero(inside)),
            features[inside],
            sizes=(n_labels,),
            draws=draws,
            resamples=resamples,
        )
        for name, inside in _domains(outcomes)
        if 0.6 * inside.sum() >= n_labels
    }


def _domains(outcomes: Outcomes) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    for name, subjects in DOMAINS.items():
        yield name, np.isin(np.array(outcomes.groups), subjects)


def _draw(
    maps: FittedMaps, prior: Prior, new: Outcomes, features: Features, n_labels: int, seed: int
) -> dict[str, float]:
    """Return the APGR of every source and of the adapted probe on the texts not drawn, its weight and its ECE."""
    texts = group_numbers(new.texts)
    drawn = np.random.default_rng(seed).permutation(int(texts.max()) + 1)[:n_labels]
    labelled = np.isin(texts, drawn)
    X, losses, test = features[labelled], 1.0 - new.scores[labelled], features[~labelled]
    adapted = adapt(prior, maps.linear.alpha, X, losses, texts[labelled])
    moved = move_maps(maps.calibrators, prior.target_mean, adapted.left_out, losses)
    said = {
        "adapted": risk_through(moved, adapted.probe.predict(test).astype(np.float64)),
        "old": maps.risk_of(test),
        "old_raw": maps.linear.predict(test),
        "new": fit_ridge(X, losses).probe.predict(test),
    }
    weak, strong = new.scores[~labelled].T
    figures = {name: apgr(_gain(one), weak, strong) for name, one in said.items()}
    errors = {f"{name}_ece": ece(said[name][:, 0], 1.0 - weak) for name in ("adapted", "old")}
    return figures | errors | {"weight": adapted.weight}


def _gain(losses: npt.NDArray[Any]) -> FloatArray:
    return np.asarray(losses[:, 0] - losses[:, 1], dtype=np.float64)


def _over_draws(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return means over draws with normal 95 % intervals, and those of the paired leads of the adapted probe."""
    return {
        "apgr": {name: _mean([row[name] for row in rows]) for name in ("adapted", *SOURCES)},
        "ahead_of": {name: _mean([row["adapted"] - row[name] for row in rows]) for name in SOURCES},
        "ece": {name: float(np.mean([row[f"{name}_ece"] for row in rows])) for name in ("adapted", "old")},
        "weights": [row["weight"] for row in rows],
    }


def _mean(values: Sequence[float]) -> dict[str, float]:
    mean, half = float(np.mean(values)), 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return {"value": mean, "low": mean - half, "high": mean + half}

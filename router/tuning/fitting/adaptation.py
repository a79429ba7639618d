"""Adapt a probe to few labels of a new task: its statistics act as prior, and its calibration maps are shifted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from probes.artifacts import store as artifact
from probes.calibration.base import Calibrator
from probes.calibration.beta import Beta
from probes.encoders.spec import EncoderSpec
from probes.errors import DataError
from probes.grouping import group_numbers
from probes.probe import FAMILIAR_QUANTILE, DifficultyProbe
from probes.regression.adapt import adapt
from probes.regression.linear import Leverage
from probes.regression.prior import Prior
from probes.regression.ridge import RidgeFitter
from probes.regression.solution import LEVERAGE_TOLERANCE
from router.tuning.fitting.recipe import MIN_TEXTS, FittedMaps, enough_texts, risk_through, spread_folds
from router.tuning.outcomes.datasets import Outcomes

FloatArray = npt.NDArray[np.float64]

#: Labels that every model needs. Adapting to fewer labels was not measured.
MIN_LABELS = 50


@dataclass(frozen=True, eq=False)
class PriorProbe:
    """Holds a saved probe to adapt, with the sums of its fit (`elle fit --keep-statistics`)."""

    probe: DifficultyProbe
    statistics: Prior

    @classmethod
    def load(cls, path: Path) -> PriorProbe:
        """Read the probe and its statistics from the folder of a saved probe.

        Raises ArtifactError as `artifact.load` and `artifact.load_prior` do, and DataError if a calibration map is not
        of kind beta.
        """
        old = cls(artifact.load(path), artifact.load_prior(path))
        kinds = [one.kind for one in old.probe.calibrators]
        if set(kinds) != {Beta.kind}:
            raise DataError(f"the probe at {path} must be calibrated by {Beta.kind} maps; got {kinds or 'none'}.")
        return old

    def check(self, spec: EncoderSpec, outcomes: Outcomes) -> Outcomes:
        """Check that the outcomes are of the probe's models, and return them in the probe's order.

        Raises EncoderMismatchError for another encoder. Raises DataError if a model of the probe is missing, if the
        data hold a model that the probe does not know, or if a model has fewer than MIN_LABELS labels or labels of
        fewer than MIN_TEXTS different prompts.
        """
        own = None if self.probe.encoder is None else EncoderSpec.from_dict(self.probe.encoder).pinned()
        if own is None or own.identity != spec.identity:
            self.probe.check_encoder(spec.identity)
        known, given = self.probe.models, outcomes.models
        if set(known) != set(given):
            raise DataError(
                f"the data must be of the models of the prior ({', '.join(known)}); "
                f"missing: {_listed(known, given)}; not in the prior: {_listed(given, known)}. "
                "Choose columns with --models, or fit without --prior."
            )
        outcomes = outcomes.select_models(known)
        for model, count in zip(known, np.isfinite(outcomes.scores).sum(axis=0).tolist(), strict=True):
            if count < MIN_LABELS:
                raise DataError(
                    f"adapting needs at least {MIN_LABELS} labels of each model; {model} has {count}. Add outcomes."
                )
        enough = enough_texts(outcomes.scores, outcomes.texts)
        if few := [model for model, kept in zip(known, enough, strict=True) if not kept]:
            raise DataError(f"the labels of {', '.join(few)} must be of at least {MIN_TEXTS} different prompts.")
        return outcomes


@dataclass(frozen=True)
class AdaptedFrom:
    """Names the probe that another one was adapted from, and the weight of its labels.

    Attributes:
        identity, title: of the old probe.
        n_old_rows: prompts that the old probe was fitted on. n_new_rows: prompts of the new task.
        weight: what one old label counts, in labels of the new task; 0 if the old labels were given up.
    """

    identity: str
    title: str
    n_old_rows: int
    n_new_rows: int
    weight: float

    def describe(self) -> str:
        """Return a sentence that says what the probe was adapted from."""
        return (
            f"Adapted to {self.n_new_rows:,} prompts from the probe {self.title!r} ({self.identity[:12]}): "
            f"each of the {self.n_old_rows:,} prompts of its fit counts {self.weight:g} of a new one."
        )


def adapt_maps(
    prior: PriorProbe, features: npt.NDArray[np.float32], losses: FloatArray, texts: Sequence[str], seed: int = 0
) -> tuple[FittedMaps, AdaptedFrom]:
    """Adapt a probe to features (n, d) and losses (n, m) of a new task; NaN stands for a model that was not asked.

    Return the adapted maps, and what they were adapted from.
    """
    numbers = group_numbers(texts)
    found = adapt(prior.statistics, prior.probe.linear.alpha, features, losses, numbers)
    leverage, limit = familiarity(prior, features)
    maps = FittedMaps(
        linear=found.probe,
        leverage=leverage,
        calibrators=move_maps(prior.probe.calibrators, prior.statistics.target_mean, found.left_out, losses),
        leverage_limit=limit,
        predicted=found.left_out,
        risk=_held_out_risk(prior, found.left_out, losses, spread_folds(losses, texts, seed)),
        split="each prompt text left out in turn",
    )
    n_old = prior.statistics.everything.n_rows
    return maps, AdaptedFrom(prior.probe.identity, prior.probe.card.title, n_old, len(losses), found.weight)


def move_maps(
    calibrators: Sequence[Calibrator], old_means: FloatArray, predicted: FloatArray, losses: FloatArray
) -> tuple[Calibrator, ...]:
    """Return beta maps of an old task, shifted to the mean losses of a new one.

    old_means: (m,) mean losses of the old task. predicted, losses: (n, m) of the new task; the predictions are of rows
    left out, and NaN losses stand for models that were not asked. The labels decide one number for each model, its mean
    loss: maps fitted anew to 50 or 100 labels rank clearly worse, and raw predictions rank worse if the two tasks are
    alike (docs/decisions/0002-features.md).
    """
    maps: list[Calibrator] = []
    for column, (one, old_mean) in enumerate(zip(calibrators, old_means, strict=True)):
        rows = np.flatnonzero(np.isfinite(losses[:, column]))
        known = losses[rows, column]
        maps.append(Beta(one.state()["parameters"]).moved(known.mean() - old_mean, predicted[rows, column], known))
    return tuple(maps)


def _held_out_risk(
    prior: PriorProbe, predicted: FloatArray, losses: FloatArray, fold: npt.NDArray[np.int64]
) -> FloatArray:
    """Return the risk (n, m) of every row, through maps that the other folds shifted."""
    risk = np.empty(predicted.shape)
    for number in np.unique(fold):
        inside = fold == number
        maps = move_maps(prior.probe.calibrators, prior.statistics.target_mean, predicted[~inside], losses[~inside])
        risk[inside] = risk_through(maps, predicted[inside])
    return risk


def familiarity(prior: PriorProbe, features: npt.NDArray[np.float32]) -> tuple[Leverage, float | None]:
    """Return the leverage against old and new rows together, and its limit. Prompts like either are familiar.

    The limit is the larger of the old one and the FAMILIAR_QUANTILE of the leverage that the new rows have when left
    out; with fewer than 1,000 new rows that is in effect their largest. It is None if the old probe has none.
    """
    d = prior.statistics.n_features
    seen = prior.statistics.everything.without_targets() + RidgeFitter(d, 0).update(
        features, np.empty((len(features), 0))
    )
    leverage = seen.spectrum().leverage(float(prior.probe.linear.alpha.min()), LEVERAGE_TOLERANCE)
    if prior.probe.leverage_limit is None:
        return leverage, None
    # Leaving a row out of the statistics turns its leverage h into h / (1 - h), Sherman and Morrison; h is rounded,
    # so it may reach 1.
    h = np.minimum(leverage.score(features).astype(np.float64), 0.99)
    return leverage, max(prior.probe.leverage_limit, float(np.quantile(h / (1.0 - h), FAMILIAR_QUANTILE)))


def _listed(names: Sequence[str], known: Sequence[str]) -> str:
    return ", ".join(sorted(set(names) - set(known))) or "none"

"""The recipe of a probe adapted to few labels of another task: old statistics as prior, old maps moved to its mean."""

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
from probes.probe import FAMILIAR_QUANTILE, DifficultyProbe
from probes.regression.adapt import adapt
from probes.regression.linear import Leverage
from probes.regression.prior import Prior
from probes.regression.ridge import RidgeFitter
from probes.regression.solution import LEVERAGE_TOLERANCE
from router.tuning.fitting.recipe import MIN_TEXTS, FittedMaps, enough_texts, risk_through, spread_folds
from router.tuning.outcomes.datasets import Outcomes
from router.tuning.outcomes.distinct_texts import text_numbers

FloatArray = npt.NDArray[np.float64]

#: Labels that every model needs. Fewer were not measured.
MIN_LABELS = 50


@dataclass(frozen=True, eq=False)
class OldFit:
    """A saved probe with the statistics of its fit."""

    probe: DifficultyProbe
    prior: Prior

    @classmethod
    def load(cls, path: Path) -> OldFit:
        """Read both.

        Raises ArtifactError as `artifact.load` and `artifact.load_prior`, DataError where a map is not of kind beta.
        """
        old = cls(artifact.load(path), artifact.load_prior(path))
        kinds = [one.kind for one in old.probe.calibrators]
        if set(kinds) != {Beta.kind}:
            raise DataError(f"the probe at {path} must be calibrated by {Beta.kind} maps; got {kinds or 'none'}.")
        return old

    def check(self, spec: EncoderSpec, outcomes: Outcomes) -> Outcomes:
        """The outcomes with the probe's models in its order.

        Raises EncoderMismatchError for another encoder, DataError where a model of the probe is missing, one that it
        does not know is there, or one has fewer than MIN_LABELS labels or labels of fewer than MIN_TEXTS prompts.
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
    """What a probe was adapted from: identity and title of the old probe and the rows of its fit, n of the new task.

    weight: what one old label counted, in labels of the new task; 0 where the old ones were given up.
    """

    identity: str
    title: str
    n_old_rows: int
    n_new_rows: int
    weight: float


def adapt_maps(
    old: OldFit, features: npt.NDArray[np.float32], losses: FloatArray, texts: Sequence[str], seed: int = 0
) -> tuple[FittedMaps, AdaptedFrom]:
    """Adapt to features (n, d) and losses (n, m) of the new task, NaN where a model was not asked."""
    numbers = text_numbers(texts)
    found = adapt(old.prior, old.probe.linear.alpha, features, losses, numbers)
    leverage, limit = familiarity(old, features)
    maps = FittedMaps(
        linear=found.probe,
        leverage=leverage,
        calibrators=move_maps(old.probe.calibrators, old.prior.target_mean, found.left_out, losses),
        leverage_limit=limit,
        predicted=found.left_out,
        risk=_held_out_risk(old, found.left_out, losses, spread_folds(losses, texts, seed)),
        split="each prompt text left out in turn",
    )
    n_old = old.prior.everything.n_rows
    return maps, AdaptedFrom(old.probe.identity, old.probe.card.title, n_old, len(losses), found.weight)


def move_maps(
    calibrators: Sequence[Calibrator], old_means: FloatArray, predicted: FloatArray, losses: FloatArray
) -> tuple[Calibrator, ...]:
    """Beta maps of an old task of mean losses `old_means` (m,), moved to predictions and losses (n, m) of another.

    The predictions are of rows left out; NaN losses are missing pairs. What the labels decide is one number per model,
    its mean loss. Maps fitted to 50 or 100 labels rank clearly worse, raw predictions worse where the tasks are
    alike (docs/decisions/0002-features.md).
    """
    maps: list[Calibrator] = []
    for column, (one, old_mean) in enumerate(zip(calibrators, old_means, strict=True)):
        rows = np.flatnonzero(np.isfinite(losses[:, column]))
        known = losses[rows, column]
        maps.append(Beta(one.state()["parameters"]).moved(known.mean() - old_mean, predicted[rows, column], known))
    return tuple(maps)


def _held_out_risk(old: OldFit, predicted: FloatArray, losses: FloatArray, fold: npt.NDArray[np.int64]) -> FloatArray:
    """Risk (n, m) of every row through maps moved by the other folds."""
    risk = np.empty(predicted.shape)
    for number in np.unique(fold):
        inside = fold == number
        maps = move_maps(old.probe.calibrators, old.prior.target_mean, predicted[~inside], losses[~inside])
        risk[inside] = risk_through(maps, predicted[inside])
    return risk


def familiarity(old: OldFit, features: npt.NDArray[np.float32]) -> tuple[Leverage, float | None]:
    """Leverage against old and new rows together, and its limit: familiar is what either has seen.

    The limit is the old one, or the leverage that the new rows have when left out, if that is larger; with fewer than
    1,000 of them in effect their largest. None where the old probe has none.
    """
    d = old.prior.n_features
    seen = old.prior.everything.without_targets() + RidgeFitter(d, 0).update(features, np.empty((len(features), 0)))
    leverage = seen.spectrum().leverage(float(old.probe.linear.alpha.min()), LEVERAGE_TOLERANCE)
    if old.probe.leverage_limit is None:
        return leverage, None
    # Leaving a row out of the statistics turns its leverage h into h / (1 - h), Sherman and Morrison; h is rounded.
    h = np.minimum(leverage.score(features).astype(np.float64), 0.99)
    return leverage, max(old.probe.leverage_limit, float(np.quantile(h / (1.0 - h), FAMILIAR_QUANTILE)))


def _listed(names: Sequence[str], known: Sequence[str]) -> str:
    return ", ".join(sorted(set(names) - set(known))) or "none"

"""Fit a probe to (embedding, loss) pairs, and measure its correlation on pairs left out."""

from __future__ import annotations

import numpy as np

from probes.errors import DataError
from probes.losses.pairs import LossPairs
from probes.measures.bootstrap import Interval
from probes.measures.prediction import fisher_interval, pearson_r
from probes.probe import FAMILIAR_QUANTILE, DataSource, DifficultyProbe, ProbeCard, software_versions, utc_now
from probes.regression.crossfit import assign_folds, out_of_fold
from probes.regression.fit import fit_ridge

FOLDS = 5
MIN_PAIRS = 50


def fit_loss_probe(
    pairs: LossPairs, title: str, *, source: DataSource | None = None, seed: int = 0
) -> tuple[DifficultyProbe, Interval]:
    """Return a probe of one target, `loss`, in the units of the losses, and its Pearson r over 5 folds (95 % interval).

    The probe names no encoder (its features come from elsewhere) and has no calibration (a loss in nats is no
    probability): `elle score` writes `loss_loss` and `leverage` with it.

    Raises DataError for fewer than 50 pairs or losses that are all equal.
    """
    if len(pairs) < MIN_PAIRS:
        raise DataError(f"fitting needs at least {MIN_PAIRS} pairs, got {len(pairs)}; measure more losses.")
    folds = assign_folds(np.arange(len(pairs)), FOLDS, seed)
    solution = fit_ridge(pairs.embeddings, pairs.losses)
    held_out = out_of_fold(pairs.embeddings, pairs.losses, folds, alpha=solution.alpha)
    r = fisher_interval(pearson_r(held_out.prediction[:, 0], pairs.losses), len(pairs))
    probe = DifficultyProbe(
        encoder=None,
        encoder_identity="",
        models=("loss",),
        linear=solution.probe,
        leverage=solution.leverage,
        leverage_limit=float(np.quantile(held_out.leverage, FAMILIAR_QUANTILE)),
        calibrators=(),
        card=_card(title, len(pairs), r, source),
    )
    return probe, r


def _card(title: str, n_pairs: int, r: Interval, source: DataSource | None) -> ProbeCard:
    return ProbeCard(
        title=title,
        created=utc_now(),
        summary="Loss of one model on a sample, from the sample's embedding.",
        data=() if source is None else (source,),
        n_samples={"loss": n_pairs},
        metrics={
            "split": f"{FOLDS}-fold cross-validation, random",
            "pearson_r": {"value": r.value, "low": r.low, "high": r.high},
        },
        versions=software_versions(),
    )

"""Outcomes + features -> a calibrated probe, and an honest summary of what it does on prompts it has not seen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from probes.artifacts import store as artifact
from probes.encoders.exported import pinned_here
from probes.encoders.spec import EncoderSpec, parse_spec
from probes.errors import ArtifactError, DataError
from probes.measures.prediction import auroc, brier, ece, pearson_r
from probes.probe import DataSource, DifficultyProbe, ProbeCard, fingerprints, software_versions, utc_now
from probes.regression.prior import Prior
from router.tuning.fitting.adaptation import AdaptedFrom, OldFit, adapt_maps
from router.tuning.fitting.pair_figures import PairFigures, pair_figures
from router.tuning.fitting.recipe import MIN_PROMPTS, MIN_TEXTS, enough_texts, fit_maps
from router.tuning.judging.evaluate import PROBE, print_rankings
from router.tuning.outcomes.datasets import GRADED, Outcomes, graded_models, read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache, Progress
from router.tuning.outcomes.holdout import Split, left_out, to_fit
from router.tuning.outcomes.latest import latest, parse_latest

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ModelFigures:
    """How well the loss of one model is predicted on prompts left out; None where a figure is not defined."""

    n: int
    mean_score: float
    pearson_r: float | None
    auroc: float | None
    brier: float
    ece: float


@dataclass(frozen=True)
class FitSummary:
    """What was fitted, on what, and its cross-validated figures.

    Attributes:
        out: where the probe was written. replaced: SHA-256 of the probe that was there before; None without one.
        identity: SHA-256 of the probe.
        n_prompts: with any label. n_texts: distinct among them. n_features: width of the features.
        n_held_out: further prompts, left out on purpose for `elle tune`. n_set_aside: prompts that repeat the text of
            one of these, so that the fit may not see them.
        alpha: ridge penalty.
        models: figures by model name.
        pair: the two models whose mean scores lie furthest apart on the prompts they share; None where there is none.
        pair_note: why there is no pair, or what else to know of its choice; None where there is nothing to say.
        notes: what else to know of the models, in words: left out, with few labels, with equal labels.
        data: the files, with their SHA-256 and number of rows.
        adapted_from: of a probe adapted from another one. split: in words, how prompts were left out for the figures.
        encode_s, fit_s: seconds.
    """

    out: str
    replaced: str | None
    identity: str
    n_prompts: int
    n_held_out: int
    n_set_aside: int
    n_texts: int
    n_features: int
    alpha: float
    models: dict[str, ModelFigures]
    pair: PairFigures | None
    pair_note: str | None
    notes: tuple[str, ...]
    data: tuple[DataSource, ...]
    adapted_from: AdaptedFrom | None
    split: str
    encode_s: float
    fit_s: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        pair = self.pair.to_dict() if self.pair else None
        return asdict(self) | {"pair": pair}

    def print(self, console: Console) -> None:
        """For people: what was measured, and what it does not say."""
        console.print(
            f"Fitted {len(self.models)} models on {self.n_prompts:,} prompts ({self.n_texts:,} distinct), "
            f"{self.n_features} features, alpha {self.alpha:g}, in {self.fit_s:.1f} s after {self.encode_s:.1f} s of "
            f"encoding.",
            highlight=False,
        )
        if self.adapted_from is not None:
            console.print(_adapted(self.adapted_from), highlight=False)
        table = Table(title=f"On prompts left out ({self.split})", box=None, title_justify="left")
        table.add_column("model")
        for header in ("prompts", "mean score", "r of loss", "AUROC", "Brier", "ECE"):
            table.add_column(header, justify="right")
        for name, m in self.models.items():
            table.add_row(name, f"{m.n:,}", *(_cell(v) for v in (m.mean_score, m.pearson_r, m.auroc, m.brier, m.ece)))
        console.print(table)
        if self.pair is not None:
            title = f"Gain of {self.pair.strong} over {self.pair.weak}, {self.pair.n:,} prompts left out"
            print_rankings(console, title, {PROBE: self.pair.ranking, **self.pair.baselines})
        for note in (*([self.pair_note] if self.pair_note else []), *self.notes):
            console.print(f"Note: {note}.", highlight=False, markup=False)
        console.print(
            "Left-out prompts resemble fitted ones; expect less on new kinds of prompts.",
            style="dim",
        )
        if self.n_held_out:
            console.print(
                f"{self.n_held_out:,} prompts were left out; `elle tune` on the same data certifies with them. "
                f"{self.n_set_aside:,} more repeat the text of one of these and were not fitted on either.",
                highlight=False,
            )
        replaced = f", in place of probe {self.replaced[:12]}" if self.replaced not in {None, self.identity} else ""
        console.print(f"Wrote {self.out} (probe {self.identity[:12]}){replaced}.", highlight=False)


def _held_out(outcomes: Outcomes, holdout: float | str, seed: int) -> tuple[npt.NDArray[np.bool_], Split]:
    """Which rows are left out, and how: a share by hash, or `latest:SHARE` by time."""
    data = tuple(source.sha256 for source in outcomes.sources)
    if isinstance(holdout, str) and ":" in holdout:
        share = parse_latest(holdout)
        found = latest(outcomes, share)
        return found.rows, Split(share, seed, data, found.since.timestamp())
    try:
        share = float(holdout)
    except ValueError as error:
        raise DataError(f"--holdout must be a share, as in 0.4, or latest:SHARE; got {holdout!r}.") from error
    return left_out(outcomes, share, seed), Split(share, seed, data)


def fit_command(
    data: Sequence[Path],
    out: Path,
    *,
    models: Sequence[str] | None,
    encoder: str,
    encoder_dir: Path | None,
    name: str | None,
    seed: int,
    on_progress: Progress | None,
    holdout: float | str = 0.0,
    prior: Path | None = None,
    keep_statistics: bool = False,
) -> FitSummary:
    """What `elle fit` does; `holdout` is the share of rows left out for `elle tune`, or the latest, as `latest:20%`.

    prior: a probe to adapt. keep_statistics: write what that needs of this fit; not of one that is itself adapted.

    Raises DataError, EncoderError or ArtifactError; writes the whole probe or nothing.
    """
    if prior is not None and keep_statistics:
        raise DataError("an adapted probe keeps no statistics: to adapt again, give its prior and all new labels.")
    spec = pinned_here(parse_spec(encoder), encoder_dir)
    old = None if prior is None else OldFit.load(prior)
    outcomes = read_outcomes(*data)
    if models is not None:
        outcomes = outcomes.select_models(models)
    held_out, split = _held_out(outcomes, holdout, seed)
    usable = to_fit(outcomes, held_out)
    outcomes = outcomes.take(np.flatnonzero(usable))
    if old is None:
        outcomes, notes = with_enough_labels(outcomes, asked_for=models or ())
    else:
        outcomes, notes = old.check(spec, outcomes), []
    started = time.perf_counter()
    features = FeatureCache().features(spec, outcomes.texts, encoder_dir=encoder_dir, on_progress=on_progress)
    encoded = time.perf_counter()
    probe, figures = fit(outcomes, features, spec, title=name or out.resolve().name, seed=seed, old=old)
    replaced = _identity_at(out)
    if held_out.any():
        probe = split.recorded_in(probe)
    artifact.save(probe, out, Prior.of(features, 1.0 - outcomes.scores) if keep_statistics else None)
    return FitSummary(
        out=str(out),
        replaced=replaced,
        identity=probe.identity,
        n_prompts=len(outcomes),
        n_held_out=int(held_out.sum()),
        n_set_aside=int((~held_out & ~usable).sum()),
        n_texts=len(set(outcomes.texts)),
        n_features=probe.n_features,
        alpha=float(probe.linear.alpha[0]),
        models=figures.models,
        pair=figures.pair,
        pair_note=figures.pair_note,
        notes=(*notes, *_notes_on_labels(outcomes)),
        data=outcomes.sources,
        adapted_from=figures.adapted_from,
        split=figures.split,
        encode_s=encoded - started,
        fit_s=time.perf_counter() - encoded,
    )


@dataclass(frozen=True)
class FitFigures:
    """Figures of prompts left out, and what the probe was adapted from; see `FitSummary`."""

    models: dict[str, ModelFigures]
    pair: PairFigures | None
    pair_note: str | None
    adapted_from: AdaptedFrom | None
    split: str


def _identity_at(out: Path) -> str | None:
    try:
        return artifact.load(out).identity
    except ArtifactError:
        return None  # nothing there, or nothing that is a probe: `save` refuses what it must not replace


def with_enough_labels(outcomes: Outcomes, asked_for: Sequence[str] = ()) -> tuple[Outcomes, list[str]]:
    """Return the outcomes without models that too few prompts have labels of, and a note on each of these.

    Raises DataError where none is left, or where such a model was asked for by name.
    """
    enough = enough_texts(1.0 - outcomes.scores, outcomes.texts)
    counts = np.isfinite(outcomes.scores).sum(axis=0).tolist()
    notes = [
        f"{model} is left out of the probe: it has labels of fewer than {MIN_TEXTS} different prompts ({count} in all)"
        for model, count, kept in zip(outcomes.models, counts, enough, strict=True)
        if not kept
    ]
    if refused := [
        model for model, kept in zip(outcomes.models, enough, strict=True) if model in asked_for and not kept
    ]:
        raise DataError(f"every model needs labels of {MIN_TEXTS} different prompts; {', '.join(refused)} has fewer.")
    if not enough.any():
        raise DataError(f"no model has labels of {MIN_TEXTS} different prompts; add outcomes.")
    kept_models = [model for model, kept in zip(outcomes.models, enough, strict=True) if kept]
    return (outcomes if enough.all() else outcomes.select_models(kept_models)), notes


def _notes_on_labels(outcomes: Outcomes) -> list[str]:
    notes = []
    for model, column in zip(outcomes.models, outcomes.scores.T, strict=True):
        labels = column[np.isfinite(column)]
        if len(labels) < MIN_PROMPTS:
            notes.append(f"{model} has {len(labels)} labels; its figures and its calibration rest on these few")
        if labels.min() == labels.max():
            notes.append(f"every score of {model} is {labels[0]:g}, so nothing tells its prompts apart")
    return notes


def fit(
    outcomes: Outcomes,
    features: npt.NDArray[np.float32],
    spec: EncoderSpec,
    *,
    title: str,
    seed: int = 0,
    old: OldFit | None = None,
) -> tuple[DifficultyProbe, FitFigures]:
    """A calibrated probe of all models of `outcomes`, and its figures on prompts left out.

    The linear map is fitted on all prompts; the calibration maps on out-of-fold predictions, so that no prompt
    calibrates itself; the figures are of out-of-fold predictions through maps fitted on the other folds. With `old`
    the probe is adapted from it instead, see `adapt_maps`; `outcomes` must have passed its `check`.

    Raises DataError for fewer than MIN_PROMPTS prompts.
    """
    losses = 1.0 - outcomes.scores
    if old is None:
        maps, adapted_from = fit_maps(features, losses, outcomes.texts, seed), None
    else:
        maps, adapted_from = adapt_maps(old, features, losses, outcomes.texts, seed)
    models = {
        model: _model_figures(maps.predicted[:, column], maps.risk[:, column], losses[:, column])
        for column, model in enumerate(outcomes.models)
    }
    figures = FitFigures(models, *pair_figures(outcomes, maps.risk, seed), adapted_from, maps.split)
    seen = fingerprints(outcomes.texts)
    probe = DifficultyProbe(
        encoder=spec.to_dict(),
        encoder_identity=spec.identity,
        models=outcomes.models,
        linear=maps.linear,
        leverage=maps.leverage,
        leverage_limit=maps.leverage_limit,
        calibrators=maps.calibrators,
        card=_card(outcomes, title, figures, old),
        fitted_on=seen if old is None else np.union1d(old.probe.fitted_on, seen),
    )
    return probe, figures


def _model_figures(predicted: FloatArray, risk: FloatArray, losses: FloatArray) -> ModelFigures:
    rows = np.isfinite(losses)
    predicted, risk, loss = predicted[rows], risk[rows], losses[rows]
    varies = bool(loss.min() < loss.max())
    binary = varies and bool(np.isin(loss, (0.0, 1.0)).all())
    return ModelFigures(
        n=int(rows.sum()),
        mean_score=1.0 - float(loss.mean()),
        pearson_r=pearson_r(predicted, loss) if varies and predicted.min() < predicted.max() else None,
        auroc=auroc(predicted, loss) if binary else None,
        brier=brier(risk, loss),
        ece=ece(risk, loss),
    )


def _card(outcomes: Outcomes, title: str, figures: FitFigures, old: OldFit | None) -> ProbeCard:
    summary = ["Expected loss (1 - score) of each model on a prompt, from the prompt's embedding."]
    metrics: dict[str, object] = {
        "split": figures.split,
        "models": {name: asdict(one) for name, one in figures.models.items()},
        "pair": figures.pair.to_dict() if figures.pair else None,
        # What `elle tune` chooses its bound by, so that it need not look at the scores that certify.
        GRADED: graded_models(outcomes),
    }
    if figures.pair_note is not None:
        metrics["pair_note"] = figures.pair_note
    if figures.adapted_from is not None:
        summary.append(_adapted(figures.adapted_from))
        metrics["adapted_from"] = asdict(figures.adapted_from)
    return ProbeCard(
        title=title,
        created=utc_now(),
        summary=" ".join(summary),
        data=(*(old.probe.card.data if old else ()), *outcomes.sources),
        n_samples={name: one.n for name, one in figures.models.items()},
        metrics=metrics,
        # Of the encoder's parts, which need not be installed where features come from the cache.
        versions=software_versions("onnxruntime", "tokenizers", "torch", "transformers"),
    )


def _adapted(source: AdaptedFrom) -> str:
    return (
        f"Adapted to {source.n_new_rows:,} prompts from the probe {source.title} ({source.identity[:12]}): "
        f"each of the {source.n_old_rows:,} prompts of its fit counts {source.weight:g} of a new one."
    )


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

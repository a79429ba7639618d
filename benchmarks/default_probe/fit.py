"""Fit the default probe: one shared difficulty, read by a ridge from many kinds, and the loss of each tier along it.

1. A ridge predicts the loss of the economy tier. Its penalty is the one that is best on files left out whole.
2. For each prompt and each variant of it (`variants`) the ridge is also told that the difference of their features is
   worth nothing. In a centred ridge that is a pair of rows, mean +- difference, whose target is the mean.
3. The losses of the standard and the frontier tier are a line on that difficulty. A ridge of their own predicts the
   *gap* between tiers no better than chance on a file that it has not seen; the line keeps the gap in order.
4. Beta maps turn predicted losses of left-out kinds into risks.
5. The fit reads whole prompts, so that variants teach it what to ignore. The probe serves with an encoder that leaves
   out asides (`probes.asides`), which changes what is read of 4 % of these prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from hashlib import sha256
from operator import add

import numpy as np
import numpy.typing as npt

from benchmarks.default_probe.anchors import SHARE, Anchors
from benchmarks.default_probe.sources import TIERS, TierRows
from benchmarks.default_probe.variants import variant_of
from probes.calibration.base import Calibrator
from probes.calibration.choice import DEFAULT_KIND, fit_calibrators
from probes.encoders.spec import MINILM_L6, MINILM_L6_WITHOUT_ASIDES, EncoderSpec
from probes.probe import DataSource, DifficultyProbe, ProbeCard, fingerprints, software_versions, utc_now
from probes.regression.crossfit import assign_folds
from probes.regression.linear import Leverage, LinearProbe
from probes.regression.ridge import RidgeFitter
from probes.regression.solution import LEVERAGE_TOLERANCE
from probes.regression.spectrum import Spectrum
from router.tuning.outcomes.feature_cache import FeatureCache, Progress

FloatArray = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]

#: Variants drawn for each prompt of the outcomes, and for each anchor.
VARIANTS, ANCHOR_VARIANTS = 4, 12

#: What all differences between prompts and their variants together weigh, where all prompts together weigh 1.
INVARIANCE = 4.0

#: The penalties that are compared on files left out whole.
PENALTIES = (1e3, 10**3.5, 1e4, 10**4.5, 1e5)

#: A prompt counts as unfamiliar beyond this quantile of the leverage that prompts of left-out kinds have.
FAMILIAR = 0.99

_FOLDS = 10


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Holds n prompts, outcomes first and then anchors, with features and the differences to their variants.

    Attributes:
        features: (n, d). losses: (n, 3). weights: (n,), which sum to n.
        deltas: (k, d) features of a variant minus those of its prompt; delta_of: (k,) the row of that prompt.
        source: (n,) the file, or "anchors LANGUAGE". group: (n,) what is left out together for calibration.
    """

    features: Features
    losses: FloatArray
    weights: FloatArray
    deltas: Features
    delta_of: npt.NDArray[np.int64]
    source: npt.NDArray[np.str_]
    group: npt.NDArray[np.str_]

    @property
    def is_anchor(self) -> npt.NDArray[np.bool_]:
        """Return which rows (n,) are anchors, and so assumptions."""
        return np.char.startswith(self.source, "anchors ")

    def statistics(self, rows: npt.NDArray[np.bool_], centre: FloatArray, target: float) -> RidgeFitter:
        """Return the sums of these rows, and of the differences between them and their variants."""
        fitter = RidgeFitter(self.features.shape[1], 1)
        fitter.update(self.features[rows], self.losses[rows, :1], self.weights[rows])
        picked = np.flatnonzero(rows[self.delta_of])
        count = np.bincount(self.delta_of, minlength=len(self.weights))
        weight = INVARIANCE / 2 * (self.weights / np.maximum(count, 1))[self.delta_of[picked]]
        for sign in (1.0, -1.0):
            fitter.update(centre + sign * self.deltas[picked], np.full((len(picked), 1), target), weight)
        return fitter


def training_set(
    rows: TierRows,
    anchors: Anchors | None,
    *,
    spec: EncoderSpec = MINILM_L6,
    with_variants: bool = True,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> TrainingSet:
    """Encode outcomes and anchors as far as they are not cached, and return them as one training set.

    anchors: None leaves them out. with_variants: False leaves out the variants, which only the ridge needs.
    """
    rng, cache = np.random.default_rng(seed), FeatureCache()
    texts = rows.texts + (anchors.texts if anchors else ())
    copies = np.full(len(texts), VARIANTS)
    copies[len(rows) :] = ANCHOR_VARIANTS
    copies *= with_variants
    delta_of = np.repeat(np.arange(len(texts)), copies)
    variants = [variant_of(texts[row], rng) for row in delta_of]
    features = cache.features(spec, (*texts, *variants), on_progress=on_progress)
    own, theirs = features[: len(texts)], features[len(texts) :]
    losses, weights, source, group = rows.losses, rows.weights(), rows.source, rows.group
    if anchors:
        losses = np.vstack([losses, anchors.losses()])
        weights = np.concatenate([weights, anchors.weights()])
        named = np.char.add("anchors ", anchors.language)
        source = np.concatenate([source, named])
        # English anchors are many: they are left out in parts, those of another language together.
        part = np.where(anchors.language == "en", np.arange(len(anchors)) % 5, 0).astype(str)
        group = np.concatenate([group, np.char.add(np.char.add(named, " "), part)])
    weights = weights * (len(weights) / weights.sum())
    return TrainingSet(own, losses, weights, theirs - own[delta_of], delta_of, source, group)


def spectra_without(data: TrainingSet, parts: Sequence[npt.NDArray[np.bool_]]) -> list[Spectrum]:
    """Return for each part (n,) of the rows the ridge statistics of all other rows. The parts must cover all rows."""
    centre = np.average(data.features, axis=0, weights=data.weights)
    target = float(np.average(data.losses[:, 0], weights=data.weights))
    sums = [data.statistics(part, centre, target) for part in parts]
    return [reduce(add, [other for other in sums if other is not one]).spectrum() for one in sums]


def predict(spectrum: Spectrum, penalty: float, features: Features) -> FloatArray:
    """Return the predicted loss (k,) of the economy tier for features (k, d)."""
    coef, intercept = spectrum.coefficients(np.array([penalty]))
    return np.asarray(features @ coef[0] + intercept[0])


def left_out_by_source(data: TrainingSet, rows: TierRows, read: Features | None = None) -> FloatArray:
    """Return the predicted economy loss (number of penalties, n) of each outcome row by a fit without its whole file.

    Files that share prompts are left out together. Anchors, if there are any, are part of every fit.

    read: (n, d) features of the rows as they are predicted from; None takes those of the fit.
    """
    read = data.features[: len(rows)] if read is None else read
    families = sorted({tuple(sorted(set(rows.source[rows.family(name)]))) for name in np.unique(rows.source)})
    parts = [np.isin(data.source, names) for names in families]
    found = np.full((len(PENALTIES), len(rows)), np.nan)
    everything = [*parts, data.is_anchor] if data.is_anchor.any() else parts
    for part, spectrum in zip(parts, spectra_without(data, everything), strict=False):
        for number, penalty in enumerate(PENALTIES):
            found[number, part[: len(rows)]] = predict(spectrum, penalty, read[part[: len(rows)]])
    return found


def choose_penalty(left_out: FloatArray, rows: TierRows) -> float:
    """Return the smallest penalty whose weighted squared error on files left out whole is nearly the least.

    The error hardly changes over the largest penalties, and a large penalty also forgets what the fit was told about
    appended text. Nearly is by half a per cent.
    """
    errors = np.array([np.average((one - rows.losses[:, 0]) ** 2, weights=rows.weights()) for one in left_out])
    return PENALTIES[int(np.argmax(errors <= 1.005 * errors.min()))]


@dataclass(frozen=True, eq=False)
class DefaultFit:
    """Holds the fitted probe and what it predicts for rows whose kind or language was left out.

    probe: the probe. penalty: of the ridge. risk: (n, 3) of left-out rows. data: the rows.
    """

    probe: DifficultyProbe
    penalty: float
    risk: FloatArray
    data: TrainingSet


def fit_default(rows: TierRows, anchors: Anchors | None, data: TrainingSet, penalty: float) -> DefaultFit:
    """Return the default probe fitted on all rows of `data`, calibrated on rows of kinds and languages left out."""
    folds = assign_folds(data.group, _FOLDS)
    parts = [folds == number for number in range(_FOLDS)]
    difficulty, leverages = np.empty(len(folds)), np.empty(len(folds))
    for part, spectrum in zip(parts, spectra_without(data, parts), strict=True):
        difficulty[part] = predict(spectrum, penalty, data.features[part])
        leverages[part] = spectrum.leverage(penalty, LEVERAGE_TOLERANCE).score(data.features[part])
    lines = np.array([_line(difficulty, column, data.weights) for column in data.losses.T])
    predicted = lines[:, 0] + difficulty[:, None] * lines[:, 1]
    calibrators = fit_calibrators(DEFAULT_KIND, predicted, data.losses, data.weights)
    risk = np.stack([one.predict(column) for one, column in zip(calibrators, predicted.T, strict=True)], axis=1)
    whole = _spectrum_of_all(data)
    limit = float(np.quantile(leverages[~data.is_anchor], FAMILIAR))
    linear = _tier_map(whole, penalty, lines)
    probe = _assemble(linear, whole.leverage(penalty, LEVERAGE_TOLERANCE), limit, calibrators, _card(rows, anchors))
    seen = fingerprints(rows.texts + (anchors.texts if anchors else ()))
    return DefaultFit(replace(probe, fitted_on=seen), penalty, risk, data)


def _spectrum_of_all(data: TrainingSet) -> Spectrum:
    centre = np.average(data.features, axis=0, weights=data.weights)
    target = float(np.average(data.losses[:, 0], weights=data.weights))
    return data.statistics(np.ones(len(data.weights), dtype=np.bool_), centre, target).spectrum()


def _line(difficulty: FloatArray, losses: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Return intercept and slope of the losses (n,) on the left-out difficulty (n,), by weighted least squares."""
    known = np.isfinite(losses)
    slope, intercept = np.polyfit(difficulty[known], losses[known], 1, w=np.sqrt(weights[known]))
    return float(intercept), float(slope)


def _tier_map(spectrum: Spectrum, penalty: float, lines: FloatArray) -> LinearProbe:
    coef, intercept = spectrum.coefficients(np.array([penalty]))
    tiers = lines[:, 1:] * coef[0]
    return LinearProbe(
        tiers.astype(np.float32),
        (lines[:, 0] + lines[:, 1] * intercept[0]).astype(np.float32),
        np.full(len(TIERS), penalty),
    )


def _assemble(
    linear: LinearProbe, leverage: Leverage, limit: float, calibrators: tuple[Calibrator, ...], card: ProbeCard
) -> DifficultyProbe:
    return DifficultyProbe(
        encoder=MINILM_L6_WITHOUT_ASIDES.to_dict(),
        encoder_identity=MINILM_L6_WITHOUT_ASIDES.identity,
        models=TIERS,
        linear=linear,
        leverage=leverage,
        leverage_limit=limit,
        calibrators=calibrators,
        card=card,
    )


def _card(rows: TierRows, anchors: Anchors | None) -> ProbeCard:
    assumed: dict[str, object] = {}
    if anchors:
        assumed["anchors"] = {
            "what": "prompts of our own whose losses are assumed, not measured; they are counted in no figure",
            "n_trivial": int((~anchors.is_hard).sum()),
            "n_hard": int(anchors.is_hard.sum()),
            "share_of_the_weight": SHARE / (1 + SHARE),
        }
    return ProbeCard(
        title="tiers",
        created=utc_now(),
        summary=(
            "Expected loss of an economy, a standard and a frontier model on a prompt, by what public models of each "
            "tier lost on many kinds of request. It is a prior: it has never seen your models."
        ),
        data=rows.files + ((_anchor_source(anchors),) if anchors else ()),
        n_samples={tier: int(np.isfinite(column).sum()) for tier, column in zip(TIERS, rows.losses.T, strict=True)},
        metrics={"tiers": rows.models, "graded_scores": list(TIERS), **assumed},
        versions=software_versions("onnxruntime", "tokenizers"),
    )


def _anchor_source(anchors: Anchors) -> DataSource:
    return DataSource("anchors (assumptions)", sha256("\n".join(anchors.texts).encode()).hexdigest(), len(anchors))

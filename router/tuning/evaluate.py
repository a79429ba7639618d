"""How well a probe ranks prompts by the gain of the stronger model, beside what costs nothing: chance and length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from probes import artifact
from probes.bootstrap import Interval, bootstrap
from probes.calibration import cross_calibrate
from probes.crossfit import assign_folds
from probes.encoder import EncoderSpec
from probes.errors import DataError
from probes.metrics import auroc, ece
from probes.probe import DataSource, DifficultyProbe, fingerprints
from probes.routing_metrics import apgr, cpt
from router.tuning.datasets import Outcomes, read_outcomes
from router.tuning.features import FeatureCache, Progress

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """What a ranking of prompts is worth; shares are of strong calls, 0 to 1.

    Attributes:
        apgr: average performance gap recovered, random 0.5, with its bootstrap interval.
        cpt50, cpt80: least share of strong calls that recovers 50 and 80 % of the gap.
        auroc: how well the weak model's failures are told apart; None where it never or always fails, or the scores
            are not 0 or 1.
        ece: expected calibration error of the weak model's risk.
    """

    apgr: Interval
    cpt50: float
    cpt80: float
    auroc: float | None
    ece: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Evaluation:
    """A probe against data, for one pair of models.

    Attributes:
        n: prompts that both models answered.
        n_seen_in_fit: how many of them the probe was fitted on; figures on those flatter.
        weak, strong: the models. weak_score, strong_score: their mean scores.
        probe: the ranking by predicted gain.
        baselines: `random` and `prompt_length`.
        data: the files, with their SHA-256 and number of rows.
    """

    n: int
    n_seen_in_fit: int
    weak: str
    strong: str
    weak_score: float
    strong_score: float
    probe: Ranking
    baselines: dict[str, Ranking]
    data: tuple[DataSource, ...]

    @property
    def warning(self) -> str | None:
        """What the reader must know before believing the figures."""
        if not self.n_seen_in_fit:
            return None
        return (
            f"{self.n_seen_in_fit:,} of these {self.n:,} prompts were used to fit the probe, so the figures "
            f"flatter it. Evaluate on other prompts, or read the cross-validated figures that `elle fit` prints."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the probe's ranking at the top level."""
        pair = {"weak": {"model": self.weak, "score": self.weak_score}}
        pair["strong"] = {"model": self.strong, "score": self.strong_score}
        return {
            "n": self.n,
            "n_seen_in_fit": self.n_seen_in_fit,
            **pair,
            **self.probe.to_dict(),
            "baselines": {name: ranking.to_dict() for name, ranking in self.baselines.items()},
            "data": [asdict(source) for source in self.data],
            "warning": self.warning,
        }

    def print(self, console: Console) -> None:
        """A table for people."""
        console.print(
            f"{self.strong} (score {self.strong_score:.3f}) over {self.weak} ({self.weak_score:.3f}), "
            f"{self.n:,} prompts",
            highlight=False,
        )
        table = Table(box=None, pad_edge=False)
        table.add_column("ranking by")
        for header in ("APGR", "95 % interval", "CPT50", "CPT80", "AUROC", "ECE"):
            table.add_column(header, justify="right")
        for name, ranking in {"predicted gain": self.probe, **self.baselines}.items():
            table.add_row(name.replace("_", " "), *ranking_cells(ranking))
        console.print(table)
        console.print(
            "APGR: share of the quality gap recovered, averaged over shares of strong calls (random 0.5). CPT: least "
            "share of strong calls that recovers 50 or 80 % of the gap. AUROC, ECE: of the weak model's risk.",
            style="dim",
        )


def ranking_cells(ranking: Ranking) -> tuple[str, ...]:
    """The figures of a ranking as cells of a table."""
    return (
        f"{ranking.apgr.value:.3f}",
        f"{ranking.apgr.low:.3f} to {ranking.apgr.high:.3f}",
        f"{ranking.cpt50:.1%}",
        f"{ranking.cpt80:.1%}",
        "-" if ranking.auroc is None else f"{ranking.auroc:.3f}",
        f"{ranking.ece:.3f}",
    )


def rank(
    gain: FloatArray,
    risk: FloatArray,
    scores: FloatArray,
    texts: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Ranking:
    """What ranking prompts by `gain` (n,) and telling the weak model's failures by `risk` (n,) is worth.

    Args:
        gain: larger goes to the strong model first.
        risk: probability that the weak model's answer is not acceptable, 0 to 1.
        scores: (n, 2), weak and strong, 0 to 1, no gaps.
        texts: equal texts are resampled together.
        resamples, seed: of the bootstrap.

    Raises DataError if the strong model is not the better one.
    """
    weak, strong = scores.T
    loss = 1.0 - weak
    interval = bootstrap(apgr, gain, weak, strong, groups=text_numbers(texts), n_resamples=resamples, seed=seed)
    binary = bool(np.isin(loss, (0.0, 1.0)).all() and loss.min() < loss.max())
    return Ranking(
        apgr=interval,
        cpt50=cpt(gain, weak, strong, 0.5),
        cpt80=cpt(gain, weak, strong, 0.8),
        auroc=auroc(risk, loss) if binary else None,
        ece=ece(risk, loss),
    )


def baselines(scores: FloatArray, texts: Sequence[str], *, resamples: int = 1000, seed: int = 0) -> dict[str, Ranking]:
    """The same figures for chance and for prompt length, each with a risk calibrated by cross-fitting on these data."""
    draws = np.random.default_rng(seed).random(len(texts))
    lengths = np.array([float(len(text)) for text in texts])
    folds = assign_folds(text_numbers(texts), 5, seed)
    found = {}
    for name, score in (("random", draws), ("prompt_length", np.log1p(lengths))):
        _, risk = cross_calibrate("sigmoid", score[:, np.newaxis], 1.0 - scores[:, :1], folds)
        found[name] = rank(score, risk[:, 0], scores, texts, resamples=resamples, seed=seed)
    return found


def text_numbers(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """A number per distinct text, so that repeated prompts are split and resampled together."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts], dtype=np.int64)


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
) -> Evaluation:
    """What `elle evaluate` does. Raises ArtifactError, DataError or EncoderError."""
    probe = artifact.load(probe_dir)
    for model in (weak, strong):
        if model not in probe.models:
            raise DataError(f"models must be among the probe's ({', '.join(probe.models)}), got {model!r}.")
    outcomes = read_outcomes(*data).select_models((weak, strong)).complete_rows()
    if not len(outcomes):
        raise DataError(f"the data must hold prompts that both {weak} and {strong} answered, got none.")
    spec = encoder_spec(probe)
    features = FeatureCache().features(spec, outcomes.texts, encoder_dir=encoder_dir, on_progress=on_progress)
    return evaluate(probe, outcomes, features, resamples=resamples, seed=seed)


def encoder_spec(probe: DifficultyProbe) -> EncoderSpec:
    """The encoder of a probe. Raises DataError for one fitted on precomputed features."""
    if probe.encoder is None:
        raise DataError(
            "the probe was fitted on precomputed features and names no encoder, so prompts cannot be judged."
        )
    return EncoderSpec.from_dict(probe.encoder)


def evaluate(
    probe: DifficultyProbe,
    outcomes: Outcomes,
    features: npt.NDArray[np.float32],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """A probe against outcomes of exactly two models, weak and strong in this order, without gaps."""
    weak, strong = outcomes.models
    columns = [probe.models.index(weak), probe.models.index(strong)]
    risk = probe.predict(features).risk[:, columns].astype(np.float64)
    ranking = rank(risk[:, 0] - risk[:, 1], risk[:, 0], outcomes.scores, outcomes.texts, resamples=resamples, seed=seed)
    return Evaluation(
        n=len(outcomes),
        n_seen_in_fit=int(np.isin(fingerprints(outcomes.texts), probe.fitted_on).sum()),
        weak=weak,
        strong=strong,
        weak_score=float(outcomes.scores[:, 0].mean()),
        strong_score=float(outcomes.scores[:, 1].mean()),
        probe=ranking,
        baselines=baselines(outcomes.scores, outcomes.texts, resamples=resamples, seed=seed),
        data=outcomes.sources,
    )

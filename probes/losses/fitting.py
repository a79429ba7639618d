"""Fit a probe to (embedding, loss) pairs, and measure its correlation on pairs left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.embeddings.files import EmbeddingFile
from probes.embeddings.sharded_fit import FOLDS, PairSource, ShardedFit, fit_in_shards
from probes.losses.pairs import LossPairs
from probes.measures.bootstrap import Interval
from probes.measures.prediction import fisher_interval, pearson_r
from probes.probe import FAMILIAR_QUANTILE, DataSource, DifficultyProbe, ProbeCard, software_versions, utc_now
from probes.shards.work import Engine, PlainLoop

MIN_PAIRS = 50


@dataclass(frozen=True, eq=False)
class PairFit:
    """Holds a probe that was fitted to pairs.

    Attributes:
        probe: the probe. r: Pearson's r of prediction and loss over 5 folds, with its 95 % interval.
        n_pairs: the pairs fitted. bad_rows: the rows left out because they hold NaN or infinity.
    """

    probe: DifficultyProbe
    r: Interval
    n_pairs: int
    bad_rows: tuple[int, ...]


def fit_loss_probe(
    pairs: LossPairs, title: str, *, source: DataSource | None = None, seed: int = 0
) -> tuple[DifficultyProbe, Interval]:
    """Return a probe of one target, `loss`, in the units of the losses, and its Pearson r over 5 folds (95 % interval).

    The probe names no encoder (its features come from elsewhere) and has no calibration (a loss in nats is no
    probability): `elle score` writes `loss` and `leverage` with it.

    Raises DataError for fewer than 50 pairs or losses that are all equal.
    """
    found = fit_in_shards(_InMemory(pairs), PlainLoop(), least=MIN_PAIRS, seed=seed)
    fit = _with_probe(found, title, source)
    return fit.probe, fit.r


def fit_pair_source(
    pairs: PairSource,
    title: str,
    describe: Callable[[int], DataSource],
    *,
    engine: Engine,
    on_progress: Callable[[int, int], None] | None = None,
) -> PairFit:
    """Fit the probe of `fit_loss_probe` to a source of pairs of any size, in constant memory and on any engine.

    describe: says what the data are, given how many pairs of them were fitted. Pairs that hold NaN or infinity are left
    out. Raises DataError as `fit_loss_probe` does.
    """
    found = fit_in_shards(pairs, engine, least=MIN_PAIRS, on_progress=on_progress)
    return _with_probe(found, title, describe(len(found.losses)))


def _with_probe(found: ShardedFit, title: str, source: DataSource | None) -> PairFit:
    n_pairs = len(found.losses)
    r = fisher_interval(pearson_r(found.predicted, found.losses), n_pairs)
    probe = DifficultyProbe(
        encoder=None,
        encoder_identity="",
        models=("loss",),
        linear=found.solution.probe,
        leverage=found.solution.leverage,
        leverage_limit=float(np.quantile(found.leverage, FAMILIAR_QUANTILE)),
        calibrators=(),
        card=_card(title, n_pairs, r, source),
    )
    return PairFit(probe, r, n_pairs, tuple(found.bad_rows.tolist()))


@dataclass(frozen=True, eq=False)
class _InMemory:
    """Pairs in memory as a source, and as the file of their embeddings."""

    pairs: LossPairs

    def open(self, threads: int | None = None) -> tuple[EmbeddingFile, NDArray[np.float64]]:
        return self, self.pairs.losses

    @property
    def rows(self) -> int:
        return len(self.pairs)

    @property
    def width(self) -> int:
        return int(self.pairs.embeddings.shape[1])

    def blocks(self, start: int, block_rows: int) -> Iterator[NDArray[np.float32]]:
        for first in range(start, self.rows, block_rows):
            yield self.pairs.embeddings[first : first + block_rows]


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

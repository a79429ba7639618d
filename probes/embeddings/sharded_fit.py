"""Fit a ridge to pairs of embedding and loss in shards, in constant memory (`fit_in_shards`).

Three passes read the pairs. The first adds up the statistics of each fold, which merge exactly; the second adds up the
leave-one-out errors, by which the penalty is chosen; the third predicts every pair from the other folds. Shards are
added in the order of their numbers, so the fit is the same on every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from probes.embeddings.files import EmbeddingFile
from probes.embeddings.score_work import ShardReader
from probes.errors import DataError
from probes.regression.crossfit import assign_folds
from probes.regression.linear import Leverage
from probes.regression.ridge import RidgeFitter
from probes.regression.solution import LEVERAGE_TOLERANCE, RidgeSolution, assemble, choose_alpha, penalty_grid
from probes.regression.spectrum import Spectrum
from probes.shards.checkpoint import MemoryCheckpoint
from probes.shards.work import Engine, ShardFunction, run_shards

FOLDS = 5

#: Pairs of a shard. Their statistics take 3 MB for embeddings of 384 numbers.
PART_ROWS = 100_000


class PairSource(Protocol):
    """The interface of what says where pairs come from, and can be sent to another process."""

    def open(self, threads: int | None = None) -> tuple[EmbeddingFile, NDArray[np.float64]]:
        """Open the embeddings, and read the losses (n,) of all of them."""


@dataclass(frozen=True, eq=False)
class ShardedFit:
    """Holds a ridge on n pairs and what it predicts for each pair that is left out.

    Attributes:
        solution: the ridge on all pairs without NaN and infinity. bad_rows: the rows of the others.
        losses, predicted, leverage: (n,) of the good pairs: the loss, and prediction and leverage from the other folds.
    """

    solution: RidgeSolution
    bad_rows: NDArray[np.int64]
    losses: NDArray[np.float64]
    predicted: NDArray[np.float64]
    leverage: NDArray[np.float64]


def fit_in_shards(
    source: PairSource,
    engine: Engine,
    *,
    least: int,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> ShardedFit:
    """Fit a ridge to all pairs of a source.

    least: the fewest good pairs to fit. on_progress is called with (shards done, shards to do), over all passes.
    Raises DataError for fewer good pairs, and for a file that cannot be read.
    """
    embeddings, losses = source.open()
    if losses.shape != (embeddings.rows,):
        raise DataError(f"there must be one loss for each of the {embeddings.rows:,} embeddings, got {losses.shape}.")
    if embeddings.rows < least:
        raise DataError(f"fitting needs at least {least} pairs, got {embeddings.rows}; measure more losses.")
    folds = assign_folds(np.arange(embeddings.rows), FOLDS, seed)
    pairs = _Pairs(source, folds.astype(np.int8), engine, on_progress)
    statistics = pairs.all_shards(_Statistics())
    bad_rows = np.concatenate([part["bad_rows"] for part in statistics])
    if (good := embeddings.rows - bad_rows.size) < least:
        raise DataError(f"fitting needs at least {least} pairs, got {good}; measure more losses.")
    by_fold = [reduce(add, [_fitter(part, fold) for part in statistics]) for fold in range(FOLDS)]
    everything = reduce(add, by_fold)
    spectrum, grid = everything.spectrum(), penalty_grid(None)
    errors = pairs.all_shards(_LeftOutErrors(spectrum, grid))
    loo_mse = np.sum([part["squares"] for part in errors], axis=0) / good
    alpha = choose_alpha(grid, loo_mse, everything.target_variance(), per_target=False)
    solution = assemble(grid, loo_mse, "loo", alpha, [(np.arange(1), spectrum)], LEVERAGE_TOLERANCE)
    held_out = pairs.all_shards(_HeldOut(tuple(_FoldModel.without(fold, by_fold, alpha) for fold in range(FOLDS))))
    predicted, leverage = (np.concatenate([part[name] for part in held_out]) for name in ("predicted", "leverage"))
    return ShardedFit(solution, bad_rows, np.delete(losses, bad_rows), predicted, leverage)


@dataclass(frozen=True, eq=False)
class _Block:
    """Pairs that follow each other in the file: embeddings (b, d), losses (b, 1), folds (b,); and rows left out."""

    X: NDArray[np.float32]
    y: NDArray[np.float64]
    fold: NDArray[np.int8]
    bad_rows: NDArray[np.int64]


class _Pass(Protocol):
    """What is computed of one shard in one pass; it holds what the passes before have found."""

    def __call__(self, blocks: Iterator[_Block]) -> dict[str, NDArray[Any]]: ...


class _Statistics:
    """Adds up the statistics of each fold."""

    def __call__(self, blocks: Iterator[_Block]) -> dict[str, NDArray[Any]]:
        fitters: list[RidgeFitter] = []
        bad_rows = [np.empty(0, dtype=np.int64)]
        for block in blocks:
            fitters = fitters or [RidgeFitter(block.X.shape[1]) for _ in range(FOLDS)]
            bad_rows.append(block.bad_rows)
            for fold, fitter in enumerate(fitters):
                fitter.update(block.X[block.fold == fold], block.y[block.fold == fold])
        found = {f"{fold}.{name}": array for fold, one in enumerate(fitters) for name, array in one.state().items()}
        return found | {"bad_rows": np.concatenate(bad_rows)}


def _fitter(found: dict[str, NDArray[Any]], fold: int) -> RidgeFitter:
    prefix = f"{fold}."
    return RidgeFitter.from_state({key[2:]: array for key, array in found.items() if key.startswith(prefix)})


@dataclass(frozen=True, eq=False)
class _LeftOutErrors:
    """Adds up the squared leave-one-out errors of each penalty, (A, 1)."""

    spectrum: Spectrum
    grid: NDArray[np.float64]

    def __call__(self, blocks: Iterator[_Block]) -> dict[str, NDArray[Any]]:
        squares = np.zeros((self.grid.size, 1))
        for block in blocks:
            squares += self.spectrum.leave_one_out(self.grid, [(block.X, block.y, None)]) * len(block.X)
        return {"squares": squares}


@dataclass(frozen=True, eq=False)
class _FoldModel:
    """The ridge on all folds but one."""

    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    leverage: Leverage

    @classmethod
    def without(cls, fold: int, by_fold: list[RidgeFitter], alpha: NDArray[np.float64]) -> _FoldModel:
        spectrum = reduce(add, [part for other, part in enumerate(by_fold) if other != fold]).spectrum()
        return cls(*spectrum.coefficients(alpha), spectrum.leverage(float(alpha.min()), LEVERAGE_TOLERANCE))


@dataclass(frozen=True, eq=False)
class _HeldOut:
    """Predicts each pair, and its leverage, from the folds that it is not in."""

    models: tuple[_FoldModel, ...]

    def __call__(self, blocks: Iterator[_Block]) -> dict[str, NDArray[Any]]:
        predicted, leverage = [], []
        for block in blocks:
            both = np.empty((2, len(block.X)))
            for fold, model in enumerate(self.models):
                rows = block.fold == fold
                both[0, rows] = (block.X[rows] @ model.coef.T + model.intercept)[:, 0]
                both[1, rows] = model.leverage.score(block.X[rows])
            predicted.append(both[0])
            leverage.append(both[1])
        return {"predicted": np.concatenate(predicted), "leverage": np.concatenate(leverage)}


@dataclass(frozen=True, eq=False)
class _PassWork:
    """One pass over all pairs; the result of a shard is a set of arrays."""

    source: PairSource
    folds: NDArray[np.int8]
    one_pass: _Pass

    @property
    def n_shards(self) -> int:
        return -(-len(self.folds) // PART_ROWS)

    def open(self, threads: int | None) -> ShardFunction:
        embeddings, losses = self.source.open(threads)
        reader = ShardReader(embeddings, PART_ROWS)

        def compute(number: int) -> bytes:
            first = number * PART_ROWS
            stop = min(first + PART_ROWS, len(self.folds))
            return bytes(save(self.one_pass(self._blocks(reader.blocks(first, stop), losses, first))))

        return compute

    def _blocks(
        self, blocks: Iterator[NDArray[np.float32]], losses: NDArray[np.float64], first: int
    ) -> Iterator[_Block]:
        for X in blocks:
            rows = np.arange(first, first + len(X))
            first += len(X)
            good = np.isfinite(X).all(axis=1) & np.isfinite(losses[rows])
            yield _Block(X[good], losses[rows[good], None], self.folds[rows[good]], rows[~good])


@dataclass(frozen=True, eq=False)
class _Pairs:
    """All pairs of a source, and what computes passes over them."""

    source: PairSource
    folds: NDArray[np.int8]
    engine: Engine
    on_progress: Callable[[int, int], None] | None

    def all_shards(self, one_pass: _Pass) -> list[dict[str, NDArray[Any]]]:
        """Return what one pass finds in each shard, in the order of the shards."""
        work, found = _PassWork(self.source, self.folds, one_pass), MemoryCheckpoint()

        def done(number: int) -> None:
            if self.on_progress is not None:
                before = (_Statistics, _LeftOutErrors, _HeldOut).index(type(one_pass)) * work.n_shards
                self.on_progress(before + len(found.finished), 3 * work.n_shards)

        run_shards(work, found, self.engine, done)
        return [load(found.result(number)) for number in range(work.n_shards)]

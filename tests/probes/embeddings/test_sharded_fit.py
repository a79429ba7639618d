"""A fit in shards is the fit of all rows at once, on every engine, and leaves out what is not a number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from probes.embeddings import sharded_fit
from probes.embeddings.sharded_fit import FOLDS, ShardedFit, fit_in_shards
from probes.errors import DataError
from probes.losses.precomputed import PairFile
from probes.regression.crossfit import assign_folds, out_of_fold
from probes.regression.fit import fit_ridge
from probes.shards.processes import LocalProcesses
from probes.shards.work import Engine, PlainLoop

N, D = 700, 12


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sharded_fit, "PART_ROWS", 90)
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(N, D)) * rng.uniform(0.1, 9, D) + rng.normal(size=D) * 50).astype(np.float32)
    y = X @ rng.normal(size=D) + rng.normal(size=N)
    np.savez(tmp_path / "pairs.npz", embedding=X, loss=y)
    return tmp_path / "pairs.npz"


def arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as archive:
        return archive["embedding"], archive["loss"]


def fit(path: Path, engine: Engine | None = None) -> ShardedFit:
    return fit_in_shards(PairFile(path), engine or PlainLoop(), least=50)


def test_the_fit_in_shards_is_the_fit_at_once(pairs: Path) -> None:
    X, y = arrays(pairs)
    found, at_once = fit(pairs), fit_ridge(X, y)
    assert found.solution.alpha == at_once.alpha
    np.testing.assert_allclose(found.solution.coef, at_once.coef, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.solution.intercept, at_once.intercept, rtol=1e-10)
    np.testing.assert_allclose(found.solution.loo_mse, at_once.loo_mse, rtol=1e-10)
    held_out = out_of_fold(X, y, assign_folds(np.arange(N), FOLDS), alpha=at_once.alpha)
    np.testing.assert_allclose(found.predicted, held_out.prediction[:, 0], rtol=1e-9)
    np.testing.assert_allclose(found.leverage, held_out.leverage, rtol=1e-5)


def test_every_engine_finds_the_same_numbers(pairs: Path) -> None:
    # The processes do not see what the fixture sets, and take all rows as one shard.
    sharded_fit.PART_ROWS = 100_000
    one, two = fit(pairs), fit(pairs, LocalProcesses(2))
    assert (one.solution.coef == two.solution.coef).all()
    assert (one.predicted == two.predicted).all()


def test_rows_that_are_not_finite_are_left_out_and_named(pairs: Path) -> None:
    X, y = arrays(pairs)
    X[[5, 91]], y[300] = np.nan, np.inf
    np.savez(pairs, embedding=X, loss=y)
    found = fit(pairs)
    assert found.bad_rows.tolist() == [5, 91, 300]
    good = np.delete(np.arange(N), [5, 91, 300])
    np.testing.assert_allclose(found.solution.coef, fit_ridge(X[good], y[good]).coef, rtol=1e-10)
    assert (found.losses == y[good]).all()
    assert len(found.predicted) == len(good)


def test_progress_goes_through_all_passes(pairs: Path) -> None:
    told: list[tuple[int, int]] = []
    fit_in_shards(PairFile(pairs), PlainLoop(), least=50, on_progress=lambda *at: told.append(at))
    assert told == [(n, 24) for n in range(1, 25)]


@pytest.mark.parametrize(("rows", "bad"), [(49, 0), (60, 11)])
def test_too_few_pairs_are_an_error(pairs: Path, rows: int, bad: int) -> None:
    X, y = arrays(pairs)
    y[:bad] = np.nan
    np.savez(pairs, embedding=X[:rows], loss=y[:rows])
    with pytest.raises(DataError, match=r"at least 50 pairs, got 49"):
        fit(pairs)


def test_losses_that_do_not_fit_the_embeddings_are_an_error(pairs: Path) -> None:
    X, y = arrays(pairs)
    np.savez(pairs, embedding=X, loss=y[:-1])
    with pytest.raises(DataError, match="one loss for each"):
        fit(pairs)

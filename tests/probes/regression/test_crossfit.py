"""Cross-fitting: groups stay whole, folds are balanced and reproducible, no row predicts itself."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from probes.errors import DataError
from probes.regression.crossfit import assign_folds, fold_errors, out_of_fold
from probes.regression.fit import fit_ridge


@given(st.lists(st.integers(0, 40), min_size=30, max_size=80), st.integers(2, 5), st.integers(0, 3))
def test_a_group_is_never_split_and_sizes_are_balanced(labels: list[int], n_folds: int, seed: int) -> None:
    if len(set(labels)) < n_folds:
        return
    fold = assign_folds(labels, n_folds, seed)
    homes = {label: set(fold[np.array(labels) == label]) for label in labels}
    assert all(len(folds) == 1 for folds in homes.values())
    sizes = np.bincount(fold, minlength=n_folds)
    assert sizes.min() > 0
    assert sizes.max() - sizes.min() <= max(np.bincount(labels))


def test_a_fold_depends_on_label_and_seed_not_on_the_order_of_rows() -> None:
    labels = [f"prompt {i % 50}" for i in range(120)]
    order = np.random.default_rng(0).permutation(120)
    fold = assign_folds(labels, 5, seed=3)
    assert_array_equal(assign_folds([labels[i] for i in order], 5, seed=3), fold[order])
    assert (assign_folds(labels, 5, seed=4) != fold).any()


def test_folds_are_the_same_in_another_process() -> None:
    call = "assign_folds([f'p{i}' for i in range(40)], 4, 7).tolist()"
    code = f"from probes.regression.crossfit import assign_folds; print({call})"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": salt},
        ).stdout
        for salt in ("1", "2")
    }
    assert printed == {f"{assign_folds([f'p{i}' for i in range(40)], 4, 7).tolist()}\n"}


def test_out_of_fold_equals_refitting_on_the_other_folds() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(90, 6)) + 10.0
    Y = X @ rng.normal(size=(6, 3)) + rng.normal(size=(90, 3))
    Y[rng.random(Y.shape) < 0.2] = np.nan
    w = rng.uniform(0.5, 2.0, size=90)
    fold = assign_folds(range(90), 3)
    found = out_of_fold(X, Y, fold, alpha=[1.0, 10.0, 100.0], sample_weight=w)
    for k in range(3):
        for j, alpha in enumerate((1.0, 10.0, 100.0)):
            rows = (fold != k) & ~np.isnan(Y[:, j])
            alone = fit_ridge(X[rows], Y[rows, j], w[rows], alphas=[alpha])
            expected = X[fold == k] @ alone.coef[0] + alone.intercept[0]
            assert_allclose(found.prediction[fold == k, j], expected, rtol=1e-9)
        everything = fit_ridge(X[fold != k], np.zeros(90 - (fold == k).sum()), w[fold != k], alphas=[1.0])
        assert_allclose(found.leverage[fold == k], everything.leverage.score(X[fold == k]), rtol=1e-5)


def test_what_a_row_says_of_itself_has_no_say_in_its_prediction() -> None:
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=(60, 4)), rng.normal(size=60)
    fold = assign_folds(range(60), 3)
    changed = np.where(fold == 1, 1e6, y)
    before, after = out_of_fold(X, y, fold), out_of_fold(X, changed, fold)
    assert_array_equal(before.prediction[fold == 1], after.prediction[fold == 1])
    assert (before.prediction[fold != 1] != after.prediction[fold != 1]).all()


def test_noise_is_not_predicted_out_of_fold_though_it_is_in_fold() -> None:
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(400, 200)), rng.normal(size=400)
    inside = fit_ridge(X, y, alphas=[1.0])
    outside = out_of_fold(X, y, assign_folds(range(400), 5), alpha=1.0)
    assert np.corrcoef(X @ inside.coef[0], y)[0, 1] > 0.5
    assert abs(np.corrcoef(outside.prediction[:, 0], y)[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("fold", "message"),
    [([0, 0, 0, 0], "two different"), ([0, 1, 0.5, 1], "whole numbers"), ([0, 1], "one entry per row")],
)
def test_unusable_folds_are_refused(fold: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        out_of_fold(np.eye(4), np.arange(4.0), fold)


def test_too_few_groups_or_labels_are_refused() -> None:
    with pytest.raises(DataError, match="2 groups for 3 folds"):
        assign_folds(["a", "b", "a"], 3)
    with pytest.raises(DataError, match="n_folds must be >= 2"):
        assign_folds(["a", "b"], 1)
    Y = np.full((6, 2), np.nan)
    Y[:, 0] = np.arange(6)
    Y[:2, 1] = 1.0
    with pytest.raises(DataError, match=r"outside each fold; target\(s\) \[1\]"):
        out_of_fold(np.random.default_rng(0).normal(size=(6, 2)), Y, [0, 1, 0, 1, 0, 1])
    with pytest.raises(DataError, match="one penalty, or one per target"):
        out_of_fold(np.eye(6), np.ones((6, 2)), [0, 1, 0, 1, 0, 1], alpha=[1.0, 2.0, 3.0])


def test_the_left_out_error_is_that_of_a_ridge_on_the_other_folds() -> None:
    rng = np.random.default_rng(5)
    X, fold = rng.normal(size=(60, 4)), np.arange(60) % 3
    Y = X @ rng.normal(size=(4, 2)) + rng.normal(size=(60, 2))
    Y[:7, 1] = np.nan
    w, alphas = rng.uniform(0.5, 2.0, 60), [0.5, 50.0]
    _, found = fold_errors(X, Y, fold, alphas=alphas, sample_weight=w)
    for a, alpha in enumerate(alphas):
        for target in range(2):
            missed, total = 0.0, 0.0
            for number in range(3):
                known = np.isfinite(Y[:, target])
                train, test = known & (fold != number), known & (fold == number)
                ridge = fit_ridge(X[train], Y[train, target], w[train], alphas=[alpha])
                error = X[test] @ ridge.coef[0] + ridge.intercept[0] - Y[test, target]
                missed, total = missed + w[test] @ error**2, total + w[test].sum()
            assert_allclose(found[a, target], missed / total, rtol=1e-9)

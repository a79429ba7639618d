"""Measures of predictions: against closed forms, against scikit-learn, and with equal predictions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from probes.errors import DataError
from probes.measures import prediction


def test_pearson_r_is_one_for_a_line_and_that_of_numpy_elsewhere() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=50)
    b = 0.5 * a + rng.normal(size=50)
    assert prediction.pearson_r(a, 3.0 * a + 2.0) == pytest.approx(1.0, abs=1e-15)
    assert prediction.pearson_r(a, -a) == pytest.approx(-1.0, abs=1e-15)
    assert prediction.pearson_r(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-14)


def test_fishers_interval_is_the_textbook_one() -> None:
    interval = prediction.fisher_interval(0.5, 28)
    assert interval.low == pytest.approx(np.tanh(np.arctanh(0.5) - 1.959963985 / 5.0))
    assert interval.high == pytest.approx(np.tanh(np.arctanh(0.5) + 1.959963985 / 5.0))
    assert prediction.fisher_interval(1.0, 10).low == 1.0


def test_auroc_with_ties_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    scores, labels = np.round(rng.normal(size=300), 1), rng.integers(0, 2, size=300)
    assert prediction.auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-14)
    assert prediction.auroc(np.zeros(4), [0, 1, 0, 1]) == 0.5


def test_brier_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    p, y = rng.random(100), rng.integers(0, 2, size=100)
    assert prediction.brier(p, y) == pytest.approx(brier_score_loss(y, p), abs=1e-15)


def test_ece_of_a_known_shift_is_that_shift() -> None:
    rng = np.random.default_rng(5)
    p = rng.uniform(0.1, 0.7, size=200_000)
    y = (rng.random(200_000) < p + 0.1).astype(float)
    assert prediction.ece(p, y) == pytest.approx(0.1, abs=0.005)


def test_debiasing_takes_out_most_of_what_a_perfect_map_shows_by_chance() -> None:
    rng = np.random.default_rng(6)
    plain, debiased = [], []
    for _ in range(50):
        p = rng.random(500)
        y = (rng.random(500) < p).astype(float)
        plain.append(prediction.ece(p, y, debias=False))
        debiased.append(prediction.ece(p, y))
    assert np.mean(plain) > 0.03
    assert np.mean(debiased) < 0.6 * np.mean(plain)


def test_ece_never_splits_equal_predictions() -> None:
    p, y = np.full(100, 0.5), np.repeat([0.0, 1.0], 50)
    assert prediction.ece(p, y, debias=False) == 0.0
    assert prediction.ece(p, y[::-1], debias=False) == 0.0
    assert len(prediction.reliability_curve(p, y)) == 1


def test_the_reliability_curve_partitions_the_rows_and_its_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(7)
    p = rng.random(20_000)
    y = (rng.random(20_000) < p).astype(float)
    curve = prediction.reliability_curve(p, y, n_bins=20)
    assert sum(b.n for b in curve) == 20_000
    assert {b.n for b in curve} == {1_000}
    assert sum(b.low <= b.predicted <= b.high for b in curve) >= 17


def test_wilsons_interval_is_the_textbook_one_and_stays_in_the_unit_interval() -> None:
    (only,) = prediction.reliability_curve(np.full(10, 0.2), np.repeat([1.0, 0.0], [2, 8]), n_bins=1)
    assert (only.low, only.high) == (pytest.approx(0.0567, abs=1e-4), pytest.approx(0.5098, abs=1e-4))
    (none,) = prediction.reliability_curve(np.full(10, 0.2), np.zeros(10), n_bins=1)
    assert none.low == 0.0
    assert none.high == pytest.approx(0.2775, abs=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: prediction.pearson_r([1.0, 1.0], [1.0, 2.0]), "two inputs that vary"),
        (lambda: prediction.fisher_interval(0.5, 3), "n >= 4"),
        (lambda: prediction.auroc([1.0, 2.0], [1, 1]), "both present"),
        (lambda: prediction.auroc([1.0, 2.0], [0.5, 1]), "0 or 1"),
        (lambda: prediction.ece([0.5, 1.5], [0, 1]), r"predicted must lie in \[0, 1\]; row 1"),
        (lambda: prediction.ece([0.5], [0], n_bins=0), "n_bins"),
        (lambda: prediction.brier([], []), "at least one row"),
    ],
)
def test_undefined_figures_are_errors_not_numbers(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()  # type: ignore[operator]

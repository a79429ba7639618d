"""Bootstrap intervals: paired, repeatable, by group, and as wide as theory says."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from probes.errors import DataError
from probes.measures import prediction
from probes.measures.bootstrap import bootstrap


def test_bootstrap_and_fisher_agree_on_normal_data() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=400)
    b = 0.6 * a + 0.8 * rng.normal(size=400)
    boot = bootstrap(prediction.pearson_r, a, b, n_resamples=500)
    fisher = prediction.fisher_interval(boot.value, 400)
    assert_allclose([boot.low, boot.high], [fisher.low, fisher.high], atol=0.02)


def test_bootstrap_is_paired_seeded_and_wider_for_whole_groups() -> None:
    rng = np.random.default_rng(2)
    a = rng.normal(size=200)
    difference = bootstrap(lambda x, y: float(np.mean(x - y)), a, a + 1.0, n_resamples=200)
    assert (difference.low, difference.high) == (pytest.approx(-1.0), pytest.approx(-1.0))
    groups = np.repeat(np.arange(20), 10)
    clustered = rng.normal(size=20)[groups]
    rows, whole = (bootstrap(lambda x: float(np.mean(x)), clustered, groups=g, n_resamples=400) for g in (None, groups))
    assert whole.high - whole.low > 2.0 * (rows.high - rows.low)
    again = bootstrap(lambda x: float(np.mean(x)), clustered, groups=groups, n_resamples=400)
    assert again == whole


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap(np.mean, [1.0], [1.0, 2.0]), "equally many rows"),
        (lambda: bootstrap(np.mean, [1.0], confidence=1.0), "confidence must lie"),
        (lambda: bootstrap(np.mean, [1.0], groups=[1, 2]), "one label per row"),
    ],
)
def test_undefined_figures_are_errors_not_numbers(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()  # type: ignore[operator]


def test_of_a_single_row_or_group_there_is_no_interval() -> None:
    found = bootstrap(lambda values: float(values.mean()), [3.0])
    assert (found.value, found.low, found.high, found.is_known) == (3.0, 3.0, 3.0, False)
    assert not bootstrap(lambda values: float(values.mean()), [1.0, 2.0], groups=["a", "a"]).is_known
    assert bootstrap(lambda values: float(values.mean()), [1.0, 2.0]).is_known

"""`RidgeLOO` keeps scikit-learn's estimator contract and agrees with scikit-learn's own ridge."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import estimator_checks_generator

from probes.regression.estimator import RidgeLOO

EXCEPTIONS = {
    "check_sample_weight_equivalence_on_dense_data": (
        "a row of weight 2 is left out whole, two equal rows one at a time, so that the penalty "
        "chosen from a grid "
        "may differ; with a single penalty the check passes (below)"
    ),
}
NEEDS_PANDAS_OR_ARRAY_API = {
    "check_sample_weights_pandas_series",
    "check_regressor_data_not_an_array",
    "check_array_api_input",
}


def checks(estimator: RidgeLOO) -> list[object]:
    pairs = estimator_checks_generator(estimator, mark=None)
    return [pytest.param(one, check, id=check.func.__name__) for one, check in pairs]


@pytest.mark.parametrize(("estimator", "check"), checks(RidgeLOO()))
def test_the_estimator_contract_holds(estimator: RidgeLOO, check: object) -> None:
    name = check.func.__name__  # type: ignore[attr-defined]
    if name in NEEDS_PANDAS_OR_ARRAY_API:
        pytest.skip("needs pandas or SCIPY_ARRAY_API, which this project does not use")
    if name in EXCEPTIONS:
        with pytest.raises(AssertionError):
            check(estimator)  # type: ignore[operator]
    else:
        check(estimator)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("estimator", "check"),
    [param for param in checks(RidgeLOO(alphas=[1.0])) if param.id in EXCEPTIONS],  # type: ignore[attr-defined]
)
def test_every_exception_vanishes_with_a_single_penalty(estimator: RidgeLOO, check: object) -> None:
    check(estimator)  # type: ignore[operator]


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 10)) + 3.0
    return X, X @ rng.normal(size=(10, 2)) + 2.0 * rng.normal(size=(120, 2))


def test_the_penalty_and_its_errors_are_those_of_ridge_cv() -> None:
    X, Y = data()
    alphas = np.logspace(-1, 3, 29)
    ours = RidgeLOO(alphas, standardize=False).fit(X, Y[:, 0])
    theirs = RidgeCV(alphas, store_cv_results=True).fit(X, Y[:, 0])
    assert ours.alpha_ == pytest.approx(theirs.alpha_)
    assert_allclose(ours.loo_mse_, theirs.cv_results_.mean(axis=0), rtol=1e-9)
    assert_allclose(ours.coef_, theirs.coef_, rtol=1e-9)


def test_standardising_is_scaling_beforehand() -> None:
    X, Y = data()
    scaled = Ridge(alpha=7.0).fit((X - X.mean(0)) / X.std(0), Y)
    assert_allclose(RidgeLOO([7.0]).fit(X, Y).predict(X), scaled.predict((X - X.mean(0)) / X.std(0)), rtol=1e-9)


def test_shapes_follow_y() -> None:
    X, Y = data()
    one = RidgeLOO().fit(X, Y[:, 0])
    assert (one.coef_.shape, np.ndim(one.intercept_), one.predict(X).shape) == ((10,), 0, (120,))
    two = RidgeLOO(alpha_per_target=True).fit(X, Y)
    assert (two.coef_.shape, two.alpha_.shape, two.predict(X).shape) == ((2, 10), (2,), (120, 2))
    assert two.probe_.predict(X.astype(np.float32)).shape == (120, 2)
    assert two.leverage_.score(X).shape == (120,)


def test_it_composes_with_scikit_learn() -> None:
    X, Y = data()
    assert cross_val_score(clone(RidgeLOO()), X, Y, cv=3).min() > 0.3
    with pytest.raises(NotFittedError):
        RidgeLOO().predict(X)

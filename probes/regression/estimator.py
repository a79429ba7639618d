"""Offer our ridge regression as a scikit-learn estimator (`RidgeLOO`). Only this file needs scikit-learn."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from probes._checks import Array
from probes.regression.ridge import RidgeFitter
from probes.regression.solution import DEFAULT_ALPHAS


class RidgeLOO(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc] # sklearn is untyped
    """Fits ridge regression with the penalty on a grid that has the least exact leave-one-out error.

    alphas: the grid, each > 0; None for `probes.regression.solution.DEFAULT_ALPHAS`. alpha_per_target: choose one
    penalty for each target instead of one for all. standardize: penalise the coefficients of features that are scaled
    to unit variance.

    Fitted attributes: coef_ (d,) or (m, d), intercept_ number or (m,), alpha_ number or (m,), loo_mse_ (A,) or (A, m),
    alphas_ (A,), probe_ (a `LinearProbe`, float32), leverage_ (a `Leverage`), n_features_in_.
    """

    def __init__(
        self, alphas: npt.ArrayLike | None = None, *, alpha_per_target: bool = False, standardize: bool = True
    ) -> None:
        self.alphas = alphas
        self.alpha_per_target = alpha_per_target
        self.standardize = standardize

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Fit on X (n, d), y (n,) or (n, m) and weights (n,) >= 0; n >= 2."""
        features, targets = validate_data(
            self,
            X,
            y,
            dtype=(np.float64, np.float32),
            multi_output=True,
            y_numeric=True,
            ensure_min_samples=2,
        )
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, features, dtype=np.float64)
        columns = targets[:, None] if targets.ndim == 1 else targets
        fitter = RidgeFitter(features.shape[1], columns.shape[1])
        fitter.update(features, columns, sample_weight)
        solution = fitter.solve(
            DEFAULT_ALPHAS if self.alphas is None else self.alphas,
            self.alpha_per_target,
            rows=[(features, columns, sample_weight)],
            standardize=self.standardize,
        )
        one = targets.ndim == 1
        self.alphas_ = solution.alphas
        self.coef_ = solution.coef[0] if one else solution.coef
        self.intercept_ = float(solution.intercept[0]) if one else solution.intercept
        self.loo_mse_ = solution.loo_mse[:, 0] if one else solution.loo_mse
        self.alpha_ = solution.alpha if self.alpha_per_target and not one else float(solution.alpha[0])
        self.probe_ = solution.probe
        self.leverage_ = solution.leverage
        return self

    def predict(self, X: npt.ArrayLike) -> Array:
        """Return float64 predictions, (n,) or (n, m) as `y` was in `fit`."""
        check_is_fitted(self)
        features = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return np.asarray(features @ self.coef_.T + self.intercept_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.single_output = True
        return tags

"""What a prompt counts in the recipe: in its ridge, in its calibration and in what it says of prompts left out."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from router.tuning.fitting.recipe import FittedMaps, fit_maps


def fitted(weights: np.ndarray | None, *, flipped: np.ndarray | None = None) -> FittedMaps:
    """Return the recipe on 200 made-up prompts; the losses of the flipped ones are turned round."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 6)).astype(np.float32)
    losses = (X @ rng.normal(size=(6, 2)) + rng.normal(size=(200, 2)) > 0.0).astype(float)
    if flipped is not None:
        losses[flipped] = 1.0 - losses[flipped]
    return fit_maps(X, losses, [f"prompt {i}" for i in range(200)], weights=weights)


def test_equal_weights_of_one_are_no_weights() -> None:
    plain, ones = fitted(None), fitted(np.ones(200))
    assert_allclose(ones.linear.coef, plain.linear.coef, rtol=1e-6)
    assert_allclose(ones.risk, plain.risk, rtol=1e-9)
    assert_array_equal(ones.leverage_limit, plain.leverage_limit)


def test_prompts_that_count_next_to_nothing_have_no_say_in_ridge_or_calibration() -> None:
    half = np.arange(200) % 2 == 0
    weights = np.where(half, 1e-9, 1.0)
    right, wrong, unweighted = fitted(weights), fitted(weights, flipped=half), fitted(None, flipped=half)
    assert_allclose(wrong.linear.coef, right.linear.coef, atol=1e-6)
    assert_allclose(wrong.predicted, right.predicted, atol=1e-6)
    assert_allclose(wrong.risk, right.risk, atol=1e-4)
    assert np.abs(unweighted.risk - right.risk).max() > 0.1

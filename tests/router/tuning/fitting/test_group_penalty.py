"""The penalty of a fit with groups: it is chosen on groups left out whole."""

from __future__ import annotations

import numpy as np

from probes.regression.fit import fit_ridge
from router.tuning.fitting.recipe import MIN_GROUPS, fit_maps, group_penalty


def grouped(seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Return features, losses, texts and groups: the loss is a constant of the group, which features give away."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(20), 20)
    marks = rng.normal(size=(20, 30))
    X = marks[group] + 0.1 * rng.normal(size=(400, 30))
    y = rng.uniform(0.1, 0.9, 20)[group, None] + 0.05 * rng.normal(size=(400, 1))
    texts = [f"prompt {row}" for row in range(400)]
    return X.astype(np.float32), y, texts, [f"group {number}" for number in group]


def test_what_is_known_of_a_group_only_is_penalised_more() -> None:
    X, y, texts, groups = grouped()
    by_row = fit_ridge(X, y).alpha[0]
    by_group = fit_maps(X, y, texts, groups=groups).linear.alpha[0]
    assert by_group > 3 * by_row


def test_without_enough_groups_the_penalty_is_that_of_single_rows() -> None:
    X, y, texts, _ = grouped()
    few = [f"group {row % (MIN_GROUPS - 1)}" for row in range(400)]
    assert group_penalty(X, y, few) is None
    assert fit_maps(X, y, texts, groups=few).linear.alpha[0] == fit_maps(X, y, texts).linear.alpha[0]


def test_a_model_of_one_group_only_does_not_stop_the_fit() -> None:
    X, y, _, groups = grouped()
    losses = np.hstack([y, np.where(np.array(groups)[:, None] == "group 3", y, np.nan)])
    assert group_penalty(X, losses, groups) is None

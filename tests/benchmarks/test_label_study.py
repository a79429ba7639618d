"""The study of label selection: every rule chooses what it says, and the study's fast fit is the product's."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import label_study
from benchmarks.label_rules import ONE_AFTER_THE_OTHER, RULES, Pool, fast_ridge
from benchmarks.label_study import apgr, check_recipe, one_draw, summary
from tests.router.outcomes import make_outcomes


@pytest.fixture
def pool() -> Pool:
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(300, 120)).astype(np.float32)
    losses = (rng.random((300, 2)) < 0.5).astype(float)
    groups = np.arange(300) % 3
    return Pool(Z, Z[:, :100], rng.random(300), groups, losses, Z, np.random.default_rng(1))


@pytest.mark.parametrize("name", RULES)
def test_a_rule_chooses_as_many_distinct_prompts_as_it_may(pool: Pool, name: str) -> None:
    assert len(set(RULES[name](pool, 60).tolist())) == 60


@pytest.mark.parametrize("name", sorted(ONE_AFTER_THE_OTHER))
def test_the_first_of_a_larger_choice_are_the_smaller_one(pool: Pool, name: str) -> None:
    larger, smaller = (RULES[name](Pool(**{**vars(pool), "rng": np.random.default_rng(1)}), k) for k in (60, 25))
    assert larger[:25].tolist() == smaller.tolist()


def test_strata_get_their_share(pool: Pool) -> None:
    assert np.bincount(pool.groups[RULES["strata by group"](pool, 60)]).tolist() == [20, 20, 20]


def test_the_fast_fit_is_that_of_the_product() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 150)).astype(np.float32)
    check_recipe(X, (X[:, :2] + rng.normal(size=(300, 2)) > 0).astype(float))
    predict, _ = fast_ridge(X[:50], X[:50, :2].astype(float), alpha=1e-1)
    assert np.abs(predict(X[:50]) - X[:50, :2]).max() < 0.05


def test_apgr_is_one_half_for_a_constant_and_more_for_the_truth() -> None:
    truth = np.array([1.0, 0.0, 1.0, 0.0])
    assert apgr(np.zeros(4), truth) == 0.5
    assert apgr(truth, truth) == 0.75


def test_a_draw_judges_every_rule_on_the_same_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes, features = make_outcomes(600)
    wide = np.concatenate([features] * 16, axis=1)
    wide += np.random.default_rng(0).normal(size=wide.shape).astype(np.float32) * 0.1
    monkeypatch.setattr(label_study, "BUDGETS", (50, 100))
    rules = ["random", "kernel herding"]
    draws = [one_draw(rules, outcomes, wide, number) for number in range(2)]
    assert draws[0] == one_draw(rules, outcomes, wide, 0)
    assert draws[0]["random", 100, "ridge"] > 0.6
    found = summary(draws, rules)["recipe"]["100"]
    assert found["random"]["lead"] == [0.0, 0.0, 0.0]

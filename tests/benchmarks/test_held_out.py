"""Served policies on held-out groups: harm is found where there is some, and not where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from benchmarks.quality.held_out import Decided, against_random, held_out_results, holm, summary
from probes.probe import DataSource
from router.tuning.certifying.targets import Target
from router.tuning.outcomes.candidates import PricedModel
from tests.fakes import fake_spec
from tests.router.outcomes import make_outcomes

TARGETS = {"loss": Target("max_loss", 0.2), "share": Target("max_strong_share", 0.7)}


def test_the_p_value_is_that_of_the_hypergeometric_law() -> None:
    # The strong model gains on 20 of 60 prompts; 18 are sent to it, 3 of them gains.
    scores = np.zeros((60, 2))
    scores[:20, 1] = 1.0
    chosen = np.zeros(60, dtype=np.int64)
    chosen[[0, 1, 2, *range(40, 55)]] = 1
    found = against_random(scores, chosen, draws=20_000, rng=np.random.default_rng(0))
    law = stats.hypergeom(60, 20, 18)
    assert found["p_below"] == pytest.approx(law.cdf(3), abs=0.01)
    assert found["p_above"] == pytest.approx(law.sf(2), abs=0.01)
    assert found["lift"] == pytest.approx((3 - 18 * 20 / 60) / 60)


def test_the_same_choice_for_all_is_neither_above_nor_below() -> None:
    scores = np.random.default_rng(0).integers(0, 2, (50, 3)).astype(float)
    found = against_random(scores, np.full(50, 2), draws=100, rng=np.random.default_rng(0))
    assert found == {"lift": pytest.approx(0.0), "p_below": 1.0, "p_above": 1.0}


def test_random_choices_fall_below_as_often_as_they_should() -> None:
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 2, (40, 3)).astype(float)
    p = [against_random(scores, rng.integers(0, 3, 40), draws=200, rng=rng)["p_below"] for _ in range(300)]
    assert stats.binom.ppf(0.001, 300, 0.1) <= sum(one <= 0.1 for one in p) <= stats.binom.ppf(0.999, 300, 0.1)


def test_holm_multiplies_by_what_is_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_one_group_with_choices_upside_down_is_found_and_no_other() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat([f"g{i}" for i in range(10)], 150)
    scores = rng.integers(0, 2, (1500, 2)).astype(float)
    better = (scores[:, 1] > scores[:, 0]).astype(np.int64)
    guess = np.where(rng.random(1500) < 0.6, better, rng.integers(0, 2, 1500))
    chosen = np.where(groups == "g3", 1 - better, guess)
    found = summary(Decided(groups, scores, chosen, np.zeros(1500, dtype=bool), 1, (True, False)), draws=2000)
    assert found["below_uncorrected"] == found["below_after_holm"] == ["g3"]
    assert len(found["above_uncorrected"]) == 9
    assert found["below_expected_by_chance"] == pytest.approx(0.25)
    assert (found["certified_folds"], found["folds"]) == (1, 2)


@pytest.mark.slow
def test_policies_are_fitted_and_tuned_on_other_groups_and_beat_random() -> None:
    outcomes, features = make_outcomes(1000, groups=6)
    # A fifth of the prompts repeat, as in files of the wild, and the rows come from one file.
    rows = np.arange(1200) % 1000
    outcomes = replace(
        outcomes.take(rows), ids=tuple(f"row {i}" for i in range(1200)), sources=(DataSource("file", "0" * 64, 1200),)
    )
    found = held_out_results(outcomes, features[rows], TARGETS, folds=3, draws=300, spec=fake_spec())
    for one in found.values():
        assert one["n"] == 1200
        assert len(one["groups"]) == 6
        assert one["below_after_holm"] == []
        assert one["lift"] > 0.02
        assert 0 < one["reference_share"] < 1
    assert found["loss"]["loss"] < 0.2


@pytest.mark.slow
def test_the_outcomes_of_a_held_out_group_have_no_say_in_its_policy() -> None:
    outcomes, features = make_outcomes(900, groups=3)
    inside = np.array(outcomes.groups) == "group 0"
    other = replace(outcomes, scores=np.where(inside[:, None], 1.0 - outcomes.scores, outcomes.scores))
    targets = {"loss": TARGETS["loss"]}
    shares = [
        held_out_results(one, features, targets, folds=3, draws=50, spec=fake_spec())["loss"]["groups"]["group 0"]
        for one in (outcomes, other)
    ]
    assert shares[0]["reference_share"] == shares[1]["reference_share"]
    assert shares[0]["lift"] == pytest.approx(-shares[1]["lift"])


@pytest.mark.slow
def test_with_prices_the_cost_rule_is_served() -> None:
    outcomes, features = make_outcomes(900, groups=3)
    third = replace(
        outcomes,
        models=("small", "large", "huge"),
        scores=np.column_stack([outcomes.scores, np.ones(900)]),
        **{name: np.full((900, 3), np.nan) for name in ("cost_usd", "input_tokens", "output_tokens")},
    )
    prices = {
        model: PricedModel(input_usd_per_million_tokens=price, output_usd_per_million_tokens=price)
        for model, price in (("small", 0.1), ("large", 1.0), ("huge", 20.0))
    }
    found = held_out_results(
        third, features, {"x": TARGETS["loss"]}, folds=3, draws=50, prices=prices, spec=fake_spec()
    )
    assert found["x"]["certified_folds"] == 3
    assert found["x"]["reference_share"] < 0.9

"""Tests of baselines: each learns what it can learn and nothing else, and LiteLLM's own classifiers are run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from probes.grouping import group_numbers
from router.tuning.judging.baselines import (
    Baseline,
    GroupMean,
    LiteLLM,
    Logistic,
    NearestNeighbours,
    Oracle,
    PromptLength,
    Prompts,
    Random,
    TfidfRidge,
    all_baselines,
)
from router.tuning.judging.cross_validation import score_baselines, split_folds
from router.tuning.judging.litellm_baseline import LiteLLMMissingError, litellm_difficulty
from router.tuning.judging.ranking import RouterScores, Truth, measure
from tests.router.outcomes import make_outcomes


def sides(n: int = 600) -> tuple[Prompts, Prompts]:
    outcomes, features = make_outcomes(n)
    prompts = Prompts(outcomes.texts, outcomes.groups, features, outcomes.scores)
    first = np.arange(n) < n // 2
    return prompts.take(first), prompts.take(~first)


def lift(router: RouterScores, test: Prompts) -> float:
    truth = Truth(test.scores, group_numbers(test.texts))
    return measure({"": router}, truth, resamples=200)[""].figures["lift"].low


@pytest.mark.parametrize("baseline", [TfidfRidge(), NearestNeighbours(), Logistic()], ids=lambda b: b.name)
class TestTrained:
    def test_it_is_significantly_above_random_where_there_is_something_to_learn(self, baseline: Baseline) -> None:
        train, test = sides()
        assert lift(baseline.score(train, test), test) > 0

    def test_it_does_not_look_at_the_outcomes_of_test_prompts(self, baseline: Baseline) -> None:
        train, test = sides(200)
        seen = baseline.score(train, test)
        blind = baseline.score(train, replace(test, scores=np.full(test.scores.shape, np.nan)))
        np.testing.assert_array_equal(seen.gain, blind.gain)

    def test_soft_scores_are_no_obstacle(self, baseline: Baseline) -> None:
        train, test = sides(200)
        soft = replace(train, scores=0.25 + train.scores / 2)
        assert np.isfinite(baseline.score(soft, test).gain).all()

    def test_a_model_that_never_fails_is_no_obstacle(self, baseline: Baseline) -> None:
        train, test = sides(200)
        perfect = replace(train, scores=np.stack([train.scores[:, 0], np.ones(len(train.scores))], axis=1))
        assert np.isfinite(baseline.score(perfect, test).gain).all()


def test_one_nearest_neighbour_setting_is_the_mean_of_all_when_all_are_near() -> None:
    train, test = sides(12)  # six prompts: every k is cut to six
    found = NearestNeighbours().score(train, test)
    losses = 1 - train.scores.mean(axis=0)
    np.testing.assert_allclose(found.gain, losses[0] - losses[1])


def test_a_dead_dimension_changes_no_neighbours() -> None:
    train, test = sides(200)

    def with_noise(prompts: Prompts) -> Prompts:
        noise = 1e-12 * np.random.default_rng(len(prompts.texts)).standard_normal((len(prompts.texts), 1))
        return replace(prompts, features=np.hstack([prompts.features, noise.astype(np.float32)]))

    one, other = (NearestNeighbours().score(*pair) for pair in ((train, test), (with_noise(train), with_noise(test))))
    np.testing.assert_allclose(one.gain, other.gain, atol=1e-6)


def test_nothing_is_known_of_a_group_never_seen() -> None:
    train, test = sides(200)
    elsewhere = replace(test, groups=["elsewhere"] * len(test.groups))
    np.testing.assert_array_equal(GroupMean().score(train, elsewhere).gain, 0.0)
    one = replace(train, groups=["elsewhere"] * len(train.groups))
    np.testing.assert_array_equal(GroupMean().score(one, elsewhere).gain, 0.0)


def test_the_group_mean_ranks_groups_by_their_gain() -> None:
    train, test = sides(200)
    helped = np.array([group == "group 1" for group in train.groups])
    train = replace(train, scores=np.stack([np.where(helped, 0.0, 1.0), np.ones(len(helped))], axis=1))
    gain = GroupMean().score(train, test).gain
    inside = np.array([group == "group 1" for group in test.groups])
    assert gain[inside].min() > gain[~inside].max()


def test_random_is_the_same_for_the_same_text_and_uniform_over_texts() -> None:
    train, test = sides(2000)
    found = Random().score(train, test).gain
    np.testing.assert_array_equal(found, Random().score(test, test).gain)
    np.testing.assert_allclose(np.quantile(found, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.05)


def test_length_and_oracle_are_what_they_say() -> None:
    train, test = sides(100)
    assert np.argmax(PromptLength().score(train, test).gain) == np.argmax([len(text) for text in test.texts])
    np.testing.assert_array_equal(Oracle().score(train, test).gain, test.scores[:, 1] - test.scores[:, 0])


def test_what_is_not_installed_is_skipped_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "litellm.router_strategy.complexity_router.complexity_router", None)
    outcomes, features = make_outcomes(100)
    fold = split_folds(outcomes, 5, "random")
    found = score_baselines(outcomes, features, fold, [PromptLength(), LiteLLM("heuristic")])
    assert set(found.by_name) == {"prompt_length"}
    assert "complexity router must be installed" in found.skipped["litellm_heuristic"]
    with pytest.raises(LiteLLMMissingError):
        litellm_difficulty("heuristic", ["x"])


def test_a_baseline_whose_library_is_missing_says_what_to_install() -> None:
    class Absent(PromptLength):
        def score(self, train: object, test: object) -> RouterScores:
            raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")

    outcomes, features = make_outcomes(100)
    found = score_baselines(outcomes, features, split_folds(outcomes, 5, "random"), [Absent()])
    assert found.skipped == {"prompt_length": "sklearn is not installed: `pip install 'elle-router[train]'`"}


def test_every_baseline_has_its_own_name() -> None:
    names = [one.name for one in all_baselines()]
    assert len(set(names)) == len(names) == 9


def test_litellm_is_run_for_real_and_finds_a_proof_harder_than_a_greeting() -> None:
    pytest.importorskip("litellm", reason="LiteLLM is not installed; its baselines are then left out of the tables")
    texts = [
        "Hello, what is your name?",
        "Think step by step and prove, with a rigorous analysis of the algorithm, the architecture of a distributed "
        "database; first define it, then implement the class in python, then debug the function.",
    ]
    for kind in ("heuristic", "heuristic_v2"):
        easy, hard = litellm_difficulty(kind, texts)
        assert easy < hard
    again = litellm_difficulty("heuristic_v2", texts[:1])
    assert 0 < again[0] < 1

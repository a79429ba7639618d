"""Tests of fits on incomplete data: each model is fitted on the labels it has, and notes say what is not compared."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from probes.errors import DataError
from router.tuning.fitting.fit import fit_probe, with_enough_labels
from router.tuning.fitting.recipe import FOLDS, spread_folds
from router.tuning.judging.fit_figures import FitFigures, choose_pair, measure_fit
from router.tuning.outcomes.datasets import Outcomes
from tests.fakes import fake_spec

N = 300
NAN = float("nan")


def make(scores: npt.ArrayLike, texts: tuple[str, ...] | None = None) -> Outcomes:
    array = np.asarray(scores, dtype=np.float64)
    texts = texts or tuple(f"prompt {i}" for i in range(len(array)))
    ids, models = tuple(map(str, range(len(array)))), tuple("abcdefgh"[: array.shape[1]])
    unknown = np.full(array.shape, np.nan)
    return Outcomes(texts, ids, ("",) * len(array), models, array, unknown, unknown, unknown, ())


def features() -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((N, 8)).astype(np.float32)


def fitted(scores: npt.ArrayLike, texts: tuple[str, ...] | None = None) -> FitFigures:
    outcomes = make(scores, texts)
    fitted_probe = fit_probe(outcomes, features(), fake_spec(), title="t")
    risk = fitted_probe.probe.predict(features()).risk
    assert np.isfinite(risk).all()
    assert ((risk >= 0) & (risk <= 1)).all()
    return measure_fit(fitted_probe, outcomes)


def coin(n_models: int = 2, seed: int = 0) -> npt.NDArray[np.float64]:
    return (np.random.default_rng(seed).random((N, n_models)) > 0.5).astype(np.float64)


def one_answer_each(n_models: int) -> npt.NDArray[np.float64]:
    scores = np.full((N, n_models), np.nan)
    scores[np.arange(N), np.arange(N) % n_models] = coin(1)[:, 0]
    return scores


def test_models_with_equal_means_are_both_fitted_and_none_is_called_the_stronger() -> None:
    scores = coin()
    scores[:, 1] = np.random.default_rng(7).permutation(scores[:, 0])
    figures = fitted(scores)
    assert figures.models.keys() == {"a", "b"}
    assert figures.pair is None
    assert figures.pair_note == "no two models differ in their mean score on the prompts they share"
    assert fitted(np.repeat(scores[:, :1], 2, axis=1)).pair is None


@pytest.mark.parametrize("n_models", [2, 5])
def test_models_that_share_no_prompt_are_each_fitted_on_their_own(n_models: int) -> None:
    figures = fitted(one_answer_each(n_models))
    assert {one.n for one in figures.models.values()} == {N // n_models}
    assert figures.pair is None
    assert figures.pair_note is not None
    assert figures.pair_note.startswith("the models have no common prompts")


@pytest.mark.parametrize("shared", [1, 4, 49])
def test_few_common_prompts_are_too_few_to_compare_on(shared: int) -> None:
    scores = one_answer_each(2)
    scores[:shared] = coin()[:shared]
    figures = fitted(scores)
    assert figures.pair is None
    assert figures.pair_note is not None
    assert f"no two models share 50 prompts, only {shared}" in figures.pair_note


def test_the_pair_is_chosen_by_means_of_the_prompts_it_shares() -> None:
    # By their own prompts `a` looks best, because only easy ones went to it; it shares none with the others.
    scores = np.full((N, 3), np.nan)
    scores[:100, 0] = 1.0
    scores[100:, 1] = coin(1)[100:, 0] * 0.5
    scores[100:, 2] = 0.5 + coin(1, seed=2)[100:, 0] * 0.5
    figures = fitted(scores)
    assert figures.pair is not None
    assert (figures.pair.weak, figures.pair.strong, figures.pair.n) == ("b", "c", 200)


def test_a_tie_for_the_furthest_pair_is_broken_by_name_and_said() -> None:
    scores = np.zeros((N, 3))
    scores[: N // 2, 1] = 1.0
    scores[N // 2 :, 2] = 1.0
    chosen = choose_pair(make(scores))
    assert chosen.columns == (0, 1)
    assert chosen.note == "a and c lie as far apart as a and b, which are first by name"


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_equal_labels_are_predicted_as_what_they_are(value: float) -> None:
    scores = coin()
    scores[:, 1] = value
    assert fitted(scores).models["b"].mean_score == pytest.approx(value)
    assert fitted(np.full((N, 2), value)).pair is None
    assert fitted(np.full((N, 1), value)).pair_note == "a is the only model, so there is no pair to rank for"


@pytest.mark.parametrize("seed", range(8))
def test_a_model_with_five_labels_is_fitted_wherever_the_folds_fall(seed: int) -> None:
    scores = coin()
    scores[np.random.default_rng(seed).permutation(N)[5:], 1] = np.nan
    assert fitted(scores).models["b"].n == 5


def test_folds_leave_every_model_labels_on_either_side() -> None:
    scores = one_answer_each(2)
    scores[10:, 1] = np.nan
    texts = tuple(f"prompt {i}" for i in range(N))
    for seed in range(50):
        folds = spread_folds(scores, texts, seed)
        rare = folds[np.isfinite(scores[:, 1])]
        assert all((rare != number).sum() >= 2 for number in range(FOLDS))


@pytest.mark.parametrize("texts", [("same",) * 60, tuple(f"same {i % 4}" for i in range(60))])
def test_a_model_whose_labels_are_of_too_few_prompts_is_left_out_and_said(texts: tuple[str, ...]) -> None:
    scores = coin()
    scores[60:, 1] = np.nan
    outcomes = make(scores, texts + tuple(f"prompt {i}" for i in range(60, N)))
    kept, notes = with_enough_labels(outcomes)
    assert kept.models == ("a",)
    assert notes == ["b is left out of the probe: it has labels of fewer than 5 different prompts (60 in all)"]
    with pytest.raises(DataError, match="b has fewer"):
        with_enough_labels(outcomes, asked_for=("a", "b"))


def test_repeated_prompts_are_fitted_and_a_single_prompt_is_refused() -> None:
    assert fitted(coin(), tuple(f"prompt {i % 20}" for i in range(N))).models["a"].n == N
    with pytest.raises(DataError, match="labels of at least 5 different prompts"):
        fitted(coin(), ("prompt",) * N)
    with pytest.raises(DataError, match="no model has labels of 5 different prompts"):
        with_enough_labels(make(coin(), ("prompt",) * N))

"""The study of features on data whose answer is known: no encoder, no files of others."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import feature_study
from benchmarks.feature_recipes import RECIPES, REFERENCE, Task, design
from benchmarks.feature_study import SPLITS, apgr, out_of_fold, study

LAYERS, WIDTH = 7, 8
N = {"mmlu": 240, "gsm8k": 120}


def make_task(name: str, seed: int, *, signal: float = 4.0) -> Task:
    """Layer 3 knows where the strong model gains; the other layers are noise."""
    n, rng = N[name], np.random.default_rng(seed)
    mean = rng.standard_normal((n, LAYERS, WIDTH)).astype(np.float32)
    hard = rng.random(n) < 1 / (1 + np.exp(-signal * mean[:, 3, 0]))
    scores = np.stack([~hard, rng.random(n) < 0.9], axis=1).astype(float)
    return Task(
        prompts=[f"{name} question {i}" for i in range(n)],
        groups=np.array([f"group {i % 12}" for i in range(n)]),
        scores=scores,
        weight=np.ones(n),
        mean=mean,
        peak=rng.standard_normal(mean.shape).astype(np.float32),
        tokens=rng.integers(5, 200, n),
    )


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> tuple[Task, Task]:
    monkeypatch.setattr(feature_study, "BOOTSTRAP_DRAWS", 30)
    return make_task("mmlu", 0), make_task("gsm8k", 1)


@pytest.mark.parametrize("name", ["mean 3", "landmarks 256 of mean 3, max 3"])
def test_a_recipe_with_the_telling_layer_beats_one_without_on_every_split(tasks: tuple[Task, Task], name: str) -> None:
    found, blind = study(name, *tasks, range(1)), study("mean 6", *tasks, range(1))
    for split in (*SPLITS, "transfer"):
        assert found[split] > 0.55, split  # type: ignore[operator]
        assert found[split] > blind[split], split  # type: ignore[operator]
    difference = found["draws"]["mmlu"] - blind["draws"]["mmlu"]  # type: ignore[index]
    assert np.quantile(difference, 0.025) > 0


@pytest.mark.parametrize("name", ["TF-IDF ridge", "kNN (50)", REFERENCE])
def test_where_scores_follow_from_nothing_nothing_is_found(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(feature_study, "BOOTSTRAP_DRAWS", 30)
    blank = make_task("mmlu", 0, signal=0.0), make_task("gsm8k", 1, signal=0.0)
    found = study(name, *blank, range(1))
    assert abs(found["mmlu"] - 0.5) < 0.15  # type: ignore[operator]


def test_the_rows_left_out_have_no_say_in_their_own_prediction(tasks: tuple[Task, Task]) -> None:
    task = tasks[0]
    folds = feature_study.fold_of_prompt(task, 0)
    inside = folds == 0
    flipped = Task(**{**vars(task), "scores": np.where(inside[:, None], 1 - task.scores, task.scores)})
    before, after = (
        out_of_fold(feature_study.probe(RECIPES["mean 3"], one), one, folds)[inside] for one in (task, flipped)
    )
    np.testing.assert_array_equal(before, after)


def test_features_have_a_total_variance_of_one_on_the_training_rows(tasks: tuple[Task, Task]) -> None:
    recipe = RECIPES["mean 3, max 3"]
    train = np.arange(N["mmlu"]) % 3 > 0
    X = design(recipe, [block.columns(tasks[0]) for block in recipe.blocks], train)
    assert X[train].var(axis=0).sum() == pytest.approx(1.0, abs=1e-3)


def test_apgr_is_one_half_for_a_constant_and_more_than_one_for_who_knows_the_gain() -> None:
    gain = np.array([1.0, 1.0, 0.0, 0.0, -1.0, 0.0])
    assert apgr(np.zeros(6), gain, np.ones(6)) == pytest.approx(0.5)
    assert apgr(gain, gain, np.ones(6)) > 1.0

"""Fits on a column `task`: whole tasks are left out, offsets are learned, and a probe without tasks stays as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from probes.errors import DataError
from probes.regression.crossfit import assign_folds, fold_errors, out_of_fold
from router.tuning.fitting.fit import fit_probe, notes_on_tasks
from router.tuning.fitting.task_recipe import fit_task_maps
from router.tuning.outcomes.datasets import Outcomes
from tests.fakes import FakeEncoder


def world(n_tasks: int = 20, n_rows: int = 15, seed: int = 0) -> tuple[Outcomes, np.ndarray]:
    """Losses that follow the first feature a little, and the task much more."""
    rng, encoder = np.random.default_rng(seed), FakeEncoder()
    tasks = tuple(f"task {t}" for t in range(n_tasks) for _ in range(n_rows))
    texts = tuple(f"{seed} {task} prompt {i}" for i, task in enumerate(tasks))
    features = np.stack([encoder.encode(text) for text in texts])
    offsets = rng.normal(size=(n_tasks, 2)) * 0.25
    mean = 0.4 + 0.05 * features[:, :1] + np.repeat(offsets, n_rows, axis=0)
    scores = np.clip(1 - mean - rng.normal(size=mean.shape) * 0.1, 0, 1)
    unknown = np.full(scores.shape, np.nan)
    return Outcomes(
        texts, texts, ("",) * len(texts), ("small", "large"), scores, unknown, unknown, unknown, (), tasks=tasks
    ), features


def fitted(outcomes: Outcomes, features: np.ndarray):  # type: ignore[no-untyped-def]
    return fit_probe(outcomes, features, FakeEncoder().spec, title="tasks")


def test_offsets_bring_predictions_of_known_tasks_closer_on_new_prompts() -> None:
    outcomes, features = world(n_rows=30)
    half = np.arange(len(outcomes)) % 2 == 0
    probe = fitted(outcomes.take(np.flatnonzero(half)), features[half]).probe
    assert probe.tasks is not None
    assert len(probe.tasks) == 20
    assert probe.tasks.n_labels("task 3") == 30
    rest = outcomes.take(np.flatnonzero(~half))
    truth = 1 - rest.scores
    error = {
        name: float(((probe.predict(features[~half], tasks).loss - truth) ** 2).mean())
        for name, tasks in (("with", rest.tasks), ("without", None))
    }
    assert error["with"] < 0.5 * error["without"]
    assert "20 tasks" in probe.card.summary


def test_what_is_measured_is_of_tasks_left_out() -> None:
    outcomes, features = world()
    found = fitted(outcomes, features)
    assert found.maps.split == "whole tasks left out, 10 folds"
    # Rows of one task share a fold, so changing one task's labels moves no prediction for its own rows.
    own = np.array(outcomes.tasks) == "task 4"
    changed = replace(outcomes, scores=np.where(own[:, None], 1 - outcomes.scores, outcomes.scores))
    alpha = found.probe.linear.alpha[:1]
    again = fitted(changed, features)
    if np.array_equal(again.probe.linear.alpha[:1], alpha):
        assert np.allclose(again.maps.predicted[own], found.maps.predicted[own], atol=1e-9)
    assert not np.allclose(again.maps.predicted[~own], found.maps.predicted[~own], atol=1e-6)


def test_rows_without_a_task_take_part_and_few_tasks_are_left_alone_with_a_note() -> None:
    outcomes, features = world()
    some = replace(outcomes, tasks=tuple(task if i % 3 else "" for i, task in enumerate(outcomes.tasks)))
    probe = fitted(some, features).probe
    assert probe.tasks is not None
    assert sum(map(probe.tasks.n_labels, probe.tasks.keys)) == 2 * 200
    assert notes_on_tasks(some, None) == []
    few = replace(outcomes, tasks=tuple(f"task {i % 4}" for i in range(len(outcomes))))
    plain = fitted(replace(outcomes, tasks=()), features).probe
    assert fitted(few, features).probe.identity == plain.identity
    assert "need 5 tasks" in notes_on_tasks(few, None)[0]
    with pytest.raises(DataError, match="need 5 tasks"):
        fit_task_maps(features, 1 - few.scores, few.texts, few.tasks)


def test_fold_errors_are_those_of_the_predictions_left_out_also_with_missing_labels() -> None:
    outcomes, features = world()
    losses = 1 - outcomes.scores
    losses[::7, 0] = np.nan
    folds = assign_folds(outcomes.tasks, 5)
    weights = np.random.default_rng(1).random(len(losses)) + 0.5
    grid, errors = fold_errors(features, losses, folds, alphas=[1.0, 300.0], sample_weight=weights)
    for index, alpha in enumerate(grid):
        residual = losses - out_of_fold(features, losses, folds, alpha=alpha, sample_weight=weights).prediction
        for column in range(2):
            known = np.isfinite(losses[:, column])
            expected = np.average(residual[known, column] ** 2, weights=weights[known])
            assert errors[index, column] == pytest.approx(expected, rel=1e-9)

"""The benchmark of tasks left out whole, on a small file: what is labelled, what is judged, and what the page says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quality import tasks as benchmark
from benchmarks.quality.tasks import task_results, task_section, tiers_of
from tests.benchmarks.small_tasks import small_tasks


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return task_results(*small_tasks(tmp_path_factory.mktemp("tasks")), labels=(3,), draws=4, resamples=30)


def test_tiers_are_the_cheap_and_the_best_by_mean_rank(tmp_path: Path) -> None:
    outcomes, _ = small_tasks(tmp_path)
    tiers = tiers_of(outcomes)
    assert set(tiers.economy) == {"tiny", "small"}
    assert tiers.frontier == ("large",)
    columns = [outcomes.models.index(name) for name in tiers.economy]
    np.testing.assert_allclose(tiers.losses[:, 0], 1 - outcomes.scores[:, columns].mean(axis=1))


def test_labels_of_a_task_help_where_the_prompts_say_little(found: dict[str, Any]) -> None:
    none, three = (found["by_labels"][count]["apgr"] for count in ("0", "3"))
    assert three["recipe"]["value"] > none["recipe"]["value"] + 0.1
    assert three["labels"]["value"] > 0.6
    assert three["random"]["value"] == pytest.approx(0.5)
    lead = found["by_labels"]["3"]["ahead_of"]["plain"]
    assert lead["low"] <= lead["value"] <= lead["high"]
    assert lead["value"] == pytest.approx(three["recipe"]["value"] - three["plain"]["value"])
    assert "labels" not in none


def test_what_knows_the_answers_is_a_ceiling(found: dict[str, Any]) -> None:
    three = {name: one["value"] for name, one in found["by_labels"]["3"]["apgr"].items()}
    assert three["known"] > max(three["recipe"], three["labels"], three["plain"])
    assert three["linear"] > three["labels"] - 0.02
    assert "known" not in found["by_labels"]["0"]["apgr"]


def test_labels_are_drawn_in_every_task_and_never_all_of_it() -> None:
    tasks = np.array(["a"] * 5 + ["b"] * 2 + ["c"], dtype=object)
    known = benchmark._drawn(tasks, 3, np.random.default_rng(0))
    assert [int(known[tasks == task].sum()) for task in "abc"] == [3, 1, 0]


def test_scores_of_a_fold_have_no_say_in_what_is_predicted_for_it_without_labels(tmp_path: Path) -> None:
    outcomes, features = small_tasks(tmp_path)
    losses, tasks = tiers_of(outcomes).losses, np.array(outcomes.groups, dtype=object)
    first = next(benchmark._folds(outcomes, features, losses, tasks, 0))
    changed = losses.copy()
    changed[first.rows] = 1 - changed[first.rows]
    again = next(benchmark._folds(outcomes, features, changed, tasks, 0))
    np.testing.assert_array_equal(first.predicted, again.predicted)
    nothing = np.zeros(len(tasks), dtype=bool)
    np.testing.assert_array_equal(first.risk(tasks, nothing, losses), again.risk(tasks, nothing, changed))


def test_the_section_says_what_was_found(found: dict[str, Any]) -> None:
    page = "\n".join(task_section(found))
    value = found["by_labels"]["3"]["apgr"]["recipe"]
    assert f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" in page
    assert "12 puzzle tasks, 120 prompts" in page
    assert "| ranking by | 0 labels | 3 labels |" in page

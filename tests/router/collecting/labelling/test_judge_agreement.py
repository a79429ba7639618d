from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from router.collecting.labelling.judge_agreement import agreement_of, measure_agreement
from tests.router.collecting.labelling.graded import rows


def test_the_figures_are_those_of_the_books() -> None:
    pairs = [(1.0, 1.0)] * 20 + [(0.0, 1.0)] * 5 + [(1.0, 0.0)] * 10 + [(0.0, 0.0)] * 15
    found = agreement_of(pairs)
    assert (found.n, found.n_agree) == (50, 35)
    assert found.kappa == pytest.approx(0.4)
    # Clopper-Pearson for 35 of 50, from a table.
    assert (found.low, found.high) == (pytest.approx(0.5539, abs=1e-4), pytest.approx(0.8214, abs=1e-4))
    assert (found.grader_mean, found.human_mean) == (0.6, 0.5)
    assert (found.better_than_people, found.worse_than_people) == (10, 5)


def test_kappa_over_three_classes_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    scores = rng.choice([0.0, 0.5, 1.0], size=(200, 2))
    expected = cohen_kappa_score(*(scores.T * 2).astype(int))
    assert agreement_of([(float(a), float(b)) for a, b in scores]).kappa == pytest.approx(expected)


def test_everybody_agreeing_on_one_class_has_no_kappa() -> None:
    found = agreement_of([(1.0, 0.9)] * 3)
    assert (found.kappa, found.high, found.n_agree) == (None, 1.0, 3)
    assert found.low == pytest.approx(0.025 ** (1 / 3))


def test_the_parts_are_all_models_and_groups_and_the_strong_model_itself_is_left_out() -> None:
    graded = [row | {"human_score": 0.5} for row in rows(4)] + rows(2)
    found = measure_agreement(graded)
    assert found["all"]["all"].n == 8
    assert {name: one.n_agree for name, one in found["model"].items()} == {"cheap": 2, "middle": 2}
    assert {name: (one.n, one.n_agree) for name, one in found["group"].items()} == {"even": (4, 4), "odd": (4, 0)}


def test_without_human_grades_there_is_nothing() -> None:
    assert measure_agreement(rows()) == {"all": {}, "model": {}, "group": {}}

"""A reference that another model beats beyond doubt is refused; one that is merely unlucky is not."""

from __future__ import annotations

import numpy as np
import pytest

from probes.certificates.bounds import MeanBound, choose_method, excludes
from probes.errors import DataError
from router.tuning.certifying.calibration_set import CalibrationSet
from router.tuning.certifying.reference_check import REFUSAL_LEVEL, check_reference
from router.tuning.outcomes.datasets import Outcomes


def outcomes(scores: object, models: tuple[str, ...] = ("strong", "weak")) -> Outcomes:
    table = np.asarray(scores, dtype=float)
    names = tuple(f"p{i}" for i in range(len(table)))
    unknown = np.full(table.shape, np.nan)
    return Outcomes(names, names, ("",) * len(names), models, table, unknown, unknown, unknown, ())


def draws(scores: object, seen: object = None, models: tuple[str, ...] = ("strong", "weak")) -> CalibrationSet:
    before = np.empty((0, len(models))) if seen is None else seen
    return CalibrationSet(outcomes(scores, models), outcomes(before, models), 0, 0, 0, 0, 0, 0.0)


def rows(n: int, *, better: int, worse: int) -> np.ndarray:
    """Return n rows of equal scores, but for `better` rows that strong alone gets right, and `worse` that weak does."""
    table = np.ones((n, 2))
    table[:better, 1] = 0.0
    table[better : better + worse, 0] = 0.0
    return table


def test_a_reference_that_is_as_good_or_better_passes() -> None:
    for better, worse in ((0, 0), (30, 30), (60, 0), (30, 31)):
        check_reference(draws(rows(200, better=better, worse=worse)), "strong")


def test_swapped_models_are_refused_with_both_means_and_the_way_out() -> None:
    with pytest.raises(DataError) as caught:
        check_reference(draws(rows(200, better=0, worse=60)), "strong")
    assert str(caught.value) == (
        "the reference must be the better model: on 200 prompts strong scores 0.700 and weak 1.000. Are --weak and "
        "--strong swapped? To measure losses against the better one without renaming, give --reference weak."
    )
    check_reference(draws(rows(200, better=0, worse=60)), "weak")


def test_it_is_refused_exactly_where_the_test_at_one_percent_says_so() -> None:
    refused = []
    for worse in range(1, 30):
        table = rows(200, better=0, worse=worse)
        doubtless = excludes(table[:, 0] - table[:, 1], 0.0, REFUSAL_LEVEL, MeanBound(choose_method(table)))[0]
        try:
            check_reference(draws(table), "strong")
            refused.append(False)
        except DataError:
            refused.append(True)
        assert refused[-1] == doubtless
    assert any(refused)
    assert not all(refused)


def test_rows_that_the_fit_saw_count_with_the_others() -> None:
    half = rows(100, better=0, worse=30)
    with pytest.raises(DataError, match=r"on 150 prompts strong scores 0\.800"):
        check_reference(draws(np.ones((50, 2)), half), "strong")
    check_reference(draws(np.ones((50, 2)), np.ones((100, 2))), "strong")


class TestSeveral:
    MODELS = ("a", "b", "c", "d")

    def table(self, n: int = 400) -> np.ndarray:
        """Return outcomes of which `a` is right on three quarters, `b` on all, `c` on half, and `d` on nearly all."""
        number = np.arange(n)
        return np.column_stack([number % 4 < 3, number >= 0, number % 4 < 2, number % 8 < 7]).astype(float)

    def test_the_best_of_those_that_are_better_is_named_and_nobody_speaks_of_swapping(self) -> None:
        with pytest.raises(DataError) as caught:
            check_reference(draws(self.table(), models=self.MODELS), "c")
        assert "on 400 prompts c scores 0.500 and b 1.000. To measure" in str(caught.value)
        assert str(caught.value).endswith("give --reference b.")

    def test_the_level_is_shared_among_the_others(self) -> None:
        found = 0
        for worse in range(1, 30):
            pair = rows(200, better=0, worse=worse)
            many = np.column_stack([pair, np.zeros((200, 8))])
            names = ("strong", "weak", *(f"m{i}" for i in range(8)))
            ahead = pair[:, 0] - pair[:, 1]
            bound = MeanBound(choose_method(pair))
            shared, whole = (
                bool(excludes(ahead, 0.0, level, bound)[0]) for level in (REFUSAL_LEVEL / 9, REFUSAL_LEVEL)
            )
            if shared:
                with pytest.raises(DataError, match="give --reference weak"):
                    check_reference(draws(many, models=names), "strong")
            else:
                check_reference(draws(many, models=names), "strong")
            found += whole and not shared
        assert found  # some differences pass among ten that would not pass between two


def test_graded_scores_are_tested_by_a_bound_for_them() -> None:
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.uniform(0.2, 0.6, 300), rng.uniform(0.6, 0.9, 300)])
    with pytest.raises(DataError, match=r"strong scores 0\.4"):
        check_reference(draws(table), "strong")

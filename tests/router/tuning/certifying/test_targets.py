"""Targets as losses, the policies of a path that keep each target, and the one policy that keeps them all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from probes.certificates.bounds import MeanBound, upper_bound
from probes.certificates.fixed_sequence import Certificate, NotCertified, certify_path
from probes.certificates.label_planning import labels_needed
from probes.errors import DataError
from router.policies.certificate_record import TargetKind
from router.policies.policy_file import GainRule
from router.tuning.certifying.path_testing import PolicySelection, TargetTest, select_policy
from router.tuning.certifying.rule_paths import PolicyPath
from router.tuning.certifying.targets import LossData, Target, losses_of

N = 400

#: A path of four policies over two candidates: 0 is weak, 1 strong; each sends another 100 prompts down.
PATH = np.array([[0] * (100 * k) + [1] * (N - 100 * k) for k in range(4)], dtype=np.int16)


def facts(**changes: Any) -> LossData:
    """Weak fails on the last 100 of the 300 prompts that may go down; strong never fails and costs ten times more."""
    weak = np.ones(N)
    weak[200:300] = 0.0
    paid = np.column_stack([np.full(N, 0.001), np.full(N, 0.01)])
    fields: dict[str, Any] = {
        "scores": np.column_stack([weak, np.ones(N)]),
        "paid_usd": paid,
        "reference": 1,
        "graded": False,
        "ceiling_usd": 0.02,
    }
    return LossData(**(fields | changes))


def policies(chosen: Any) -> PolicyPath:
    """Return the path of these choices, each of one rule."""
    numbers = np.arange(len(chosen))
    rules = tuple(GainRule(kind="gain", thresholds=(number / 10,)) for number in numbers)
    return PolicyPath(rules, chosen, numbers, numbers, np.zeros(chosen.shape[1], dtype=bool))


class TestTarget:
    @pytest.mark.parametrize("kind", ["max_loss", "min_quality", "max_strong_share"])
    @pytest.mark.parametrize("limit", [0.0, 1.0, -0.1, 1.1, float("nan")])
    def test_shares_and_scores_lie_strictly_between_0_and_1(self, kind: TargetKind, limit: float) -> None:
        with pytest.raises(DataError, match=f"{kind} must lie strictly between 0 and 1, got "):
            Target(kind, limit)

    def test_money_may_be_any_finite_sum_above_nothing(self) -> None:
        assert Target("max_cost_usd_per_1k", 1e-9).limit == 1e-9
        assert Target("max_cost_usd_per_1k", 1e6).limit == 1e6
        for limit in (0.0, np.inf):
            with pytest.raises(DataError, match="must be a number above 0, got "):
                Target("max_cost_usd_per_1k", limit)

    @pytest.mark.parametrize(
        ("kind", "on_spending", "words"),
        [
            ("max_loss", False, "quality loss at most 0.25"),
            ("min_quality", False, "quality at least 0.25"),
            ("max_strong_share", True, "share of reference calls at most 0.25"),
            ("max_cost_usd_per_1k", True, "cost at most 0.25 USD per 1,000 requests"),
        ],
    )
    def test_each_says_in_words_what_it_bounds(self, kind: TargetKind, on_spending: bool, words: str) -> None:
        assert str(Target(kind, 0.25)) == words
        assert Target(kind, 0.25).on_spending is on_spending


class TestLosses:
    def test_a_loss_is_what_the_reference_would_have_scored_more(self) -> None:
        found = losses_of(Target("max_loss", 0.1), PATH, facts())
        np.testing.assert_array_equal(found.matrix.mean(axis=1), [0.0, 0.0, 0.0, 0.25])
        assert (found.limit, found.bound) == (0.1, MeanBound("ternary", -1.0, 1.0))
        better = facts(scores=np.tile([1.0, 0.0], (N, 1)))
        np.testing.assert_array_equal(better.quality_drop(PATH)[1], [-1.0] * 100 + [0.0] * 300)

    def test_a_least_quality_is_a_greatest_shortfall(self) -> None:
        found = losses_of(Target("min_quality", 0.9), PATH, facts())
        np.testing.assert_array_equal(found.matrix.mean(axis=1), [0.0, 0.0, 0.0, 0.25])
        assert found.limit == pytest.approx(0.1)
        assert found.bound == MeanBound("binomial", 0.0, 1.0)

    def test_scores_between_0_and_1_are_tested_by_betting(self) -> None:
        graded = facts(graded=True)
        assert losses_of(Target("max_loss", 0.1), PATH, graded).bound == MeanBound("betting", -1.0, 1.0)
        assert losses_of(Target("min_quality", 0.9), PATH, graded).bound == MeanBound("betting", 0.0, 1.0)
        assert losses_of(Target("max_strong_share", 0.9), PATH, graded).bound == MeanBound("binomial", 0.0, 1.0)

    def test_calls_of_the_reference_are_counted_whoever_it_is(self) -> None:
        for reference, means in ((1, [1.0, 0.75, 0.5, 0.25]), (0, [0.0, 0.25, 0.5, 0.75])):
            found = losses_of(Target("max_strong_share", 0.5), PATH, facts(reference=reference))
            np.testing.assert_array_equal(found.matrix.mean(axis=1), means)
            assert (found.limit, found.matrix.dtype) == (0.5, np.float64)

    def test_costs_are_those_of_one_request_within_what_no_request_exceeds(self) -> None:
        found = losses_of(Target("max_cost_usd_per_1k", 5.0), PATH, facts())
        np.testing.assert_allclose(found.matrix.mean(axis=1), [0.01, 0.00775, 0.0055, 0.00325])
        assert found.limit == 0.005
        assert found.bound == MeanBound("betting", 0.0, 0.02)
        np.testing.assert_array_equal(found.matrix, facts().cost(PATH))

    def test_costs_that_are_unknown_or_above_the_ceiling_are_refused_and_equal_to_it_are_not(self) -> None:
        target = Target("max_cost_usd_per_1k", 5.0)
        gap = facts().paid_usd.copy()
        gap[7, 0] = np.nan
        for unknown in (facts(paid_usd=gap), facts(ceiling_usd=None)):
            with pytest.raises(DataError, match="needs the price of every candidate"):
                losses_of(target, PATH, unknown)
        with pytest.raises(DataError, match=r"than --max-request-usd, 0\.009; one of the data costs 0\.01"):
            losses_of(target, PATH, facts(ceiling_usd=0.009))
        assert losses_of(target, PATH, facts(ceiling_usd=0.01)).bound.high == 0.01


class TestTogether:
    def test_quality_alone_takes_the_cheapest_policy_that_keeps_it(self) -> None:
        selection = select_policy([Target("max_loss", 0.1)], policies(PATH), facts(), 0.05)
        (stretch,) = selection.tests
        assert (selection.policy, stretch.first, stretch.last, stretch.certified) == (2, 0, 2, True)
        assert selection.more_labels is None  # it holds: nothing is missing
        assert selection.policy_or_guess == 2

    def test_spending_alone_takes_the_safest_policy_that_keeps_it(self) -> None:
        selection = select_policy([Target("max_strong_share", 0.6)], policies(PATH), facts(), 0.05)
        (stretch,) = selection.tests
        assert (selection.policy, stretch.first, stretch.last) == (2, 2, 3)
        assert selection.policy_or_guess == 2

    def test_both_take_the_cheapest_policy_on_both_stretches(self) -> None:
        both = [Target("max_loss", 0.1), Target("max_strong_share", 0.85)]
        selection = select_policy(both, policies(PATH), facts(), 0.025)
        assert [(s.first, s.last) for s in selection.tests] == [(0, 2), (1, 3)]
        assert selection.policy == 2
        tight = [Target("max_loss", 0.1), Target("max_strong_share", 0.6)]
        alone = select_policy(tight, policies(PATH), facts(), 0.025)
        assert alone.policy == 2  # one policy is on both

    def test_stretches_that_do_not_meet_certify_nothing_together(self) -> None:
        apart = [Target("max_loss", 0.1), Target("max_strong_share", 0.4)]
        selection = select_policy(apart, policies(PATH), facts(), 0.025)
        assert [s.certified for s in selection.tests] == [True, True]
        assert selection.policy is None
        assert selection.policy_or_guess == 0  # not even the means keep both

    def test_each_target_is_tested_at_the_level_it_is_given(self) -> None:
        strict, lax = (
            select_policy([Target("max_loss", 0.1)], policies(PATH), facts(), delta).tests[0] for delta in (0.01, 0.2)
        )
        assert (strict.result.delta, lax.result.delta) == (0.01, 0.2)
        assert strict.bound(2) > lax.bound(2) > strict.estimate(2) == 0.0
        matrix = strict.losses.matrix
        assert strict.bound(3) == upper_bound(matrix[3], 0.01, strict.losses.bound)[0]
        assert strict.estimate(3) == 0.25

    def test_where_nothing_is_certified_the_stretch_is_empty_and_the_means_still_guess(self) -> None:
        few = replace(facts(), scores=facts().scores[:20], paid_usd=facts().paid_usd[:20])
        path = np.array([[1] * 20, [0] * 10 + [1] * 10], dtype=np.int16)
        selection = select_policy([Target("min_quality", 0.99)], policies(path), few, 0.05)
        (stretch,) = selection.tests
        assert isinstance(stretch.result, NotCertified)
        assert not stretch.certified
        assert (stretch.first, stretch.last, selection.policy) == (2, -1, None)
        assert selection.policy_or_guess == 1
        assert selection.more_labels == stretch.result.more_labels
        assert stretch.result.more_labels is not None


class TestMoreLabels:
    def stretch(self, kind: TargetKind, limit: float, losses: list[Any]) -> TargetTest:
        matrix = np.array(losses, dtype=float)
        found = losses_of(Target(kind, limit), np.ones((1, matrix.shape[1]), np.int16), facts_of(matrix.shape[1]))
        walk = matrix[::-1] if Target(kind, limit).on_spending else matrix
        answer = certify_path(walk, found.limit, 0.05, found.bound)
        return TargetTest(Target(kind, limit), replace(found, matrix=matrix), answer)

    def test_the_target_that_needs_most_says_how_many(self) -> None:
        little = self.stretch("max_loss", 0.1, [[0.0] * 20])
        much = self.stretch("max_loss", 0.02, [[0.0] * 20])
        needs = [s.result.more_labels for s in (little, much) if isinstance(s.result, NotCertified)]
        assert len(needs) == 2
        assert needs[0] is not None
        assert needs[1] is not None
        assert needs[0] < needs[1]
        assert PolicySelection((little, much), None).more_labels == needs[1]

    def test_where_one_has_no_number_there_is_none(self) -> None:
        hopeless = self.stretch("max_loss", 0.02, [[1.0] * 20])
        little = self.stretch("max_loss", 0.1, [[0.0] * 20])
        assert PolicySelection((little, hopeless), None).more_labels is None

    def test_where_each_holds_alone_the_end_that_needs_fewest_says_how_many(self) -> None:
        # Quality: policy 0 holds, policy 1 would with more labels. Spending: policy 1 holds, policy 0 never would.
        loss = [[0.0] * 200, [1.0] * 5 + [0.0] * 195]
        strong = [[1.0] * 200, [0.0] * 200]
        quality = self.stretch("max_loss", 0.04, loss)
        spending = self.stretch("max_strong_share", 0.5, strong)
        assert (quality.first, quality.last, spending.first, spending.last) == (0, 0, 1, 1)
        needed = labels_needed(np.array(loss[1]), 0.04, 0.05, quality.losses.bound, max_labels=50_000)
        assert needed is not None
        assert quality.labels_for(1) == needed > 200
        assert spending.labels_for(0) is None
        assert isinstance(quality.result, Certificate)
        assert PolicySelection((quality, spending), None).more_labels == needed - 200


def facts_of(n: int) -> LossData:
    return replace(facts(), scores=np.ones((n, 2)), paid_usd=np.full((n, 2), 0.001))

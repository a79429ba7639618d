"""What is settled before the scores that certify are seen, and what is done against asking until the answer is yes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.errors import DataError
from probes.grouping import group_numbers
from probes.probe import DifficultyProbe, ProbePrediction
from probes.regression.crossfit import assign_folds, out_of_fold
from probes.regression.fit import fit_ridge
from router.policies.candidates.candidate import Prices
from router.policies.loading import ServedPolicy
from router.policies.rules import Judgement
from router.tuning.certifying.calibration_set import CalibrationSet, calibration_set
from router.tuning.certifying.preparation import expects_graded, prepare_tuning
from router.tuning.certifying.reference_check import check_reference
from router.tuning.certifying.rule_paths import cost_path, lay_path
from router.tuning.certifying.settings import TuneSettings
from router.tuning.certifying.targets import Target
from router.tuning.certifying.tune import tune_policy
from router.tuning.certifying.tune_log import TuningAttempt, count_attempt, digest_of_parts, log_path
from router.tuning.fitting.fit import fit_probe
from router.tuning.fitting.recipe import FOLDS, fit_maps
from router.tuning.outcomes.datasets import Outcomes
from tests.fakes import FakeEncoder
from tests.tuning_outcomes import MODELS, features, traffic

PRICE_FILE = """\
weak: {input_usd_per_million_tokens: 1, output_usd_per_million_tokens: 1}
strong: {input_usd_per_million_tokens: 10, output_usd_per_million_tokens: 10}
"""


@pytest.fixture(scope="module")
def probe() -> DifficultyProbe:
    outcomes = traffic(600, seed=0, frequent=0.0, tag="fit")
    return fit_probe(outcomes, features(outcomes.texts), FakeEncoder().spec, title="data_folder").probe


def settings(**more: Any) -> TuneSettings:
    return TuneSettings((Target("max_loss", 0.1),), models=MODELS, **more)


@pytest.fixture(scope="module")
def draws(probe: DifficultyProbe) -> CalibrationSet:
    return calibration_set(traffic(600, seed=1, frequent=0.0), probe)


def graded(outcomes: Outcomes) -> Outcomes:
    return replace(outcomes, scores=outcomes.scores * 0.9)


class TestBound:
    def test_it_is_chosen_by_the_scores_of_the_fit_whatever_those_are_that_certify(
        self, probe: DifficultyProbe, draws: CalibrationSet
    ) -> None:
        assert probe.card.metrics["graded_scores"] == []
        between = replace(draws, outcomes=graded(draws.outcomes))
        assert not expects_graded(probe, draws, None)
        assert not expects_graded(probe, between, None)

    def test_a_fit_on_graded_scores_asks_for_the_bound_for_them(self, draws: CalibrationSet) -> None:
        outcomes = graded(traffic(300, seed=0, frequent=0.0, tag="fit"))
        of_graded = fit_probe(outcomes, features(outcomes.texts), FakeEncoder().spec, title="data_folder").probe
        assert of_graded.card.metrics["graded_scores"] == list(MODELS)
        assert expects_graded(of_graded, draws, None)
        assert not expects_graded(of_graded, draws, "ternary")

    def test_where_the_fit_recorded_nothing_its_rows_say_and_without_them_the_bound_is_the_one_for_all(
        self, probe: DifficultyProbe, draws: CalibrationSet
    ) -> None:
        silent = replace(probe, card=replace(probe.card, metrics={}))
        assert expects_graded(silent, draws, None)
        assert not expects_graded(silent, replace(draws, seen=draws.outcomes), None)
        assert expects_graded(silent, replace(draws, seen=graded(draws.outcomes)), None)

    def test_graded_scores_under_the_other_bound_are_told_and_promise_less(
        self, probe: DifficultyProbe, draws: CalibrationSet
    ) -> None:
        between = replace(draws, outcomes=graded(draws.outcomes))
        inputs = prepare_tuning(probe, between, settings())
        assert any("--bound betting" in note for note in inputs.notes)
        assert not any("--bound" in note for note in prepare_tuning(probe, draws, settings()).notes)


class TestReference:
    def test_two_models_that_are_swapped_are_refused_with_the_hint(
        self, probe: DifficultyProbe, draws: CalibrationSet
    ) -> None:
        swapped = replace(draws, outcomes=draws.outcomes.select_models(("strong", "weak")), seen=draws.seen)
        swapped = replace(swapped, seen=draws.seen.select_models(("strong", "weak")))
        with pytest.raises(DataError, match=r"Are --weak and --strong swapped\?.*give --reference strong"):
            prepare_tuning(probe, swapped, settings())
        assert prepare_tuning(probe, swapped, settings(reference="strong")).data.reference == 0

    def test_equal_models_are_refused_about_as_seldom_as_said(self, draws: CalibrationSet) -> None:
        rng = np.random.default_rng(0)
        refused = 0
        for _ in range(200):
            scores = (rng.random((300, 2)) < 0.7).astype(float)
            one = replace(draws, outcomes=replace(draws.outcomes.take(np.arange(300)), scores=scores))
            try:
                check_reference(one, "strong")
            except DataError:
                refused += 1
        assert refused <= 8

    def test_rows_of_the_fit_count_too(self, draws: CalibrationSet) -> None:
        even = replace(draws, outcomes=replace(draws.outcomes, scores=np.ones_like(draws.outcomes.scores)))
        check_reference(even, "strong")
        worse = replace(draws.outcomes, scores=np.tile([1.0, 0.0], (len(draws.outcomes), 1)))
        with pytest.raises(DataError, match=r"on 1,200 prompts strong scores 0\.500 and weak 1\.000"):
            check_reference(replace(even, seen=worse), "strong")

    def test_of_several_models_the_best_is_named(self, draws: CalibrationSet) -> None:
        n = len(draws.outcomes)
        scores = np.column_stack([np.arange(n) % 4 < 2, np.arange(n) % 4 < 3, np.arange(n) % 4 < 1]).astype(float)
        three = replace(draws.outcomes, scores=scores, models=("a", "b", "c"))
        with pytest.raises(DataError, match=r"give --reference b\.$"):
            check_reference(replace(draws, outcomes=three, seen=three.take(np.arange(0))), "c")


class TestLog:
    def test_every_question_on_the_same_data_counts_and_the_same_one_counts_once(self, tmp_path: Path) -> None:
        log = log_path(tmp_path / "probe")
        assert log.name == "probe.tune-log.jsonl"
        first = TuningAttempt(("data 1",), "probe", digest_of_parts(0.02))
        assert count_attempt(log, first) == 1
        assert count_attempt(log, first) == 1
        assert count_attempt(log, replace(first, asked=digest_of_parts(0.05))) == 2
        assert count_attempt(log, replace(first, probe="another seed")) == 3
        assert count_attempt(log, replace(first, data=("data 2",))) == 1
        assert count_attempt(log, TuningAttempt(("data 1", "data 2"), "probe", digest_of_parts(0.1))) == 5

    def test_it_is_only_added_to_and_holds_digests_only(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        count_attempt(log, TuningAttempt(("data",), "probe", digest_of_parts("a")))
        before = log.read_bytes()
        count_attempt(log, TuningAttempt(("data",), "probe", digest_of_parts("b")))
        assert log.read_bytes().startswith(before)
        assert all(json.loads(line).keys() == {"at", "data", "probe", "asked"} for line in log.read_text().splitlines())

    def test_a_line_that_was_cut_off_counts_and_spoils_no_other(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_bytes(b'[]\n\xff{"data": ["da')
        assert count_attempt(log, TuningAttempt(("data",), "probe", digest_of_parts("a"))) == 3
        assert count_attempt(log, TuningAttempt(("data",), "probe", digest_of_parts("b"))) == 4


class TestMutants:
    """Faults that were put in on purpose and that no test noticed."""

    def test_the_policy_to_be_written_is_asked_for_every_prompt(
        self, probe: DifficultyProbe, draws: CalibrationSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judge_all = ServedPolicy.judge_all

        def upside_down(served: ServedPolicy, prediction: ProbePrediction) -> list[Judgement]:
            return [replace(one, risk=one.risk[::-1]) for one in judge_all(served, prediction)]

        monkeypatch.setattr(ServedPolicy, "judge_all", upside_down)
        inputs = prepare_tuning(probe, draws, settings())
        with pytest.raises(AssertionError, match="must decide as the certified one"):
            tune_policy(inputs, features(draws.outcomes.texts), settings(), name="x", probe_place="probe")

    def test_lengths_are_of_prompts_of_the_fit(
        self, probe: DifficultyProbe, draws: CalibrationSet, tmp_path: Path
    ) -> None:
        (tmp_path / "prices.yaml").write_text(PRICE_FILE)

        def answered(tokens: float) -> Outcomes:
            return replace(draws.outcomes, output_tokens=np.full(draws.outcomes.scores.shape, tokens))

        both = replace(draws, outcomes=answered(7.0), seen=answered(123.0))
        inputs = prepare_tuning(probe, both, settings(prices=str(tmp_path / "prices.yaml")))
        assert [one.expected_output_tokens for one in inputs.served.rules.file.candidates] == [123, 123]

    def test_the_cost_path_begins_at_the_best_quality_where_the_reference_is_not_the_most_expensive(
        self, probe: DifficultyProbe, tmp_path: Path
    ) -> None:
        (tmp_path / "prices.yaml").write_text(PRICE_FILE)
        outcomes = traffic(300, seed=2, frequent=0.0)
        better_weak = replace(outcomes, scores=outcomes.scores[:, ::-1])
        asked = settings(prices=str(tmp_path / "prices.yaml"), rule="cost")
        cheap = prepare_tuning(probe, calibration_set(better_weak, probe), replace(asked, reference="weak"))
        path = lay_path(cheap.served, cheap.data.reference, "cost")
        assert path[0].quality_per_usd == 0.0  # type: ignore[union-attr]
        assert all(rule.quality_per_usd >= 0 for rule in path)  # type: ignore[union-attr]
        expensive = prepare_tuning(probe, calibration_set(outcomes, probe), asked)
        assert lay_path(expensive.served, expensive.data.reference, "cost") == cost_path()
        assert isinstance(cheap.served.rules.prices[0], Prices)

    def test_one_prompt_in_a_thousand_of_the_kind_it_was_fitted_on_is_called_unfamiliar(self) -> None:
        rng = np.random.default_rng(5)
        x, losses = rng.standard_normal((4000, 8)).astype(np.float32), rng.random((4000, 2))
        texts = [f"text {i}" for i in range(4000)]
        limit = fit_maps(x, losses, texts).leverage_limit
        folds = assign_folds(group_numbers(texts), FOLDS, 0)
        left_out = out_of_fold(x, losses, folds, alpha=fit_ridge(x, losses).alpha).leverage
        assert limit is not None
        assert 0.0005 <= (left_out > limit).mean() <= 0.0015

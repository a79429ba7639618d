"""Tests of rankings, cross-validation, slices and `elle evaluate PROBE`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from probes.artifacts import store as artifact
from probes.errors import DataError
from probes.grouping import group_numbers
from probes.measures.bootstrap import bootstrap
from probes.measures.prediction import auroc, ece
from probes.measures.routing import aiq, apgr, area_under_curve, cost_quality_curve, cost_saved, cpt
from router.cli.main import cli
from router.tuning.fitting.fit import fit_probe
from router.tuning.judging.baselines import quick_baselines
from router.tuning.judging.cross_validation import split_folds
from router.tuning.judging.probe_evaluation import PROBE, EvaluationOptions, evaluate, score_routers
from router.tuning.judging.ranking import FIGURES, RouterScores, Truth, curve_band, measure
from router.tuning.judging.slices import measure_slices, script, slice_labels
from router.tuning.outcomes import pair_data
from tests.fakes import fake_probe, fake_spec
from tests.router.outcomes import make_outcomes


def random_case(n: int = 300, seed: int = 0) -> tuple[RouterScores, Truth]:
    """Ties among gains and risks, repeated texts, costs that differ by row."""
    rng = np.random.default_rng(seed)
    scores = np.stack([rng.random(n) < 0.5, rng.random(n) < 0.8], axis=1).astype(float)
    costs = np.stack([rng.uniform(0.1, 0.2, n), rng.uniform(1, 2, n)], axis=1)
    router = RouterScores(np.round(rng.normal(size=n), 1), np.round(rng.random(n), 2))
    return router, Truth(scores, rng.integers(0, n // 2, n), costs)


class TestFigures:
    def test_without_weights_they_are_those_of_the_metrics_package(self) -> None:
        router, truth = random_case()
        weak, strong = truth.scores.T
        found = measure({"x": router}, truth, resamples=2)["x"]
        assert router.risk is not None
        assert truth.costs is not None
        assert found.value("apgr") == pytest.approx(apgr(router.gain, weak, strong), abs=1e-12)
        for name, x in (("cpt20", 0.2), ("cpt50", 0.5), ("cpt80", 0.8)):
            assert found.value(name) == pytest.approx(cpt(router.gain, weak, strong, x), abs=1e-12)
        assert found.value("auroc") == pytest.approx(auroc(router.risk, 1 - weak), abs=1e-12)
        assert found.value("ece") == pytest.approx(ece(router.risk, 1 - weak), abs=1e-12)
        curve = cost_quality_curve(router.gain, weak, strong, truth.costs[:, 0], truth.costs[:, 1])
        # Read at 101 shares, where the metrics take every prompt.
        assert found.value("area") == pytest.approx(area_under_curve(curve), abs=2e-3)
        assert found.value("aiq") == pytest.approx(aiq(curve), abs=2e-3)
        saved = cost_saved(curve, float(curve.cost[-1]), float(curve.quality[-1]))
        assert found.value("cost_saved") == pytest.approx(saved, abs=1e-2)

    def test_a_weighted_resample_is_the_drawn_rows_themselves(self) -> None:
        router, truth = random_case()
        # Each text its own: then both draw rows, and only the sampler's way of counting differs.
        truth = replace(truth, texts=np.arange(len(truth.texts)))
        found = measure({"x": router}, truth, resamples=400, seed=1)["x"].apgr
        slow = bootstrap(apgr, router.gain, *truth.scores.T, n_resamples=400, seed=1)
        assert (found.low, found.high) == pytest.approx((slow.low, slow.high), abs=1e-12)

    def test_perfect_knowledge_is_the_oracle_and_nothing_is_above_it(self) -> None:
        _, truth = random_case()
        gain = truth.scores[:, 1] - truth.scores[:, 0]
        rankings = {"oracle": RouterScores(gain)} | {str(s): random_case(seed=s)[0] for s in range(5)}
        found = measure(rankings, truth, resamples=2)
        assert found["oracle"].apgr.value == pytest.approx(apgr(gain, *truth.scores.T))
        assert all(found["oracle"].apgr.value >= one.apgr.value for one in found.values())

    def test_a_constant_ranking_is_worth_a_half_on_every_resample(self) -> None:
        _, truth = random_case()
        found = measure({"x": RouterScores(np.zeros(len(truth.scores)))}, truth, resamples=50)["x"]
        assert (found.apgr.low, found.apgr.value, found.apgr.high) == pytest.approx((0.5, 0.5, 0.5))
        assert found.value("lift") == pytest.approx(0.0, abs=1e-12)
        assert found.value("cpt50") == pytest.approx(0.5)

    def test_turning_a_ranking_around_mirrors_its_lift(self) -> None:
        router, truth = random_case()
        found = measure({"a": router, "b": RouterScores(-router.gain)}, truth, resamples=2)
        assert found["a"].value("lift") == pytest.approx(-(found["b"].value("lift") or 0.0), abs=1e-12)

    def test_differences_are_paired(self) -> None:
        router, truth = random_case()
        # The same ranking in other numbers: no resample can tell them apart.
        twin = RouterScores(3 * router.gain + 1, router.risk)
        found = measure({"a": router, "b": twin}, truth, reference="a", resamples=50)
        assert not found["a"].ahead
        for interval in found["b"].ahead.values():
            assert (interval.low, interval.value, interval.high) == pytest.approx((0, 0, 0), abs=1e-12)
        assert found["a"].apgr.high > found["a"].apgr.low

    def test_figures_that_need_a_gap_are_absent_without_one(self) -> None:
        router, truth = random_case()
        swapped = Truth(truth.scores[:, ::-1], truth.texts)
        found = measure({"x": router}, swapped, resamples=10)["x"]
        assert "apgr" not in found.figures
        assert "lift" in found.figures
        assert found.to_dict()["apgr"] is None

    def test_soft_scores_have_no_auroc_and_unknown_costs_save_none(self) -> None:
        router, truth = random_case()
        soft = Truth(truth.scores * 0.9, truth.texts)
        assert {"auroc", "cost_saved"}.isdisjoint(measure({"x": router}, soft, resamples=5)["x"].figures)

    def test_the_ends_of_a_curve_are_the_two_models(self) -> None:
        router, truth = random_case()
        cost, quality, low, high = curve_band(router, truth, resamples=20)
        assert truth.costs is not None
        assert (quality[0], quality[-1]) == pytest.approx(tuple(truth.scores.mean(axis=0)))
        assert (cost[0], cost[-1]) == pytest.approx(tuple(truth.costs.mean(axis=0)))
        assert (low <= high).all()

    def test_measuring_nothing_is_an_error(self) -> None:
        with pytest.raises(DataError, match="measuring needs prompts"):
            measure({}, Truth(np.empty((0, 2)), np.empty(0, dtype=np.int64)))


class TestSplits:
    def test_no_text_is_on_both_sides_of_a_random_split(self) -> None:
        outcomes, _ = make_outcomes()
        outcomes = replace(outcomes, texts=tuple(f"text {i % 50}" for i in range(400)))
        fold = split_folds(outcomes, 5, "random")
        numbers = group_numbers(outcomes.texts)
        assert all(len(set(fold[numbers == text])) == 1 for text in range(50))

    def test_a_group_split_leaves_whole_groups_out(self) -> None:
        outcomes, _ = make_outcomes(groups=3)
        fold = split_folds(outcomes, 5, "group")
        assert len(set(zip(outcomes.groups, fold.tolist(), strict=True))) == 3

    def test_a_group_split_needs_groups(self) -> None:
        outcomes, _ = make_outcomes(groups=1)
        with pytest.raises(DataError, match="at least 2 groups"):
            split_folds(outcomes, 5, "group")

    def test_a_text_that_stands_in_two_groups_is_not_learned_from_the_other(self) -> None:
        outcomes, features = make_outcomes(200, groups=2)
        texts = tuple(f"text {i % 100}" for i in range(200))
        outcomes = replace(outcomes, texts=texts, groups=("a",) * 100 + ("b",) * 100)
        with pytest.raises(DataError, match="at least 50 prompts"):
            # Group b holds all the texts of group a, so nothing is left to fit on.
            score_routers(None, outcomes, features, EvaluationOptions(folds=2, split="group"))


class TestEvaluation:
    def test_the_recipe_finds_the_signal_and_prints_both_splits(self) -> None:
        outcomes, features = make_outcomes(costs=(0.001, 0.01))
        found = evaluate(None, outcomes, features, EvaluationOptions(folds=5, resamples=100))
        assert found.probe.apgr.value > 0.7
        assert found.baselines["oracle"].apgr.value > found.probe.apgr.value
        assert found.baselines["random"].ahead["apgr"].low > 0
        assert set(found.splits) == {"random", "group"}
        assert found.splits["random"] == found.probe.apgr
        assert found.n_seen_in_fit == 0
        assert (found.weak_cost_usd, found.strong_cost_usd) == pytest.approx((0.001, 0.01))

    def test_the_headline_is_of_the_split_asked_for(self) -> None:
        outcomes, features = make_outcomes()
        by_random = evaluate(
            None, outcomes, features, EvaluationOptions(folds=4, split="random", baselines=(), resamples=20)
        )
        by_group = evaluate(
            None, outcomes, features, EvaluationOptions(folds=4, split="group", baselines=(), resamples=20)
        )
        assert by_group.probe.apgr == by_random.splits["group"]
        assert by_random.probe.apgr == by_group.splits["random"]

    def test_the_probe_is_judged_by_its_calibrated_risk(self) -> None:
        outcomes, features = make_outcomes()
        probe = fit_probe(outcomes, features, fake_spec(), title="p").probe
        scored = score_routers(probe, outcomes, features, EvaluationOptions())
        risk = probe.predict(features).risk
        columns = [probe.models.index("small"), probe.models.index("large")]
        np.testing.assert_array_equal(scored.risk, risk[:, columns])
        np.testing.assert_array_equal(scored.routers[PROBE].gain, risk[:, columns[0]] - risk[:, columns[1]])

    def test_prompts_seen_in_the_fit_are_counted_and_warned_of(self) -> None:
        outcomes, features = make_outcomes()
        probe = fit_probe(outcomes, features, fake_spec(), title="p").probe
        found = evaluate(probe, outcomes, features, EvaluationOptions(resamples=20))
        assert found.n_seen_in_fit == 400
        assert "400 of these 400 prompts were used to fit the probe" in (found.warning or "")
        assert evaluate(probe, outcomes, features, EvaluationOptions(folds=4, resamples=20)).warning is None

    def test_models_the_wrong_way_round_are_an_error_that_says_so(self) -> None:
        outcomes, features = make_outcomes()
        swapped = outcomes.select_models(("large", "small"))
        with pytest.raises(DataError, match="Swap them, or add prompts"):
            evaluate(None, swapped, features, EvaluationOptions(folds=4, resamples=20))


class TestSlices:
    def test_they_are_the_figures_of_their_rows(self) -> None:
        router, truth = random_case()
        labels = np.where(np.arange(300) < 200, "a", "b")
        found = measure_slices(router, truth, {"by": labels}, resamples=20, seed=0)["by"]
        alone = measure({"": RouterScores(router.gain[:200])}, truth.take(np.arange(200)), resamples=20)[""]
        assert found["a"].n == 200
        assert found["a"].lift == alone.figures["lift"]
        assert found["b"].strong_score == pytest.approx(truth.scores[200:, 1].mean())

    def test_slices_too_small_to_say_anything_are_left_out(self) -> None:
        router, truth = random_case()
        labels = np.where(np.arange(300) < 29, "small", "large")
        assert set(measure_slices(router, truth, {"by": labels}, resamples=5, seed=0)["by"]) == {"large"}

    def test_length_cuts_into_quarters(self) -> None:
        labels = slice_labels(["x" * (i + 1) for i in range(100)], [""] * 100)
        assert set(labels) == {"length", "script"}
        _, counts = np.unique(labels["length"], return_counts=True)
        assert counts.tolist() == [25, 25, 25, 25]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("How are you?", "Latin"),
            ("Как дела?", "Cyrillic"),
            ("元気ですか", "CJK"),
            ("كيف حالك", "Arabic"),
            ("2 + 2 = 4", "none"),
            ("Was heißt собака?", "Latin"),
        ],
    )
    def test_a_script_is_that_of_most_letters(self, text: str, expected: str) -> None:
        assert script(text) == expected


class TestCommand:
    @pytest.fixture
    def files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
        """Save a probe, and write data whose features come from a table instead of an encoder."""
        outcomes, features = make_outcomes(300)
        artifact.save(fake_probe(("small", "large")), tmp_path / "probe")
        data = tmp_path / "data.jsonl"
        rows = [
            {"prompt": text, "group": group, "model": model, "score": score, "cost_usd": cost}
            for text, group, scores in zip(outcomes.texts, outcomes.groups, outcomes.scores.tolist(), strict=True)
            for model, score, cost in zip(outcomes.models, scores, (0.001, 0.01), strict=True)
        ]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        table = dict(zip(outcomes.texts, features, strict=True))

        class Table:
            def __init__(self, engine: object) -> None:
                assert engine is None

            def features(self, spec: object, texts: tuple[str, ...], **_: object) -> np.ndarray:
                return np.stack([table[text] for text in texts])

        monkeypatch.setattr(pair_data, "FeatureCache", Table)
        return tmp_path / "probe", data

    def run(self, files: tuple[Path, Path], *options: str) -> str:
        command = [
            "evaluate",
            str(files[0]),
            str(files[1]),
            "--weak",
            "small",
            "--strong",
            "large",
            "--resamples",
            "100",
        ]
        done = CliRunner().invoke(cli, [*command, *options], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    def test_the_keys_that_scripts_depend_on(self, files: tuple[Path, Path]) -> None:
        found = json.loads(self.run(files, "--json", "--quick"))
        for one in (found, found["baselines"]["random"], found["baselines"]["prompt_length"]):
            assert one["apgr"]["low"] <= one["apgr"]["value"] <= one["apgr"]["high"]
            assert all(
                isinstance(one[name], float) for name in ("cpt50", "cpt80", "auroc", "ece", "cpt20", "area", "aiq")
            )
            assert set(one["intervals"]) == set(FIGURES)
        assert found["n"] == 300
        assert found["baselines"]["random"]["probe_ahead_by"]["apgr"].keys() >= {"value", "low", "high"}
        assert set(found["slices"]) == {"group", "length", "script"}

    def test_cv_prints_both_splits_and_what_to_expect(self, files: tuple[Path, Path]) -> None:
        printed = self.run(files, "--cv", "3", "--quick")
        assert "refitted in 3 folds, split by prompt text" in printed
        assert "random split: APGR" in printed
        assert "group  split: APGR" in printed
        assert "expect it for kinds of prompts it was not fitted on" in printed
        assert "always large" in printed

    def test_prices_fill_the_costs_that_the_data_do_not_have(self, files: tuple[Path, Path], tmp_path: Path) -> None:
        rows = [json.loads(line) for line in files[1].read_text("utf-8").splitlines()]
        for number, row in enumerate(rows):
            # The first prompt keeps its costs; half of the others know their tokens.
            if number >= 2:
                del row["cost_usd"]
                row |= {"input_tokens": 1000, "output_tokens": 100} if number % 4 < 2 else {}
        files[1].write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        prices = tmp_path / "prices.yaml"
        prices.write_text(
            "small: {input_usd_per_million_tokens: 1, output_usd_per_million_tokens: 10, expected_output_tokens: 50}\n"
            "large: {input_usd_per_million_tokens: 10, output_usd_per_million_tokens: 100}\n"
        )
        assert json.loads(self.run(files, "--json", "--quick"))["weak"]["mean_cost_usd"] is None
        found = json.loads(self.run(files, "--json", "--quick", "--prices", str(prices)))
        assert found["n_estimated_costs"] == 2 * 150
        assert found["cost_saved"] is not None
        tokens = np.array([len(row["prompt"]) for row in rows[2::4]]) / 4
        guessed = (tokens * 1 + 50 * 10) / 1e6
        total = 0.001 + 149 * (1000 * 1 + 100 * 10) / 1e6 + guessed.sum()
        assert found["weak"]["mean_cost_usd"] == pytest.approx(total / 300, rel=0.01)
        assert found["strong"]["mean_cost_usd"] > 5 * found["weak"]["mean_cost_usd"]
        assert "300 of 600 costs are estimates" in self.run(files, "--quick", "--prices", str(prices))

    def test_a_model_without_a_price_is_named(self, files: tuple[Path, Path], tmp_path: Path) -> None:
        (tmp_path / "p.yaml").write_text("small: {input_usd_per_million_tokens: 1, output_usd_per_million_tokens: 1}\n")
        with pytest.raises(AssertionError, match="the price file must have every model; large missing"):
            self.run(files, "--quick", "--prices", str(tmp_path / "p.yaml"))


def test_the_quick_baselines_are_the_contract_of_the_command() -> None:
    assert [one.name for one in quick_baselines()] == ["random", "prompt_length", "per_group_best", "oracle"]

"""Tests of `elle evaluate --policy`: decisions are those of the service, figures are counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from router.deciding.pipeline import Router
from router.policies.loading import load_policy
from router.tuning.judging.policy_evaluation import PolicyEvaluationOptions, candidate_outcomes, evaluate_policy
from router.tuning.outcomes import feature_cache
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.reporting.policy_text import policy_estimates
from router.values import RouteQuery
from tests.fakes import FakeEncoder, fake_probe, write_policy
from tests.router.tuning.judging.evaluation_data import PRICES, answers, candidate, evaluated, fixed_policy, run, write


class TestByHand:
    def test_shares_quality_and_cost_are_what_a_person_counts(self, tmp_path: Path) -> None:
        found = evaluated(tmp_path, answers({"small": [1, 0, 1, 0], "large": [1, 1, 1, 0]}))
        own, best, always_small, always_large = found["rules"]
        assert [one["name"] for one in found["rules"]] == ["mine", "mine:best", "always small", "always large"]
        assert own["shares"] == {"small": 1.0, "large": 0.0}
        assert own["quality"]["value"] == 0.5
        assert own["lost"]["value"] == 0.25
        # 1,000 tokens at 1 and 500 at 2 USD a million: 0.002 USD.
        assert own["cost_usd_per_1k"]["value"] == pytest.approx(2.0)
        assert best["cost_usd_per_1k"]["value"] == pytest.approx(20.0)
        assert own["saved"]["value"] == pytest.approx(0.9)
        assert best["lost"] == {"value": 0.0, "low": 0.0, "high": 0.0, "confidence": 0.95}
        assert best["gained"]["value"] == 0.25
        assert (always_small["quality"], always_large["quality"]) == (own["quality"], best["quality"])
        assert found["estimates"] == []
        assert found["sentence"].startswith(
            "Of 1,000 requests 1000 go to small and 0 go to large. Their mean quality is 0.500"
        )
        assert "always large has 0.750, so 0.250 is lost" in found["sentence"]
        assert found["sentence"].endswith(
            "1,000 requests cost 2.00 USD; always large costs 20.00 USD, so 90% is saved."
        )

    def test_the_interval_of_the_loss_is_paired(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        right = (rng.random(400) < 0.5).astype(float)
        worse = np.where(np.arange(400) % 20 == 0, 0.0, right)
        found = evaluated(tmp_path, answers({"small": worse.tolist(), "large": right.tolist()}))
        own = found["rules"][0]
        paired = own["lost"]["high"] - own["lost"]["low"]
        assert paired < 0.5 * (own["quality"]["high"] - own["quality"]["low"])
        assert own["lost"]["value"] == pytest.approx((right - worse).mean())

    def test_scores_that_were_not_observed_are_estimated_bounded_and_named(self, tmp_path: Path) -> None:
        # The large model answered two of four; without a probe its mean there, .5, stands in.
        found = evaluated(tmp_path, answers({"small": [1, 0, 1, 1], "large": [1, 0, None, None]}))
        own, best = found["rules"][:2]
        assert own["observed_share"] == 1.0
        assert best["observed_share"] == 0.5
        assert best["quality"]["value"] == pytest.approx(0.5)
        assert best["quality_bounds"] == [0.25, 0.75]
        # Small is right on both that large did not answer: between 2 / 4 gained and nothing lost.
        assert own["lost"]["value"] == pytest.approx(-0.25)
        assert own["lost_bounds"] == [-0.5, 0.0]
        assert found["estimates"][0].startswith("50.0% of the scores of always large were not observed")
        assert "estimated by the mean of the candidate's scores" in found["estimates"][0]
        assert "so 0.250 is gained" in found["sentence"]

    def test_costs_without_token_counts_are_named_as_estimates(self, tmp_path: Path) -> None:
        found = evaluated(tmp_path, answers({"small": [1, 0], "large": [1, 1]}, tokens=False))
        own = found["rules"][0]
        assert own["cost_estimated_share"] == 1.0
        # "prompt 0" is 8 bytes, about 2 tokens; 500 output tokens are expected.
        assert own["cost_usd_per_1k"]["value"] == pytest.approx(1000 * (2 * 1 + 500 * 2) / 1e6)
        assert any("100.0% of the costs are estimated" in said for said in found["estimates"])

    def test_without_prices_no_cost_is_made_up(self, tmp_path: Path) -> None:
        plain = [{"name": name, "model": f"openai/{name}"} for name in ("small", "large")]
        policy = fixed_policy(tmp_path, candidates=plain)
        found = evaluated(tmp_path, answers({"small": [1, 0], "large": [1, 1]}), policy=policy)
        assert found["rules"][0]["cost_usd_per_1k"] is None
        assert "give the candidates prices" in found["sentence"]

    def test_prompts_that_nobody_may_answer_are_counted_and_left_out(self, tmp_path: Path) -> None:
        small, large = candidate("small"), candidate("large")
        both = [small | {"context_window_tokens": 100}, large | {"context_window_tokens": 100}]
        data = answers({"small": [1, 0], "large": [1, 1]})
        data += [{"prompt": "x" * 4000, "prompt_id": "long", "model": name, "score": 1} for name in PRICES]
        found = evaluated(tmp_path, data, policy=fixed_policy(tmp_path, candidates=both))
        assert (found["n"], found["n_refused"]) == (2, 1)
        assert any("1 further prompts may be answered by no candidate" in note for note in found["notes"])


class TestOnAProbe:
    @pytest.fixture
    def data_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Write a policy with a profile on the fake probe, and 300 prompts that it was not fitted on."""
        encoder = FakeEncoder()
        monkeypatch.setattr(feature_cache, "load_encoder", lambda spec, directory=None: encoder)
        monkeypatch.setenv("ELLE_CACHE_DIR", str(tmp_path / "cache"))
        write_policy(
            tmp_path, candidates=[candidate("small"), candidate("large")],
            rule={"kind": "gain", "thresholds": [0.4]},
            profiles={"cheap": {"rule": {"kind": "gain", "thresholds": [0.5]}}},
        )  # fmt: skip
        rng = np.random.default_rng(1)
        rows = []
        for i in range(300):
            text = f"new prompt {i}"
            hard = encoder.encode(text)[0] > 0
            for model, chance in (("small", 0.2 if hard else 0.9), ("large", 0.9)):
                rows.append({"prompt": text, "model": model, "score": float(rng.random() < chance)})
        write(tmp_path / "data.jsonl", rows)
        return tmp_path

    def test_every_prompt_goes_where_the_service_sends_it(self, data_folder: Path) -> None:
        result = run("evaluate", "--policy", data_folder / "test.yaml", data_folder / "data.jsonl", "--json")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        policy = load_policy(data_folder / "test.yaml")
        encoder = FakeEncoder()
        router = Router([policy, *policy.profiles()], {encoder.spec.identity: encoder})
        outcomes = read_outcomes(data_folder / "data.jsonl")
        for rule in found["rules"][:2]:
            served = router.policy(rule["name"])
            one = Router([served], {encoder.spec.identity: encoder})
            chosen = [one.decide(RouteQuery.from_prompt(text)).chosen for text in outcomes.texts]
            assert rule["shares"]["small"] == pytest.approx(chosen.count("small") / 300)
            picked = [outcomes.scores[i, outcomes.models.index(name)] for i, name in enumerate(chosen)]
            assert rule["quality"]["value"] == pytest.approx(np.mean(picked))
        assert 0.1 < found["rules"][0]["shares"]["small"] < found["rules"][1]["shares"]["small"]

    def test_a_log_with_one_answer_for_each_prompt_is_estimated_close_to_the_truth(self, data_folder: Path) -> None:
        served = load_policy(data_folder / "test.yaml")
        whole = candidate_outcomes(read_outcomes(data_folder / "data.jsonl"), served.rules.file.candidates)
        encoder = FakeEncoder()
        features = np.stack([encoder.encode(text) for text in whole.texts])
        truth = evaluate_policy(served, whole, features, PolicyEvaluationOptions(resamples=100))
        log = whole.scores.copy()
        log[np.arange(300), np.random.default_rng(2).integers(0, 2, 300)] = np.nan
        whole.scores[:] = log
        found = evaluate_policy(served, whole, features, PolicyEvaluationOptions(resamples=100))
        assert 0.4 < found.own.observed_share < 0.6
        assert found.own.quality.value == pytest.approx(truth.own.quality.value, abs=0.06)
        low, high = found.own.quality_bounds
        assert low < truth.own.quality.value < high
        assert any("estimated by the probe" in said for said in policy_estimates(found))

    def test_prompts_of_the_fit_are_warned_of_and_the_others_told_apart(self, data_folder: Path) -> None:
        rows = [json.loads(line) for line in (data_folder / "data.jsonl").read_text().splitlines()]
        for row in rows[:100]:
            row["prompt"] = row["prompt"].replace("new prompt", "prompt number")
        write(data_folder / "mixed.jsonl", rows)
        result = run("evaluate", "--policy", data_folder / "test.yaml", data_folder / "mixed.jsonl")
        assert result.exit_code == 0
        assert "50 of these 300 prompts have a text that the probe was fitted on" in result.stderr
        assert "On the other 250: quality" in result.stderr
        assert "Of 1,000 requests" in result.stdout
        assert "test:cheap" in result.stdout
        assert "always large" in result.stdout

    def test_the_report_opens_with_the_sentence_shows_profiles_and_says_what_is_estimated(
        self, data_folder: Path
    ) -> None:
        # A rule without any threshold, so that nothing can be marked in the chart.
        write_policy(
            data_folder, name="costs", candidates=[candidate("small"), candidate("large")],
            rule={"kind": "cost", "quality_per_usd": 10.0},
            profiles={"cheap": {"rule": {"kind": "cost", "quality_per_usd": 30.0}}},
        )  # fmt: skip
        given = (
            "report",
            data_folder / "probe",
            data_folder / "data.jsonl",
            "--weak",
            "small",
            "--strong",
            "large",
            "--quick",
        )
        result = run(
            *given, "--resamples", 100, "--policy", data_folder / "costs.yaml", "--out", data_folder / "report"
        )
        assert result.exit_code == 0, result.output
        page = (data_folder / "report" / "report.html").read_text("utf-8")
        places = [
            page.index(text)
            for text in (
                "<h1>",
                "Of 1,000 requests",
                "100.0% of the costs are estimated",
                "costs:cheap",
                "What the probe does",
            )
        ]
        assert places == sorted(places)
        assert "has no threshold between these two models" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--policy", "mine.yaml", "data.jsonl", "--cv", "5"), "--cv is for a PROBE"),
        (("--policy", "mine.yaml", ".", "data.jsonl"), "files of outcomes only"),
        (("--policy", "mine.yaml", "data.jsonl", "--strong", "huge"), "--strong must be a candidate"),
        (("--policy", "mine.yaml", "other.jsonl"), "must hold outcomes of the policy's candidates"),
        (("data.jsonl",), "give PROBE and DATA with --weak and --strong, or --policy"),
        (("p", "data.jsonl", "--weak", "a", "--strong", "b", "--holdout", "latest:10%"), "are for --policy"),
    ],
)
def test_what_cannot_be_evaluated_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    fixed_policy(tmp_path)
    write(tmp_path / "data.jsonl", answers({"small": [1, 0]}))
    write(tmp_path / "other.jsonl", answers({"other": [1, 0]}))
    result = run("evaluate", *arguments)
    assert result.exit_code in (1, 2)
    assert message in result.stderr


def test_models_are_found_by_the_name_in_the_probe_the_own_name_or_the_model_string(tmp_path: Path) -> None:
    assert fake_probe().models == ("small", "large")
    data = answers({"openai/small": [1, 0], "large": [1, 1]})
    assert evaluated(tmp_path, data)["rules"][0]["quality"]["value"] == 0.5

"""`elle tune` as people use it: a certificate or a plain no, and nothing half written."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from probes.certificates.bounds import upper_bound
from probes.errors import DataError
from router.cli.output import NOT_CERTIFIED
from router.deciding.pipeline import Router
from router.policies.loading import load_policy
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.holdout import left_out
from router.values import RouteQuery
from tests.router.tuning.certifying.tune_verb import PAIR, answer_of, encoder_for, run, tune
from tests.tuning_outcomes import MODELS, write_outcomes


class TestOneFile:
    def test_a_held_out_fit_and_its_tuning_share_one_file_and_no_prompt(
        self, data_folder: Path, tmp_path: Path
    ) -> None:
        found = answer_of(tune(data_folder, *PAIR, "--max-loss", 0.03, "--out", tmp_path / "policy.yaml"))
        outcomes = read_outcomes(data_folder / "data.jsonl")
        held_out = left_out(outcomes, 0.5, 0)
        assert found["certified"]
        assert found["n_calibration"] == held_out.sum()
        assert found["n_seen_in_fit"] == len(outcomes) - held_out.sum()
        assert set(found["seen_in_fit_ids"]) <= {
            id_ for id_, out in zip(outcomes.ids, held_out, strict=True) if not out
        }
        assert found["data_digest"] == outcomes.sources[0].sha256

    def test_what_is_left_out_depends_on_the_text_and_grows_with_the_share(self, data_folder: Path) -> None:
        outcomes = read_outcomes(data_folder / "data.jsonl")
        few, many = left_out(outcomes, 0.2), left_out(outcomes, 0.5)
        assert few.mean() == pytest.approx(0.2, abs=0.04)
        assert many[few].all()
        backwards = outcomes.take(np.arange(len(outcomes))[::-1])
        assert (left_out(backwards, 0.2)[::-1] == few).all()
        assert (left_out(outcomes, 0.2, seed=1) != few).any()
        with pytest.raises(DataError, match="below 1, got 1"):
            left_out(outcomes, 1.0)

    def test_nothing_left_out_leaves_nothing_to_certify_with(self, data_folder: Path, tmp_path: Path) -> None:
        assert run("fit", data_folder / "data.jsonl", "--out", tmp_path / "probe", "--json").exit_code == 0
        out = tmp_path / "policy.yaml"
        done = run("tune", tmp_path / "probe", data_folder / "data.jsonl", *PAIR, "--max-loss", 0.03, "--out", out)
        assert done.exit_code == 1
        assert "2,400 of 2,400 were used in its fit" in done.stderr
        assert "--holdout" in done.stderr
        assert not out.exists()


class TestCertificate:
    def test_the_json_has_the_words_of_the_contract(self, data_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "policy.yaml"
        found = answer_of(
            tune(data_folder, *PAIR, "--max-loss", 0.03, "--prices", data_folder / "prices.yaml", "--out", out)
        )
        assert found["certified"] is True
        assert found["thresholds"] == [found["threshold"]]
        assert 0 < found["weak_share"] < 1
        assert found["loss_estimate"] < found["loss_upper_bound"] <= 0.03
        assert 0 < found["expected_cost_saving"] < found["weak_share"]
        created, expires = (datetime.fromisoformat(found[key]) for key in ("created", "expires"))
        assert (expires - created).days == 90
        assert found["policy_file"] == str(out)

    def test_its_figures_are_those_of_the_data(self, data_folder: Path, tmp_path: Path) -> None:
        """Recomputed from the policy file, prompt by prompt, through the router itself."""
        out = tmp_path / "policy.yaml"
        found = answer_of(tune(data_folder, *PAIR, "--max-loss", 0.03, "--out", out))
        served = load_policy(out)
        outcomes = read_outcomes(data_folder / "data.jsonl").select_models(MODELS)
        outcomes = outcomes.take(np.flatnonzero(left_out(outcomes, 0.5)))
        router = Router([served], {served.encoder_spec.identity: encoder_for(served)})
        weak = np.array([router.decide(RouteQuery.from_prompt(t)).chosen == "weak" for t in outcomes.texts])
        drop = np.where(weak, outcomes.scores[:, 1] - outcomes.scores[:, 0], 0.0)
        assert found["weak_share"] == pytest.approx(weak.mean())
        assert found["loss_estimate"] == pytest.approx(drop.mean())
        assert found["loss_upper_bound"] == pytest.approx(upper_bound(drop, 0.05)[0])

    def test_a_stricter_target_saves_less(self, data_folder: Path) -> None:
        shares = [answer_of(tune(data_folder, *PAIR, "--max-loss", eps))["weak_share"] for eps in (0.02, 0.04, 0.08)]
        assert shares == sorted(shares)
        assert shares[0] < shares[2]

    def test_an_impossible_target_is_refused_with_the_labels_it_would_take(
        self, data_folder: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "policy.yaml"
        done = run("tune", data_folder / "probe", data_folder / "data.jsonl", *PAIR, "--max-loss", 0.0005, "--out", out)
        assert done.exit_code == NOT_CERTIFIED == 3
        assert "Not possible with these data; about" in done.stdout
        assert "more labels would be needed" in done.stdout
        assert not out.exists()
        found = answer_of(tune(data_folder, *PAIR, "--max-loss", 0.0005))
        assert found["certified"] is False
        assert found["more_labels"] > 1000
        assert found["threshold"] is None
        assert found["loss_upper_bound"] > 0.0005

    def test_an_uncertified_policy_is_written_only_when_asked_for(self, data_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "policy.yaml"
        done = tune(data_folder, *PAIR, "--max-loss", 0.0005, "--out", out, "--allow-uncertified")
        assert done.exit_code == NOT_CERTIFIED
        assert "NOT certified" in out.read_text()
        assert load_policy(out).certificate is None

    def test_a_later_write_replaces_the_file_whole_and_a_failure_leaves_the_old(
        self, data_folder: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "policy.yaml"
        assert tune(data_folder, *PAIR, "--max-loss", 0.03, "--out", out).exit_code == 0
        before = out.read_text()
        assert tune(data_folder, *PAIR, "--max-loss", 0.05, "--out", out).exit_code == 1
        assert out.read_text() == before
        assert tune(data_folder, *PAIR, "--max-loss", 0.0005, "--out", out, "--force").exit_code == NOT_CERTIFIED
        assert out.read_text() == before
        assert tune(data_folder, *PAIR, "--max-loss", 0.05, "--out", out, "--force").exit_code == 0
        assert out.read_text() != before
        assert [path.name for path in tmp_path.iterdir()] == ["policy.yaml"]


class TestTargets:
    def test_a_budget_of_strong_calls_is_kept_and_used(self, data_folder: Path) -> None:
        found = answer_of(tune(data_folder, *PAIR, "--max-strong-share", 0.3))
        (target,) = found["targets"]
        assert target["method"] == "binomial"
        assert 0.2 < target["estimate"] < target["bound"] <= 0.3
        assert found["shares"]["strong"] == pytest.approx(target["estimate"])

    def test_a_budget_in_money_is_kept_and_used(self, data_folder: Path) -> None:
        found = answer_of(tune(data_folder, *PAIR, "--max-cost-usd-per-1k", 2, "--prices", data_folder / "prices.yaml"))
        (target,) = found["targets"]
        assert 0.5 < target["estimate"] < target["bound"] <= 2.0
        assert found["cost_usd_per_1k"] == pytest.approx(target["estimate"])
        assert any("no request costs more" in note for note in found["notes"])
        limits = ("--max-cost-usd-per-1k", 2, "--prices", data_folder / "prices.yaml", "--max-request-usd", 0.005)
        assert answer_of(tune(data_folder, *PAIR, *limits))["cost_usd_per_1k"] > 1.5 > target["estimate"]

    def test_a_floor_on_quality_is_kept_and_used(self, data_folder: Path) -> None:
        found = answer_of(tune(data_folder, *PAIR, "--min-quality", 0.8))
        (target,) = found["targets"]
        assert 0.8 <= target["bound"] < target["estimate"] < 0.85
        assert found["quality"] == pytest.approx(target["estimate"])

    def test_targets_given_together_share_the_level_and_all_hold(self, data_folder: Path) -> None:
        found = answer_of(tune(data_folder, *PAIR, "--max-loss", 0.08, "--max-strong-share", 0.8))
        assert found["certified"]
        assert [t["delta"] for t in found["targets"]] == [0.025, 0.025]
        assert "Bonferroni" in found["correction"]
        assert all(t["bound"] <= t["limit"] for t in found["targets"])

    def test_targets_that_contradict_each_other_are_refused_though_each_can_be_met(self, data_folder: Path) -> None:
        found = answer_of(tune(data_folder, *PAIR, "--max-loss", 0.02, "--max-strong-share", 0.2))
        assert not found["certified"]
        assert [t["certified"] for t in found["targets"]] == [True, True]
        assert found["threshold"] is None

    def test_the_result_is_certified_only_if_every_profile_is(self, data_folder: Path) -> None:
        done = tune(data_folder, *PAIR, "--max-loss", 0.05, "--profile", "strict=0.0001")
        found = answer_of(done)
        assert done.exit_code == NOT_CERTIFIED
        assert found["targets"][0]["certified"]
        assert not found["profiles"]["strict"]["certified"]
        assert found["certified"] is False

    def test_costs_of_the_data_come_before_prices(self, data_folder: Path, tmp_path: Path) -> None:
        data = write_outcomes(tmp_path / "paid.jsonl", 300, tag="paid", extra={"cost_usd": 0.5})
        found = answer_of(
            tune(data_folder, *PAIR, "--max-loss", 0.1, "--prices", data_folder / "prices.yaml", data=data)
        )
        assert found["reference_cost_usd_per_1k"] == pytest.approx(500)
        assert found["expected_cost_saving"] == pytest.approx(0.0)
        assert not any("estimates" in note for note in found["notes"])
        dear = tune(data_folder, *PAIR, "--max-cost-usd-per-1k", 600, "--max-request-usd", 0.4, data=data)
        assert "no request may cost more than --max-request-usd, 0.4; one of the data costs 0.5" in dear.stderr

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (PAIR, "a target must be given"),
            ((*PAIR, "--max-loss", 2), "max_loss must lie strictly between 0 and 1, got 2"),
            ((*PAIR, "--max-loss", "nan"), "max_loss must lie strictly between 0 and 1, got nan"),
            ((*PAIR, "--max-loss", 0.02, "--confidence", 1), "confidence must lie strictly between 0 and 1"),
            ((*PAIR, "--max-loss", 0.02, "--reference", "nobody"), "the reference must be one of weak, strong"),
            ((*PAIR, "--max-cost-usd-per-1k", 2), "needs the price of every candidate"),
            ((*PAIR, "--max-loss", 0.02, "--rule", "cost"), "the cost rule needs a price of every candidate"),
            ((*PAIR, "--max-strong-share", 0.2, "--plan"), "--by and --plan are about quality loss"),
            ((*PAIR, "--max-loss", 0.02, "--profile", "a:b=0.05"), "names of profiles must consist of letters"),
            ((*PAIR, "--max-loss", 0.02, "--prices", "none.yaml"), "price file none.yaml does not exist"),
            (("--models", "weak", "--max-loss", 0.02), "two models or more"),
            (
                ("--models", "weak,huge", "--max-loss", 0.02),
                "models must be among the probe's (strong, weak), got huge",
            ),
            ((*PAIR, "--max-loss", 0.02, "--out", "no/such/folder/p.yaml"), "must exist; create it first"),
        ],
    )
    def test_what_cannot_be_asked_for_is_said(
        self, data_folder: Path, arguments: tuple[object, ...], message: str
    ) -> None:
        done = tune(data_folder, *arguments)
        assert done.exit_code == 1
        assert message in done.stderr

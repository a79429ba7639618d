"""`elle tune` as people use it: a certificate or a plain no, nothing half written, what is served is certified."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from probes.artifacts import store as artifact
from probes.certificates.bounds import upper_bound
from probes.errors import DataError
from router.cli.main import cli
from router.cli.output import NOT_CERTIFIED
from router.deciding.pipeline import Router
from router.errors import ConfigError
from router.policies.certificate import sealed
from router.policies.certificate_record import CertificateRecord
from router.policies.loading import load_policies, load_policy
from router.tuning.certifying.calibration_set import calibration_set
from router.tuning.outcomes import feature_cache as features_module
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.holdout import left_out
from router.values import Overrides, RouteQuery
from tests.fakes import FakeEncoder
from tests.tuning_world import MODELS, write_world

PRICES = """\
weak: {input_usd_per_million_tokens: 1, output_usd_per_million_tokens: 1}
strong: {input_usd_per_million_tokens: 10, output_usd_per_million_tokens: 10, model: openai/strong}
"""
PAIR = ("--weak", "weak", "--strong", "strong")


@pytest.fixture(scope="module")
def _encoder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features_module, "load_encoder", lambda spec, directory=None: FakeEncoder(spec))
        patch.setenv("ELLE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def world(_encoder: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one data file of 2,400 prompts, and a probe fitted on about half of them."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder / "data.jsonl", 2400)
    (folder / "prices.yaml").write_text(PRICES)
    done = run("fit", folder / "data.jsonl", "--holdout", 0.5, "--out", folder / "probe", "--json")
    assert done.exit_code == 0, done.output
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def tune(world: Path, *arguments: object, data: Path | None = None) -> Result:
    return run("tune", world / "probe", data or world / "data.jsonl", *arguments, "--json")


def expire(policy: Path) -> None:
    """Make the policy's certificate one that `elle tune` wrote long ago."""
    data = yaml.safe_load(policy.read_text())
    old = CertificateRecord.model_validate(data["certificate"] | {"expires": "2020-01-01T00:00:00Z"})
    data["certificate"] = sealed(old).model_dump(mode="json")
    policy.write_text(yaml.safe_dump(data))


def answer_of(done: Result) -> dict[str, Any]:
    assert done.exit_code in (0, NOT_CERTIFIED), done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class TestOneFile:
    def test_a_held_out_fit_and_its_tuning_share_one_file_and_no_prompt(self, world: Path, tmp_path: Path) -> None:
        found = answer_of(tune(world, *PAIR, "--max-loss", 0.03, "--out", tmp_path / "policy.yaml"))
        outcomes = read_outcomes(world / "data.jsonl")
        held_out = left_out(outcomes, 0.5, 0)
        assert found["certified"]
        assert found["n_calibration"] == held_out.sum()
        assert found["n_seen_in_fit"] == len(outcomes) - held_out.sum()
        assert set(found["seen_in_fit_ids"]) <= {
            id_ for id_, out in zip(outcomes.ids, held_out, strict=True) if not out
        }
        assert found["data_digest"] == outcomes.sources[0].sha256

    def test_what_is_left_out_depends_on_the_text_and_grows_with_the_share(self, world: Path) -> None:
        outcomes = read_outcomes(world / "data.jsonl")
        few, many = left_out(outcomes, 0.2), left_out(outcomes, 0.5)
        assert few.mean() == pytest.approx(0.2, abs=0.04)
        assert many[few].all()
        backwards = outcomes.take(np.arange(len(outcomes))[::-1])
        assert (left_out(backwards, 0.2)[::-1] == few).all()
        assert (left_out(outcomes, 0.2, seed=1) != few).any()
        with pytest.raises(DataError, match="below 1, got 1"):
            left_out(outcomes, 1.0)

    def test_nothing_left_out_leaves_nothing_to_certify_with(self, world: Path, tmp_path: Path) -> None:
        assert run("fit", world / "data.jsonl", "--out", tmp_path / "probe", "--json").exit_code == 0
        out = tmp_path / "policy.yaml"
        done = run("tune", tmp_path / "probe", world / "data.jsonl", *PAIR, "--max-loss", 0.03, "--out", out)
        assert done.exit_code == 1
        assert "2,400 of 2,400 were used in its fit" in done.stderr
        assert "--holdout" in done.stderr
        assert not out.exists()


class TestCertificate:
    def test_the_json_has_the_words_of_the_contract(self, world: Path, tmp_path: Path) -> None:
        out = tmp_path / "policy.yaml"
        found = answer_of(tune(world, *PAIR, "--max-loss", 0.03, "--prices", world / "prices.yaml", "--out", out))
        assert found["certified"] is True
        assert found["thresholds"] == [found["threshold"]]
        assert 0 < found["weak_share"] < 1
        assert found["loss_estimate"] < found["loss_upper_bound"] <= 0.03
        assert 0 < found["expected_cost_saving"] < found["weak_share"]
        created, expires = (datetime.fromisoformat(found[key]) for key in ("created", "expires"))
        assert (expires - created).days == 90
        assert found["policy_file"] == str(out)

    def test_its_figures_are_those_of_the_data(self, world: Path, tmp_path: Path) -> None:
        """Recomputed from the policy file, prompt by prompt, through the router itself."""
        out = tmp_path / "policy.yaml"
        found = answer_of(tune(world, *PAIR, "--max-loss", 0.03, "--out", out))
        served = load_policy(out)
        outcomes = read_outcomes(world / "data.jsonl").select_models(MODELS)
        outcomes = outcomes.take(np.flatnonzero(left_out(outcomes, 0.5)))
        router = Router([served], {served.encoder_spec.identity: _encoder_for(served)})
        weak = np.array([router.decide(RouteQuery.from_prompt(t)).chosen == "weak" for t in outcomes.texts])
        drop = np.where(weak, outcomes.scores[:, 1] - outcomes.scores[:, 0], 0.0)
        assert found["weak_share"] == pytest.approx(weak.mean())
        assert found["loss_estimate"] == pytest.approx(drop.mean())
        assert found["loss_upper_bound"] == pytest.approx(upper_bound(drop, 0.05)[0])

    def test_a_stricter_target_saves_less(self, world: Path) -> None:
        shares = [answer_of(tune(world, *PAIR, "--max-loss", eps))["weak_share"] for eps in (0.02, 0.04, 0.08)]
        assert shares == sorted(shares)
        assert shares[0] < shares[2]

    def test_an_impossible_target_is_refused_with_the_labels_it_would_take(self, world: Path, tmp_path: Path) -> None:
        out = tmp_path / "policy.yaml"
        done = run("tune", world / "probe", world / "data.jsonl", *PAIR, "--max-loss", 0.0005, "--out", out)
        assert done.exit_code == NOT_CERTIFIED == 3
        assert "Not possible with these data; about" in done.stdout
        assert "more labels would be needed" in done.stdout
        assert not out.exists()
        found = answer_of(tune(world, *PAIR, "--max-loss", 0.0005))
        assert found["certified"] is False
        assert found["more_labels"] > 1000
        assert found["threshold"] is None
        assert found["loss_upper_bound"] > 0.0005

    def test_an_uncertified_policy_is_written_only_when_asked_for(self, world: Path, tmp_path: Path) -> None:
        out = tmp_path / "policy.yaml"
        done = tune(world, *PAIR, "--max-loss", 0.0005, "--out", out, "--allow-uncertified")
        assert done.exit_code == NOT_CERTIFIED
        assert "NOT certified" in out.read_text()
        assert load_policy(out).certificate is None

    def test_a_later_write_replaces_the_file_whole_and_a_failure_leaves_the_old(
        self, world: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "policy.yaml"
        assert tune(world, *PAIR, "--max-loss", 0.03, "--out", out).exit_code == 0
        before = out.read_text()
        assert tune(world, *PAIR, "--max-loss", 0.05, "--out", out).exit_code == 1
        assert out.read_text() == before
        assert tune(world, *PAIR, "--max-loss", 0.0005, "--out", out, "--force").exit_code == NOT_CERTIFIED
        assert out.read_text() == before
        assert tune(world, *PAIR, "--max-loss", 0.05, "--out", out, "--force").exit_code == 0
        assert out.read_text() != before
        assert [path.name for path in tmp_path.iterdir()] == ["policy.yaml"]


class TestTargets:
    def test_a_budget_of_strong_calls_is_kept_and_used(self, world: Path) -> None:
        found = answer_of(tune(world, *PAIR, "--max-strong-share", 0.3))
        (target,) = found["targets"]
        assert target["method"] == "binomial"
        assert 0.2 < target["estimate"] < target["bound"] <= 0.3
        assert found["shares"]["strong"] == pytest.approx(target["estimate"])

    def test_a_budget_in_money_is_kept_and_used(self, world: Path) -> None:
        found = answer_of(tune(world, *PAIR, "--max-cost-usd-per-1k", 2, "--prices", world / "prices.yaml"))
        (target,) = found["targets"]
        assert 0.5 < target["estimate"] < target["bound"] <= 2.0
        assert found["cost_usd_per_1k"] == pytest.approx(target["estimate"])
        assert any("no request costs more" in note for note in found["notes"])
        limits = ("--max-cost-usd-per-1k", 2, "--prices", world / "prices.yaml", "--max-request-usd", 0.005)
        assert answer_of(tune(world, *PAIR, *limits))["cost_usd_per_1k"] > 1.5 > target["estimate"]

    def test_a_floor_on_quality_is_kept_and_used(self, world: Path) -> None:
        found = answer_of(tune(world, *PAIR, "--min-quality", 0.8))
        (target,) = found["targets"]
        assert 0.8 <= target["bound"] < target["estimate"] < 0.85
        assert found["quality"] == pytest.approx(target["estimate"])

    def test_targets_given_together_share_the_level_and_all_hold(self, world: Path) -> None:
        found = answer_of(tune(world, *PAIR, "--max-loss", 0.08, "--max-strong-share", 0.8))
        assert found["certified"]
        assert [t["delta"] for t in found["targets"]] == [0.025, 0.025]
        assert "Bonferroni" in found["correction"]
        assert all(t["bound"] <= t["limit"] for t in found["targets"])

    def test_targets_that_contradict_each_other_are_refused_though_each_can_be_met(self, world: Path) -> None:
        found = answer_of(tune(world, *PAIR, "--max-loss", 0.02, "--max-strong-share", 0.2))
        assert not found["certified"]
        assert [t["certified"] for t in found["targets"]] == [True, True]
        assert found["threshold"] is None

    def test_the_result_is_certified_only_if_every_profile_is(self, world: Path) -> None:
        done = tune(world, *PAIR, "--max-loss", 0.05, "--profile", "strict=0.0001")
        found = answer_of(done)
        assert done.exit_code == NOT_CERTIFIED
        assert found["targets"][0]["certified"]
        assert not found["profiles"]["strict"]["certified"]
        assert found["certified"] is False

    def test_costs_of_the_data_come_before_prices(self, world: Path, tmp_path: Path) -> None:
        data = write_world(tmp_path / "paid.jsonl", 300, tag="paid", extra={"cost_usd": 0.5})
        found = answer_of(tune(world, *PAIR, "--max-loss", 0.1, "--prices", world / "prices.yaml", data=data))
        assert found["reference_cost_usd_per_1k"] == pytest.approx(500)
        assert found["expected_cost_saving"] == pytest.approx(0.0)
        assert not any("estimates" in note for note in found["notes"])
        dear = tune(world, *PAIR, "--max-cost-usd-per-1k", 600, "--max-request-usd", 0.4, data=data)
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
            ((*PAIR, "--max-strong-share", 0.2, "--plan"), "--by-group and --plan are about quality loss"),
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
    def test_what_cannot_be_asked_for_is_said(self, world: Path, arguments: tuple[object, ...], message: str) -> None:
        done = tune(world, *arguments)
        assert done.exit_code == 1
        assert message in done.stderr


class TestServing:
    @pytest.fixture
    def policy(self, world: Path, tmp_path: Path) -> Path:
        out = tmp_path / "tuned.yaml"
        done = tune(world, *PAIR, "--max-loss", 0.03, "--profile", "economy=0.1", "--out", out)
        assert done.exit_code == 0, done.output
        return out

    def test_profiles_are_asked_for_by_policy_name(self, policy: Path) -> None:
        served = load_policies([policy])
        assert [p.ref.name for p in served] == ["tuned", "tuned:economy"]
        router = Router(served, {served[0].encoder_spec.identity: _encoder_for(served[0])})
        texts = [f"serving {i}" for i in range(300)]
        chosen = {
            name: [router.decide(RouteQuery.from_prompt(t, overrides=Overrides(policy=name))).chosen for t in texts]
            for name in (None, "tuned:economy")
        }
        assert chosen["tuned:economy"].count("weak") > chosen[None].count("weak") > 0

    def test_each_profile_has_its_own_certificate_at_its_share_of_the_level(self, policy: Path) -> None:
        found = [p.certificate for p in load_policies([policy])]
        assert [c.targets[0].limit for c in found if c] == [0.03, 0.1]
        assert [c.targets[0].delta for c in found if c] == [0.025, 0.025]

    def test_the_policy_served_shows_its_certificate(self, policy: Path) -> None:
        shown = json.loads(load_policy(policy).to_json())
        assert shown["certificate"]["n_calibration"] > 1000
        assert shown["certificate"]["expired"] is False

    def test_a_certificate_for_another_probe_is_refused(self, policy: Path, world: Path, tmp_path: Path) -> None:
        assert run("fit", world / "data.jsonl", "--holdout", 0.3, "--out", tmp_path / "other", "--json").exit_code == 0
        data = yaml.safe_load(policy.read_text())
        data["probe"] = "other"
        policy.write_text(yaml.safe_dump(data))
        with pytest.raises(ConfigError, match=r"the certificate must be for the policy's probe, \w+; it is for"):
            load_policy(policy)

    @pytest.mark.parametrize(
        "edit",
        [
            {"rule": {"kind": "gain", "thresholds": [0.5]}},
            {"safe_default": "weak"},
            {"abstain_above_leverage": None},
        ],
    )
    def test_an_edit_of_what_decides_voids_the_certificate(self, policy: Path, edit: dict[str, object]) -> None:
        policy.write_text(yaml.safe_dump(yaml.safe_load(policy.read_text()) | edit))
        with pytest.raises(ConfigError, match="were changed since"):
            load_policy(policy)
        data = yaml.safe_load(policy.read_text())
        del data["certificate"], data["profiles"]
        policy.write_text(yaml.safe_dump(data))
        assert load_policy(policy).certificate is None

    def test_provider_settings_may_be_edited(self, policy: Path) -> None:
        data = yaml.safe_load(policy.read_text())
        data["candidates"][0] |= {"model": "openai/tiny", "api_base": "canned", "timeout_s": 5}
        policy.write_text(yaml.safe_dump(data))
        assert load_policy(policy).certificate is not None

    def test_an_expired_certificate_is_loaded_with_a_warning(
        self, policy: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        expire(policy)
        with caplog.at_level(logging.WARNING):
            served = load_policy(policy)
        assert "the certificate expired on 2020-01-01" in caplog.text
        assert json.loads(served.to_json())["certificate"]["expired"] is True

    def test_validate_says_what_is_certified_and_until_when(
        self, policy: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("probes.encoders.load.load_encoder", lambda spec, directory: FakeEncoder(spec))
        done = run("validate", policy)
        assert "tuned: certified max_loss 0.03 against strong, confidence 0.95" in done.stdout
        assert "tuned:economy: certified max_loss 0.1" in done.stdout
        found = json.loads(run("validate", policy, "--json").stdout)
        assert found["certificate_expired"] is False
        assert found["profiles"] == ["tuned:economy"]
        expire(policy)
        assert "EXPIRED on 2020-01-01" in run("validate", policy).stdout

    def test_candidates_of_a_policy_file_are_kept_as_they_are(self, policy: Path, world: Path, tmp_path: Path) -> None:
        data = yaml.safe_load(policy.read_text())
        data["candidates"][0] |= {"model": "openai/tiny", "context_window_tokens": 4096, "api_key_env": "TINY_KEY"}
        del data["certificate"], data["profiles"]
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
        out = tmp_path / "new.yaml"
        found = answer_of(tune(world, "--candidates", tmp_path / "mine.yaml", "--max-loss", 0.03, "--out", out))
        assert found["certified"]
        first = load_policy(out).rules.file.candidates[0]
        assert (first.model, first.context_window_tokens, first.api_key_env) == ("openai/tiny", 4096, "TINY_KEY")


class TestBadData:
    """Named errors with row numbers, and nothing written."""

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"score": 1.5}, "score must be a number, 0 to 1; line 801, the first is 1.5"),
            ({"score": float("nan")}, "score must be a number, 0 to 1; line 801, the first is nan"),
            ({"score": "half"}, "score must be a number, 0 to 1; line 801, the first is 'half'"),
            ({"score": None}, "score must be a number, 0 to 1; line 801"),
            ({"prompt": 7}, "line 801: prompt must be text, got int"),
            ({"model": ""}, "model must not be empty, line 801"),
            ({"cost_usd": -1}, "cost_usd must be a number, 0 or more; line 801"),
        ],
    )
    def test_a_bad_row_is_named(self, world: Path, tmp_path: Path, row: dict[str, object], message: str) -> None:
        data = write_world(tmp_path / "bad.jsonl", 400, tag="bad")
        with data.open("a") as file:
            file.write(json.dumps({"prompt": "one more", "model": "weak", "score": 1} | row) + "\n")
        out = tmp_path / "policy.yaml"
        done = tune(world, *PAIR, "--max-loss", 0.05, "--out", out, data=data)
        assert done.exit_code == 1
        assert message in done.stderr
        assert not out.exists()

    def test_a_model_without_scores_is_named(self, world: Path, tmp_path: Path) -> None:
        data = write_world(tmp_path / "one.jsonl", 200, tag="one", models=("weak", "other"))
        done = tune(world, *PAIR, "--max-loss", 0.05, data=data)
        assert done.exit_code == 1
        assert "models must be among those of the data (other, weak), got strong" in done.stderr

    def test_models_that_share_no_prompt_cannot_be_compared(self, world: Path, tmp_path: Path) -> None:
        rows = [{"prompt": f"{m} {i}", "model": m, "score": 1} for m in MODELS for i in range(100)]
        data = tmp_path / "apart.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        done = tune(world, *PAIR, "--max-loss", 0.05, data=data)
        assert "some prompts must have a score of every model, none has (prompts scored: weak 100" in done.stderr

    def test_too_few_prompts_are_an_error_and_a_few_more_a_plain_no(self, world: Path, tmp_path: Path) -> None:
        done = tune(world, *PAIR, "--max-loss", 0.02, data=write_world(tmp_path / "few.jsonl", 49, tag="few"))
        assert done.exit_code == 1
        assert "at least 50 different prompts that the probe was not fitted on must remain, got 49" in done.stderr
        found = answer_of(tune(world, *PAIR, "--max-loss", 0.02, data=write_world(tmp_path / "f.jsonl", 60, tag="f")))
        assert not found["certified"]
        assert 50 < found["more_labels"] < 400

    def test_incomplete_prompts_are_counted_and_left_out(self, world: Path, tmp_path: Path) -> None:
        data = write_world(tmp_path / "gaps.jsonl", 300, tag="gaps")
        with data.open("a") as file:
            file.writelines(json.dumps({"prompt": f"gap {i}", "model": "weak", "score": 1}) + "\n" for i in range(7))
        found = answer_of(tune(world, *PAIR, "--max-loss", 0.1, data=data))
        assert (found["n_calibration"], found["n_incomplete"]) == (300, 7)

    def test_the_order_of_the_file_does_not_matter(self, world: Path, tmp_path: Path) -> None:
        graded = [
            {"prompt": f"g {i}", "model": m, "score": round((i * 7 % 11) / 10 * (0.9 if m == "weak" else 1), 3)}
            for i in range(300)
            for m in MODELS
        ]
        answers = []
        for name, rows in (("a", graded), ("b", sorted(graded, key=lambda row: -row["score"]))):  # type: ignore[operator]
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            data = tmp_path / f"{name}.jsonl"
            answers.append(answer_of(tune(world, *PAIR, "--max-loss", 0.2, "--bound", "betting", data=data)))
        assert answers[0]["targets"] == answers[1]["targets"]
        assert answers[0]["targets"][0]["method"] == "betting"

    def test_a_probe_that_does_not_know_its_prompts_is_refused(self, world: Path) -> None:
        probe = replace(artifact.load(world / "probe"), fitted_on=np.empty(0, dtype=np.uint64))
        with pytest.raises(DataError, match="must know which prompts it was fitted on"):
            calibration_set(read_outcomes(world / "data.jsonl"), probe)


class TestGroupsAndPlans:
    def test_each_group_is_certified_from_its_own_prompts(self, world: Path) -> None:
        found = answer_of(tune(world, *PAIR, "--max-loss", 0.05, "--by-group"))
        assert found["groups"].keys() == {"g0", "g1"}
        assert sum(group["n"] for group in found["groups"].values()) == found["n_calibration"]
        for group in found["groups"].values():
            assert group["certified"]
            assert group["loss_upper_bound"] <= 0.05

    def test_the_plan_says_what_more_labels_would_buy(self, world: Path) -> None:
        plan = answer_of(tune(world, *PAIR, "--max-loss", 0.03, "--plan"))["plan"]
        sizes = [point["n"] for point in plan["curve"]]
        assert sizes == sorted(sizes)
        assert [point["projected"] for point in plan["curve"]] == [False] * 4 + [True] * 3
        labels = [step["labels"] for step in plan["steps"] if step["labels"] is not None]
        assert labels == sorted(labels)
        assert plan["steps"][-1]["labels"] is None
        shown = run("tune", world / "probe", world / "data.jsonl", *PAIR, "--max-loss", 0.03, "--plan").stdout
        assert "Labels that would certify" in shown


def _encoder_for(served: Any) -> FakeEncoder:
    return FakeEncoder(served.encoder_spec)

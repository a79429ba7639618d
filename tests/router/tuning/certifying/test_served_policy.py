"""A policy that `elle tune` wrote is served as it was certified, and an edit voids its certificate."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import yaml

from router.deciding.pipeline import Router
from router.errors import ConfigError
from router.policies.loading import load_policies, load_policy
from router.values import Overrides, RouteQuery
from tests.fakes import FakeEncoder
from tests.router.tuning.certifying.tune_verb import PAIR, answer_of, encoder_for, expire, run, tune


class TestServing:
    @pytest.fixture
    def policy(self, data_folder: Path, tmp_path: Path) -> Path:
        out = tmp_path / "tuned.yaml"
        done = tune(data_folder, *PAIR, "--max-loss", 0.03, "--profile", "economy=0.1", "--out", out)
        assert done.exit_code == 0, done.output
        return out

    def test_profiles_are_asked_for_by_policy_name(self, policy: Path) -> None:
        served = load_policies([policy])
        assert [p.ref.name for p in served] == ["tuned", "tuned:economy"]
        router = Router(served, {served[0].encoder_spec.identity: encoder_for(served[0])})
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

    def test_a_certificate_for_another_probe_is_refused(self, policy: Path, data_folder: Path, tmp_path: Path) -> None:
        assert (
            run("fit", data_folder / "data.jsonl", "--holdout", 0.3, "--out", tmp_path / "other", "--json").exit_code
            == 0
        )
        data = yaml.safe_load(policy.read_text())
        data["probe"] = "other"
        policy.write_text(yaml.safe_dump(data))
        with pytest.raises(
            ConfigError, match=r"the certificate must be for the policy's probe or score, \w+; it is for"
        ):
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

    def test_candidates_of_a_policy_file_are_kept_as_they_are(
        self, policy: Path, data_folder: Path, tmp_path: Path
    ) -> None:
        data = yaml.safe_load(policy.read_text())
        data["candidates"][0] |= {"model": "openai/tiny", "context_window_tokens": 4096, "api_key_env": "TINY_KEY"}
        del data["certificate"], data["profiles"]
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
        out = tmp_path / "new.yaml"
        found = answer_of(tune(data_folder, "--candidates", tmp_path / "mine.yaml", "--max-loss", 0.03, "--out", out))
        assert found["certified"]
        first = load_policy(out).rules.file.candidates[0]
        assert (first.model, first.context_window_tokens, first.api_key_env) == ("openai/tiny", 4096, "TINY_KEY")

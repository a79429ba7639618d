"""Policies are loaded with their probes and prices, and refused if policy, probe and encoder do not fit together."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from probes.artifacts import store as artifact
from probes.encoders.spec import MINILM_L6, MINILM_L6_WITHOUT_ASIDES, EncoderSpec
from probes.errors import EncoderMismatchError
from router.errors import ConfigError
from router.policies.loading import DEFAULT_POLICY, ServedPolicy, load_policies, load_policy, missing_keys
from tests.fakes import fake_probe, write_policy


def running(spec: EncoderSpec) -> Any:
    """Return an encoder that has nothing but a spec."""
    return SimpleNamespace(spec=spec)


#: The encoder of the default where our own library does not run.
ONNXRUNTIME = replace(MINILM_L6_WITHOUT_ASIDES, precision="int8-onnxruntime")


@pytest.fixture
def policy() -> ServedPolicy:
    return load_policy(DEFAULT_POLICY)


def certified(policy: ServedPolicy) -> ServedPolicy:
    rules = replace(policy.rules, file=policy.rules.file.model_copy(update={"certificate": object()}))
    return replace(policy, rules=rules)


def test_the_encoder_of_the_probe_is_accepted(policy: ServedPolicy) -> None:
    policy.check_encoder(running(MINILM_L6_WITHOUT_ASIDES))
    certified(policy).check_encoder(running(MINILM_L6_WITHOUT_ASIDES))


def test_an_encoder_in_another_runtime_is_accepted_with_a_warning(
    policy: ServedPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        policy.check_encoder(running(ONNXRUNTIME))
    assert "fitted in int8, and this machine computes int8-onnxruntime" in caplog.text


def test_under_a_certificate_an_encoder_in_another_runtime_is_refused(policy: ServedPolicy) -> None:
    with pytest.raises(EncoderMismatchError, match="must be served in int8, which its certificate is for"):
        certified(policy).check_encoder(running(ONNXRUNTIME))


@pytest.mark.parametrize(
    "other",
    [
        MINILM_L6,
        replace(MINILM_L6_WITHOUT_ASIDES, config_sha256="0" * 64),
        replace(MINILM_L6_WITHOUT_ASIDES, tensors_sha256="0" * 64),
        replace(ONNXRUNTIME, max_tokens=64),
        replace(MINILM_L6_WITHOUT_ASIDES, precision="float32"),
    ],
)
def test_an_encoder_that_differs_in_more_than_rounding_is_refused(policy: ServedPolicy, other: EncoderSpec) -> None:
    with pytest.raises(EncoderMismatchError, match="must come from the encoder this probe was fitted with"):
        policy.check_encoder(running(other))


def test_a_candidate_the_probe_does_not_know_is_refused(tmp_path: Path) -> None:
    path = write_policy(tmp_path, fake_probe(("small", "other")))
    with pytest.raises(ConfigError, match=r"must be a model of its probe .*large"):
        load_policy(path)


def test_two_policies_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write_policy(tmp_path)
    with pytest.raises(ConfigError, match="'test' is the name in 2 files"):
        load_policies([path, path])


def test_a_missing_probe_names_policy_and_probe(tmp_path: Path) -> None:
    path = write_policy(tmp_path, probe="elsewhere")
    with pytest.raises(ConfigError, match=r"test\.yaml.*'elsewhere' cannot be used"):
        load_policy(path)


def test_a_damaged_probe_is_refused(tmp_path: Path) -> None:
    path = write_policy(tmp_path)
    tensors = tmp_path / "probe" / artifact.TENSORS
    tensors.write_bytes(tensors.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="cannot be used"):
        load_policy(path)


def test_prices_can_come_from_litellms_own_table_without_importing_it(tmp_path: Path) -> None:
    candidates = [
        {"name": "small", "model": "openai/gpt-4o-mini", "prices": "litellm"},
        {"name": "large", "model": "gpt-4-turbo", "prices": "litellm"},
    ]
    small, large = load_policy(write_policy(tmp_path, candidates=candidates)).rules.prices
    assert small is not None
    assert large is not None
    assert 0 < small.input_usd_per_million_tokens < large.input_usd_per_million_tokens
    assert small.cached_input_usd_per_million_tokens is not None
    assert 0 < small.cached_input_usd_per_million_tokens < small.input_usd_per_million_tokens
    assert large.cached_input_usd_per_million_tokens is None


def test_a_model_without_a_list_price_says_what_to_write(tmp_path: Path) -> None:
    candidates = [{"name": n, "model": f"openai/no-such-{n}", "prices": "litellm"} for n in ("small", "large")]
    with pytest.raises(ConfigError, match="state input_usd_per_million_tokens"):
        load_policy(write_policy(tmp_path, candidates=candidates))


def test_only_names_of_unset_key_variables_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = [
        {"name": n, "model": f"openai/{n}", "api_key_env": f"TEST_KEY_{n.upper()}"} for n in ("small", "large")
    ]
    monkeypatch.setenv("TEST_KEY_SMALL", "secret")
    policy = load_policy(write_policy(tmp_path, candidates=candidates))
    assert missing_keys(policy) == ["TEST_KEY_LARGE"]
    assert "secret" not in policy.to_json()

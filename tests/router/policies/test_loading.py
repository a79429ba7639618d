"""What is cross-checked between a policy, its probe and the encoder that runs for it."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from probes.encoders.spec import MINILM_L6, MINILM_L6_ONNXRUNTIME, EncoderSpec
from probes.errors import EncoderMismatchError
from router.policies.loading import DEFAULT_POLICY, ServedPolicy, load_policy


def running(spec: EncoderSpec) -> Any:
    """An encoder as far as its spec."""
    return SimpleNamespace(spec=spec)


@pytest.fixture
def policy() -> ServedPolicy:
    return load_policy(DEFAULT_POLICY)


def certified(policy: ServedPolicy) -> ServedPolicy:
    rules = replace(policy.rules, file=policy.rules.file.model_copy(update={"certificate": object()}))
    return replace(policy, rules=rules)


def test_the_encoder_of_the_probe_runs_for_it(policy: ServedPolicy) -> None:
    policy.check_encoder(running(MINILM_L6))
    certified(policy).check_encoder(running(MINILM_L6))


def test_the_rounding_of_another_runtime_is_told(policy: ServedPolicy, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        policy.check_encoder(running(MINILM_L6_ONNXRUNTIME))
    assert "fitted in int8, and this machine computes int8-onnxruntime" in caplog.text


def test_under_a_certificate_it_is_refused(policy: ServedPolicy) -> None:
    with pytest.raises(EncoderMismatchError, match="must be served in int8, which its certificate is for"):
        certified(policy).check_encoder(running(MINILM_L6_ONNXRUNTIME))


@pytest.mark.parametrize(
    "other",
    [
        replace(MINILM_L6, config_sha256="0" * 64),
        replace(MINILM_L6, tensors_sha256="0" * 64),
        replace(MINILM_L6_ONNXRUNTIME, max_tokens=64),
        replace(MINILM_L6, precision="float32"),
    ],
)
def test_another_encoder_does_not_run_for_it(policy: ServedPolicy, other: EncoderSpec) -> None:
    with pytest.raises(EncoderMismatchError, match="must come from the encoder this probe was fitted with"):
        policy.check_encoder(running(other))

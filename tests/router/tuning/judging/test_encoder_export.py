"""Tests of `elle export-encoder`, and of the comparison of routing, which can pass and fail."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from probes.encoders.bundle import read_bundle
from probes.encoders.spec import MINILM_L6
from probes.errors import DataError
from router.cli.main import cli
from router.tuning.judging.encoder_parity import agreement, routing_parity
from router.tuning.outcomes.datasets import Outcomes


def make_outcomes(n: int = 600) -> tuple[Outcomes, np.ndarray]:
    """Outcomes whose gain follows the first feature, and the features."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, 12)).astype(np.float32)
    weak = (rng.random(n) < 1 / (1 + np.exp(2 * features[:, 0]))).astype(float)
    strong = (rng.random(n) < 0.85).astype(float)
    texts, unknown = tuple(f"prompt {i}" for i in range(n)), np.full((n, 2), np.nan)
    outcomes = Outcomes(
        texts=texts,
        ids=texts,
        groups=("",) * n,
        models=("weak", "strong"),
        scores=np.stack([weak, strong], axis=1),
        cost_usd=unknown,
        input_tokens=unknown,
        output_tokens=unknown,
        sources=(),
    )
    return outcomes, features


def test_features_that_differ_by_rounding_pass_and_decide_alike() -> None:
    outcomes, features = make_outcomes()
    rounded = features + np.random.default_rng(1).normal(size=features.shape).astype(np.float32) * 1e-3
    found = routing_parity(outcomes, rounded, features, weak="weak", strong="strong")
    assert found.passed
    assert found.agreement > 0.99
    assert found.to_dict()["passed"] is True


def test_features_that_lost_what_matters_fail() -> None:
    outcomes, features = make_outcomes()
    spoiled = features.copy()
    spoiled[:, 0] = 0.0
    found = routing_parity(outcomes, spoiled, features, weak="weak", strong="strong")
    assert not found.passed
    assert found.reference_ahead.low > 0
    assert found.agreement < 0.9


def test_a_pair_without_a_gap_is_refused_by_name() -> None:
    outcomes, features = make_outcomes()
    with pytest.raises(DataError, match="weak is better than strong"):
        routing_parity(outcomes, features, features, weak="strong", strong="weak")


def test_agreement_is_one_for_any_monotone_change_and_a_half_or_so_by_chance() -> None:
    gain = np.random.default_rng(0).normal(size=1000)
    assert agreement(gain, np.exp(gain)) == 1.0
    assert agreement(gain, np.random.default_rng(1).normal(size=1000)) < 0.75


@pytest.mark.usefixtures("_real_encoder")
def test_the_command_writes_a_bundle_and_says_how_close_it_is(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["export-encoder", "--out", str(tmp_path / "b"), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    bundle = read_bundle(tmp_path / "b")
    assert (found["identity"], found["digest"]) == (MINILM_L6.identity, bundle.weights.digest)
    assert found["reference"] == "torch"
    assert 0.999 < found["cosine_min"] < 1
    assert found["routing"] is None


def test_parity_without_naming_the_models_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    arguments = ["export-encoder", "--out", str(tmp_path / "b"), "--parity", "x.jsonl"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 1
    assert "--weak and --strong" in done.output
    assert not (tmp_path / "b").exists()


def test_there_is_nothing_to_export_of_the_reference(tmp_path: Path) -> None:
    arguments = ["export-encoder", "--out", str(tmp_path / "b"), "--encoder", "minilm-l6-float32"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 1
    assert "original files" in done.output
    assert not (tmp_path / "b").exists()

"""Provide small synthetic data for the tests of `probes`, and the real outcomes if this machine has them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from probes.calibration.choice import fit_calibrators
from probes.encoders.files import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE, find_encoder
from probes.encoders.spec import MINILM_L6
from probes.probe import DataSource, DifficultyProbe, ProbeCard, fingerprints
from probes.regression.crossfit import assign_folds, out_of_fold
from probes.regression.fit import fit_ridge

Data = tuple[np.ndarray, np.ndarray]


def _make_data(n: int = 300, n_features: int = 8, seed: int = 0) -> Data:
    """Return features (n, d) float32 and 0/1 losses (n, 2) that depend on them, the second's smaller."""
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(n, n_features)) + 2.0).astype(np.float32)
    logit = 1.5 * (X[:, :2] - 2.0) @ np.array([[1.0, 0.5], [0.3, 1.0]]) - np.array([0.5, 1.5])
    return X, (rng.random((n, 2)) < 1.0 / (1.0 + np.exp(-logit))).astype(float)


def _make_probe(kind: str = "beta", n_features: int = 8) -> DifficultyProbe:
    X, losses = _make_data(n_features=n_features)
    solution = fit_ridge(X, losses)
    held_out = out_of_fold(X, losses, assign_folds(range(len(X))), alpha=solution.alpha)
    return DifficultyProbe(
        encoder={"id": "made-up", "layers": [0, 3]},
        encoder_identity="ab" * 32,
        models=("small", "large"),
        linear=solution.probe,
        leverage=solution.leverage,
        leverage_limit=float(np.quantile(held_out.leverage, 0.99)),
        calibrators=fit_calibrators(kind, held_out.prediction, losses),
        card=ProbeCard(
            title="A made-up probe",
            created="2026-01-01T00:00:00+00:00",
            summary="For tests | only.",
            data=(DataSource("made up", "00" * 32, 300),),
            n_samples={"small": 300, "large": 300},
            metrics={"apgr": {"value": 0.6, "low": 0.5, "high": 0.7}},
            versions={"numpy": "2"},
        ),
        fitted_on=fingerprints(["one prompt", "another", "a third"]),
    )


@pytest.fixture
def make_data() -> Callable[..., Data]:
    return _make_data


@pytest.fixture
def make_probe() -> Callable[..., DifficultyProbe]:
    return _make_probe


@pytest.fixture
def copied_encoder(tmp_path: Path, _real_encoder: None) -> Path:
    """Return a folder with the encoder's files, of which the large one is a link."""
    source = find_encoder(MINILM_L6)
    for name in (TOKENIZER_FILE, CONFIG_FILE):
        shutil.copy(source / name, tmp_path / name)
    (tmp_path / WEIGHTS_FILE).symlink_to(source / WEIGHTS_FILE)
    return tmp_path

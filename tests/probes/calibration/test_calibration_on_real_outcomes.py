"""Calibration held out on real routing outcomes: every model within 0.03, where a score merely scaled is not.

Slow: the first run encodes 18,000 prompts with the real encoder, later ones read the feature cache.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from probes.calibration.choice import cross_calibrate
from probes.encoders.spec import MINILM_L6
from probes.errors import EncoderError
from probes.measures.prediction import ece
from probes.regression.crossfit import assign_folds, out_of_fold
from probes.regression.fit import fit_ridge
from router.tuning.outcomes.datasets import Outcomes, read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
LIMIT = 0.03

Held = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module", params=["routellm_mmlu", "mmlu_pro"])
def held_out(request: pytest.FixtureRequest) -> Held:
    """Return out-of-fold scores, losses (both (n, m), NaN where a model was not asked) and fold numbers."""
    path = DATA / f"{request.param}.parquet"
    if not path.exists():
        pytest.skip(f"real outcomes are not at {path}")
    outcomes: Outcomes = read_outcomes(path)
    try:
        features = FeatureCache().features(MINILM_L6, outcomes.texts)
    except EncoderError as error:
        pytest.skip(f"the real encoder is not on this machine: {error}")
    losses = 1.0 - outcomes.scores
    fold = assign_folds(outcomes.texts)
    return out_of_fold(features, losses, fold, alpha=fit_ridge(features, losses).alpha).prediction, losses, fold


def errors(predicted: np.ndarray, losses: np.ndarray) -> list[float]:
    """Return the expected calibration error of each model, not debiased: the stricter figure."""
    present = ~np.isnan(losses)
    return [
        ece(predicted[rows, j], losses[rows, j], debias=False)
        for j, rows in ((j, present[:, j]) for j in range(losses.shape[1]))
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["isotonic", "sigmoid", "beta", "venn_abers"])
def test_every_model_is_calibrated_on_prompts_that_no_part_of_its_map_has_seen(held_out: Held, kind: str) -> None:
    scores, losses, fold = held_out
    _, calibrated = cross_calibrate(kind, scores, losses, fold)
    assert max(errors(calibrated, losses)) <= LIMIT


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_scores_merely_scaled_to_the_unit_interval_fail_the_same_test(held_out: Held) -> None:
    scores, losses, _ = held_out
    scaled = (scores - scores.min(axis=0)) / np.ptp(scores, axis=0)
    assert max(errors(scaled, losses)) > LIMIT

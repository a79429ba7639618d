"""Count over 300 data files how often the policy that `elle tune` writes is worse than its target.

The data are synthetic, so the true loss of every threshold is known: the mean of (chance of strong - chance of
weak) over 100,000 prompts, where they go to the weak model, else 0. Calibration files are fresh draws of 500
prompts, tuned through the command itself. At confidence 0.95 violations are at most binomial(300, 0.05); the test
allows its 99.9 % quantile. The rule without a certificate (the largest threshold whose mean loss in the file is
within the target) must break it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from probes.artifacts import store as artifact
from router.cli.main import cli
from router.cli.output import NOT_CERTIFIED
from router.tuning.outcomes import feature_cache as features_module
from router.tuning.outcomes.datasets import read_outcomes
from tests.fakes import N_FEATURES, FakeEncoder
from tests.tuning_outcomes import MODELS, chances, features, write_outcomes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

DRAWS, SIZE, TARGET = 300, 500, 0.05
ALLOWED = int(stats.binom.ppf(0.999, DRAWS, 0.05))


def run(*arguments: object) -> tuple[int, dict[str, object]]:
    done = CliRunner().invoke(cli, [*map(str, arguments), "--json"])
    assert done.exit_code in (0, NOT_CERTIFIED), done.output
    return done.exit_code, json.loads(done.stdout)


def true_losses(gain: np.ndarray, drop: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    order = np.argsort(gain)
    total = np.concatenate([[0.0], np.cumsum(drop[order])])
    # The router sends a prompt to the weak model where gain <= threshold.
    return np.asarray(total[np.searchsorted(gain[order], thresholds, side="right")] / len(gain))


def test_tuned_policies_break_their_target_no_more_often_than_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "load_encoder", lambda spec, directory=None: FakeEncoder(spec))
    monkeypatch.setenv("ELLE_CACHE_DIR", str(tmp_path / "cache"))
    run("fit", write_outcomes(tmp_path / "fit.jsonl", 1500, tag="fit"), "--out", tmp_path / "probe")
    probe = artifact.load(tmp_path / "probe")
    columns = [probe.models.index(model) for model in MODELS]

    def gains(x: np.ndarray) -> np.ndarray:
        risk = probe.predict(x).risk[:, columns]
        return np.asarray(risk[:, 0] - risk[:, 1])

    crowd = np.random.default_rng(0).standard_normal((100_000, N_FEATURES)).astype(np.float32)
    gain, chance = gains(crowd), chances(crowd)
    drop = chance[:, 1] - chance[:, 0]
    grid = np.arange(-1000, 1001) / 1000
    truth = true_losses(gain, drop, grid)
    wrong, naive_wrong, shares = 0, 0, []
    for seed in range(DRAWS):
        data = write_outcomes(tmp_path / "draw.jsonl", SIZE, tag=f"draw {seed}", seed=seed + 1)
        monkeypatch.setenv("ELLE_CACHE_DIR", str(tmp_path / f"cache{seed}"))
        status, found = run(
            "tune", tmp_path / "probe", data, "--weak", "weak", "--strong", "strong", "--max-loss", TARGET
        )
        if status == 0:
            wrong += bool(np.interp(float(str(found["threshold"])), grid, truth) > TARGET)
            shares.append(float(str(found["weak_share"])))
        outcomes = read_outcomes(data).select_models(MODELS)
        losses = outcomes.scores[:, 1] - outcomes.scores[:, 0]
        here = true_losses(gains(features(outcomes.texts)), losses, grid)
        naive_wrong += bool(truth[np.flatnonzero(here <= TARGET)[-1]] > TARGET)
    assert wrong <= ALLOWED
    assert naive_wrong > ALLOWED
    assert len(shares) > 0.9 * DRAWS
    assert np.mean(shares) > 0.3

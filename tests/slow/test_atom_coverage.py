"""The promise of `elle tune` on traffic with a frequent prompt: 300 calibration sets of 500 draws with known truth.

30 % of the draws are one prompt that the weak model fails and that looks easy to the probe. Violations are at most
binomial(300, 0.05); the test allows its 99.9 % quantile. The same draws with each text once, as they were certified
until equal texts stopped being merged, must break it.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from probes.probe import DifficultyProbe
from router.tuning.certifying.calibration_set import calibration_set
from router.tuning.certifying.preparation import prepare_tuning
from router.tuning.certifying.settings import TuneSettings
from router.tuning.certifying.targets import Target
from router.tuning.certifying.tune import tune_policy
from router.tuning.fitting.fit import fit_probe
from router.tuning.outcomes.datasets import Outcomes
from tests.fakes import FakeEncoder
from tests.tuning_outcomes import MODELS, features, traffic, true_loss

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

DRAWS, SIZE, TARGET = 300, 500, 0.05
ALLOWED = int(stats.binom.ppf(0.999, DRAWS, 0.05))


def breaks_its_target(probe: DifficultyProbe, outcomes: Outcomes) -> bool:
    settings = TuneSettings((Target("max_loss", TARGET),), models=MODELS)
    inputs = prepare_tuning(probe, calibration_set(outcomes, probe), settings)
    known = features(inputs.calibration.outcomes.texts)
    _, file = tune_policy(inputs, known, settings, name="tuned", probe_place="probe")
    return file is not None and true_loss(file.rule, probe) > TARGET  # type: ignore[arg-type]


def test_a_frequent_prompt_is_certified_away_no_more_often_than_promised() -> None:
    seen = traffic(800, seed=0, frequent=0.0, tag="fit")
    probe = fit_probe(seen, features(seen.texts), FakeEncoder().spec, title="traffic").probe
    assert sum(breaks_its_target(probe, traffic(SIZE, seed=seed)) for seed in range(DRAWS)) <= ALLOWED
    wrong = 0
    for seed in range(ALLOWED + 1):
        outcomes = traffic(SIZE, seed=seed)
        wrong += breaks_its_target(probe, outcomes.take(np.sort(np.unique(outcomes.texts, return_index=True)[1])))
    assert wrong > 0.9 * ALLOWED

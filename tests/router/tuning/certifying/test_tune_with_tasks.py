"""`elle tune` on a probe with tasks: it judges as the service does that is told the task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from probes.tasks.offsets import TaskOffsets
from router.policies.loading import assemble
from router.tuning.certifying.calibration_set import whole_calibration_set
from router.tuning.certifying.preparation import prepare_tuning
from router.tuning.certifying.settings import TuneSettings
from router.tuning.certifying.targets import Target
from router.tuning.certifying.tune import tune_policy
from tests.fakes import fake_probe
from tests.tuning_outcomes import MODELS, features, traffic


def test_calibration_prompts_are_judged_with_their_tasks(tmp_path: Path) -> None:
    none = np.zeros((0, 2), np.int64)
    tasks = TaskOffsets((), 25 * np.eye(2), np.ones(2), none, none)
    tasks = tasks.add("easy", np.tile([-9.0, 0.0], (20, 1)))  # the weak model answers all of this task
    probe = replace(fake_probe(MODELS), tasks=tasks)
    data = replace(traffic(400, seed=1, frequent=0.0), tasks=("easy", "") * 200)
    settings = TuneSettings((Target("max_strong_share", 0.9),), models=MODELS)
    inputs = prepare_tuning(probe, whole_calibration_set(data, probe, None), settings, None)
    own = inputs.calibration.outcomes
    result, policy = tune_policy(inputs, features(own.texts), settings, name="test", probe_place="probe")
    assert policy is not None
    served = assemble(policy, probe)
    judged = served.judge_all(probe.predict(features(own.texts), own.tasks))
    for text, task, judgement in zip(own.texts, own.tasks, judged, strict=True):
        assert served.judge(features([text])[0], task).raw == judgement.raw
        assert (task == "easy") <= (judgement.raw[0] < -1)
    assert result.main.certified

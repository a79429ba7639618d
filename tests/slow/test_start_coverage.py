"""The promise of `elle start` on fresh prompts of the same upstreams: 200 logs that certify, with known truth.

One run of `elle start --offline` fits the probe. Then 200 logs are drawn from a pool of prompts, answered as the
simulated models of the built-in upstream answer, and each certifies a policy as `elle start` does. The truth is the
mean loss over the whole pool. At most 5 % of the policies may lose more than their certificate says.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from probes.artifacts import store as artifact
from router.answering.canned import is_right
from router.asking.ask import extract
from router.cli.main import cli
from router.policies.loading import assemble, load_policy
from router.tuning.certifying.calibration_set import CalibrationSet
from router.tuning.certifying.preparation import prepare_tuning
from router.tuning.certifying.settings import TuneSettings
from router.tuning.certifying.targets import Target
from router.tuning.certifying.tune import tune_policy
from router.tuning.judging.policy_figures import decide_all
from router.tuning.outcomes.candidates import candidates_of_policy
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache
from router.tuning.outcomes.records import MAX_PROMPT_BYTES
from router.values import RouteQuery

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.usefixtures("_real_encoder")]

DRAWS, SIZE, POOL, TARGET = 200, 400, 3000, 0.05

#: Of each pair of kinds the second one is hard for the simulated weak model.
KINDS = (
    "Say hello to my friend number {} in a kind way.",
    "Prove the theorem of chapter {} about finite graphs.",
    "Suggest a name for cat number {}.",
    "Write a Python function that sorts list {} and explain the algorithm.",
    "What should I cook on day {} of my holiday?",
    "Derive the integral number {} of the exam.",
)


def prompt(number: int) -> str:
    return KINDS[number % len(KINDS)].format(number)


def test_certificates_hold_on_fresh_prompts_in_at_least_95_of_100_logs(tmp_path: Path) -> None:
    first = tmp_path / "first"
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"prompt": prompt(POOL + number)}) + "\n" for number in range(600)))
    arguments = ["start", str(log), "--strong", "big", "--weak", "small", "--out", str(first), "--offline", "--yes"]
    assert CliRunner().invoke(cli, [*arguments, "--max-loss", str(TARGET)]).exit_code == 0

    probe = artifact.load(first / "probe")
    texts = tuple(prompt(number) for number in range(POOL))
    asks = tuple(extract(RouteQuery.from_prompt(text), max_bytes=MAX_PROMPT_BYTES) for text in texts)
    one = read_outcomes(first / "outcomes.jsonl").select_models(("small", "big"))
    scores = np.array([[float(is_right(f"simulated-{role}", text)) for role in ("weak", "strong")] for text in texts])
    unknown = np.full(scores.shape, np.nan)
    pool = replace(
        one, texts=texts, asks=asks, ids=texts, groups=("",) * POOL, scores=scores, cost_usd=unknown,
        input_tokens=unknown, output_tokens=unknown, times=np.empty(0),
    )  # fmt: skip
    settings = TuneSettings((Target("max_loss", TARGET),), reference="big")
    candidates = candidates_of_policy(first / "candidates.yaml")
    rng = np.random.default_rng(0)
    losses = []
    spec = load_policy(first / "policy.yaml").encoder_spec
    assert spec is not None
    features = FeatureCache().features(spec, texts)
    prediction = probe.predict(features)
    for _ in range(DRAWS):
        rows = rng.integers(0, POOL, SIZE)
        drawn = CalibrationSet(pool.take(rows), pool.take(rows[:0]), 0, 0, 0, 0, 0, 0.0)
        inputs = prepare_tuning(probe, drawn, settings, candidates)
        _, policy = tune_policy(inputs, features[rows], settings, name="policy", probe_place="probe")
        if policy is None:
            continue
        served = assemble(policy, probe)
        chosen = decide_all(served, asks, served.judge_all(prediction)).chosen
        losses.append(float((scores[:, 1] - scores[np.arange(POOL), chosen]).mean()))
    broken = sum(loss > TARGET for loss in losses)
    print(
        f"{len(losses)} of {DRAWS} certified, {broken} broken, mean loss {np.mean(losses):.4f}, most {max(losses):.4f}"
    )
    assert len(losses) > DRAWS / 2, "with too few certificates the test says nothing"
    assert max(losses) > 0.8 * TARGET, "the policies use what the target allows, so that they could break it"
    assert broken <= 0.05 * DRAWS

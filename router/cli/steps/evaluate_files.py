"""The steps of `elle evaluate`: read a probe or a policy and outcomes, and measure the one on the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from probes.shards.work import Engine
from router.policies.loading import load_policy
from router.tuning.judging.policy_evaluation import (
    PolicyEvaluation,
    PolicyEvaluationOptions,
    candidate_outcomes,
    evaluate_policy,
)
from router.tuning.judging.probe_evaluation import Evaluation, EvaluationOptions, evaluate
from router.tuning.outcomes.datasets import Outcomes, read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache, Progress
from router.tuning.outcomes.holdout_by_time import latest_prompts, parse_latest
from router.tuning.outcomes.pair_data import PairFiles, load_pair


def evaluate_probe_files(files: PairFiles, options: EvaluationOptions, on_progress: Progress | None) -> Evaluation:
    """Evaluate a saved probe on the outcomes of two models.

    Raises ArtifactError, ConfigError, DataError or EncoderError.
    """
    pair = load_pair(files, on_progress)
    found = evaluate(pair.probe, pair.outcomes, pair.features, options)
    return replace(found, n_estimated_costs=pair.n_estimated_costs)


@dataclass(frozen=True)
class PolicyFiles:
    """Names a policy file and the files of outcomes that it is evaluated on.

    Attributes:
        policy: the policy file. data: files of outcomes.
        holdout: evaluates only the latest prompts, as `latest:20%`; None evaluates all.
        time_column: column of the data that says when a prompt was asked; None takes one with a usual name.
        encoder_dir: folder of the encoder's files; None looks for them.
        engine: what encodes the prompts, in shards; None encodes them in this process.
    """

    policy: Path
    data: Sequence[Path]
    holdout: str | None = None
    time_column: str | None = None
    encoder_dir: Path | None = None
    engine: Engine | None = None


def evaluate_policy_files(
    files: PolicyFiles, options: PolicyEvaluationOptions, on_progress: Progress | None
) -> PolicyEvaluation:
    """Evaluate a policy and its profiles on outcomes.

    Raises ArtifactError, ConfigError, DataError or EncoderError.
    """
    # Before anything is read, so that a wrong option is reported at once.
    share = None if files.holdout is None else parse_latest(files.holdout)
    served = load_policy(files.policy)
    score = served.rules.file.score
    outcomes = read_outcomes(*files.data, time_column=files.time_column, score_column=score.name if score else None)
    period = None
    if share is not None:
        outcomes, period = _latest(outcomes, share)
    outcomes = candidate_outcomes(outcomes, served.rules.file.candidates)
    features = None
    if served.encoder_spec is not None:
        features = FeatureCache(engine=files.engine).features(
            served.encoder_spec, outcomes.texts, encoder_dir=files.encoder_dir, on_progress=on_progress
        )
    return replace(evaluate_policy(served, outcomes, features, options), period=period)


def _latest(outcomes: Outcomes, share: float) -> tuple[Outcomes, str]:
    """Return the latest share of the prompts, and their period in words."""
    latest = latest_prompts(outcomes, share)
    period = (
        f"the latest {share:.0%} of the prompts, {latest.since:%Y-%m-%d %H:%M} to {latest.until:%Y-%m-%d %H:%M} UTC"
    )
    if latest.n_without_time:
        period += f"; {latest.n_without_time:,} prompts without a time are left out"
    return outcomes.take(latest.rows.nonzero()[0]), period

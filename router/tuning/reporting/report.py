"""`elle report`: one self-contained page, and its pictures as files, of what a probe does on data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.artifacts import store as artifact
from probes.probe import DifficultyProbe
from router.policies.certificate import check_certificate
from router.policies.loading import ServedPolicy, assemble
from router.policies.policy_file import read_policy_file
from router.tuning.judging.baselines import Baseline, all_baselines, quick_baselines
from router.tuning.judging.cross_validation import Split
from router.tuning.judging.evaluate import PROBE, judge, summarise
from router.tuning.judging.learning_curve import learning_points
from router.tuning.judging.mistakes import find_mistakes
from router.tuning.judging.pair_data import load_pair
from router.tuning.judging.policy_evaluation import PolicyEvaluation, candidate_outcomes, evaluate_policy
from router.tuning.outcomes.datasets import Outcomes, read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache, Progress, encoder_spec
from router.tuning.reporting import charts
from router.tuning.reporting.page import render_page
from router.tuning.reporting.policy_mark import PolicyMark, read_policy_mark, step_threshold

PAGE = "report.html"


def report_command(
    probe_dir: Path,
    data: Sequence[Path],
    out: Path,
    *,
    weak: str,
    strong: str,
    policy_file: Path | None,
    prices: str | None,
    encoder_dir: Path | None,
    folds: int | None,
    split: Split,
    quick: bool,
    resamples: int,
    seed: int,
    on_progress: Progress | None,
) -> Path:
    """What `elle report` does: writes the page and its pictures to `out` and returns the page's path.

    Raises ArtifactError, ConfigError, DataError or EncoderError before anything is written.
    """
    # Before anything is encoded: what is wrong with the policy is said at once.
    served = None if policy_file is None else _served(policy_file, artifact.load(probe_dir))
    marked = None
    if served is not None and policy_file is not None and step_threshold(served.rules.file, weak, strong) is not None:
        marked = read_policy_mark(policy_file, artifact.load(probe_dir), weak, strong)
    where: dict[str, Any] = {"encoder_dir": encoder_dir, "on_progress": on_progress}
    pair = load_pair(probe_dir, data, weak=weak, strong=strong, prices=prices, **where)
    policy = None
    if served is not None:
        # Of all the prompts, whoever answered them: the policy may have other candidates than the two models.
        whole = candidate_outcomes(read_outcomes(*data), served.rules.file.candidates)
        features = FeatureCache().features(encoder_spec(pair.probe), whole.texts, **where)
        policy = evaluate_policy(served, whole, features, weak=weak, strong=strong, resamples=resamples, seed=seed)
    baselines = quick_baselines() if quick else all_baselines()
    page, pictures = build_report(
        pair.probe,
        pair.outcomes,
        pair.features,
        marked=marked,
        policy=policy,
        folds=folds,
        split=split,
        baselines=baselines,
        resamples=resamples,
        seed=seed,
    )
    out.mkdir(parents=True, exist_ok=True)
    for name, png in pictures.items():
        (out / f"{name}.png").write_bytes(png)
    (out / PAGE).write_text(page, "utf-8")
    return out / PAGE


def build_report(
    probe: DifficultyProbe,
    outcomes: Outcomes,
    features: npt.NDArray[np.float32],
    *,
    marked: PolicyMark | None = None,
    policy: PolicyEvaluation | None = None,
    folds: int | None = None,
    split: Split = "random",
    baselines: Sequence[Baseline] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[str, dict[str, bytes]]:
    """The page, and its pictures as PNG by name.

    policy: what the page opens with. marked: its step, for the chart of thresholds. Else as `evaluate`.
    """
    baselines = quick_baselines() if baselines is None else baselines
    judged = judge(probe, outcomes, features, folds=folds, split=split, baselines=baselines, seed=seed)
    found = summarise(judged, probe, features, folds=folds, split=split, resamples=resamples, seed=seed)
    gain = judged.judgements[PROBE].gain
    # Without a policy: where four fifths of the gap are recovered.
    usual = float(np.quantile(gain, 1.0 - (found.probe.value("cpt80") or 0.5)))
    threshold = usual if marked is None else marked.threshold
    truth = judged.truth
    pictures = {
        "cost-quality": charts.cost_quality_chart(judged.judgements, truth, outcomes.models, highlight=PROBE),
        "reliability": charts.reliability_chart(judged.risk, outcomes.scores, outcomes.models),
        "threshold": charts.threshold_chart(charts.threshold_curve(gain, truth), marked),
        **{f"slices-{by}": charts.slices_chart(slices) for by, slices in found.slices.items() if slices},
        "learning": charts.learning_chart(learning_points(outcomes, features, seed=seed)),
    }
    return render_page(found, probe, pictures, find_mistakes(judged, threshold), marked, policy), pictures


def _served(policy_file: Path, probe: DifficultyProbe) -> ServedPolicy:
    """The policy of a file on the probe of the report, its certificates and those of its profiles checked."""
    served = assemble(read_policy_file(policy_file), probe)
    for one in (served, *served.profiles()):
        check_certificate(one.rules, probe.identity, f"policy {policy_file}")
    return served

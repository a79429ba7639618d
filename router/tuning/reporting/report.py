"""Write the report on a probe, and on a policy if one is given: one self-contained page, and its pictures as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from probes.artifacts import store as artifact
from probes.probe import DifficultyProbe
from router.policies.certificate import check_certificate
from router.policies.loading import ServedPolicy, assemble
from router.policies.policy_file import read_policy_file
from router.tuning.judging.learning_curve import learning_points
from router.tuning.judging.policy_evaluation import (
    PolicyEvaluation,
    PolicyEvaluationOptions,
    candidate_outcomes,
    evaluate_policy,
)
from router.tuning.judging.probe_evaluation import PROBE, EvaluationOptions, measure_routers, score_routers
from router.tuning.outcomes.datasets import Outcomes, read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache, Progress, encoder_spec
from router.tuning.outcomes.pair_data import PairFiles, load_pair
from router.tuning.reporting import charts
from router.tuning.reporting.html_page import render_page
from router.tuning.reporting.mistakes import find_mistakes
from router.tuning.reporting.threshold_marker import ThresholdMarker, read_threshold_marker, step_threshold

PAGE = "report.html"


def write_report(
    files: PairFiles,
    out: Path,
    options: EvaluationOptions,
    policy_file: Path | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Write the page and its pictures to the folder `out`, and return the path of the page.

    Raises ArtifactError, ConfigError, DataError or EncoderError before anything is written.
    """
    # The policy is read before anything is encoded, so that its faults are reported at once.
    served = None if policy_file is None else _served(policy_file, artifact.load(files.probe))
    marker = None
    if (
        policy_file is not None
        and served is not None
        and step_threshold(served.rules.file, files.weak, files.strong) is not None
    ):
        marker = read_threshold_marker(policy_file, artifact.load(files.probe), files.weak, files.strong)
    pair = load_pair(files, on_progress)
    policy = None if served is None else _evaluate_policy(served, pair.probe, files, options, on_progress)
    page, pictures = build_report(pair.probe, pair.outcomes, pair.features, options, marker=marker, policy=policy)
    out.mkdir(parents=True, exist_ok=True)
    for name, png in pictures.items():
        (out / f"{name}.png").write_bytes(png)
    (out / PAGE).write_text(page, "utf-8")
    return out / PAGE


def _evaluate_policy(
    served: ServedPolicy,
    probe: DifficultyProbe,
    files: PairFiles,
    options: EvaluationOptions,
    on_progress: Progress | None,
) -> PolicyEvaluation:
    # On all prompts, and not only on those that the two models answered: the policy may have other candidates.
    outcomes = candidate_outcomes(read_outcomes(*files.data), served.rules.file.candidates)
    features = FeatureCache().features(
        encoder_spec(probe), outcomes.texts, encoder_dir=files.encoder_dir, on_progress=on_progress
    )
    compared = PolicyEvaluationOptions(files.weak, files.strong, options.resamples, options.seed)
    return evaluate_policy(served, outcomes, features, compared)


def build_report(
    probe: DifficultyProbe,
    outcomes: Outcomes,
    features: npt.NDArray[np.float32],
    options: EvaluationOptions,
    *,
    marker: ThresholdMarker | None = None,
    policy: PolicyEvaluation | None = None,
) -> tuple[str, dict[str, bytes]]:
    """Return the page as HTML, and its pictures as PNG by name.

    probe, outcomes, features, options: as for `evaluate`. policy: the evaluation that the page begins with.
    marker: its threshold, for the chart of thresholds.
    """
    scored = score_routers(probe, outcomes, features, options)
    found = measure_routers(scored, probe, features, options)
    gain = scored.routers[PROBE].gain
    # Without a policy, mistakes are shown at the threshold that recovers four fifths of the gap.
    usual = float(np.quantile(gain, 1.0 - (found.probe.value("cpt80") or 0.5)))
    threshold = usual if marker is None else marker.threshold
    truth = scored.truth
    # Bands of charts need fewer draws than the intervals of figures, which are printed with three digits.
    learning = learning_points(outcomes, features, resamples=min(options.resamples, 500), seed=options.seed)
    pictures = {
        "cost-quality": charts.cost_quality_chart(scored.routers, truth, outcomes.models, highlight=PROBE),
        "reliability": charts.reliability_chart(scored.risk, outcomes.scores, outcomes.models),
        "threshold": charts.threshold_chart(charts.threshold_curve(gain, truth), marker),
        **{f"slices-{by}": charts.slices_chart(slices) for by, slices in found.slices.items() if slices},
        "learning": charts.learning_chart(learning),
    }
    return render_page(found, probe, pictures, find_mistakes(scored, threshold), marker, policy), pictures


def _served(policy_file: Path, probe: DifficultyProbe) -> ServedPolicy:
    """Return the policy of a file on the probe of the report, after a check of all its certificates."""
    served = assemble(read_policy_file(policy_file), probe)
    for one in (served, *served.profiles()):
        check_certificate(one.rules, probe.identity, f"policy {policy_file}")
    return served

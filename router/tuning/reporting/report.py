"""`elle report`: one self-contained page, and its pictures as files, of what a probe does on data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from probes.artifacts import store as artifact
from probes.probe import DifficultyProbe
from router.tuning.judging.baselines import Baseline, all_baselines, quick_baselines
from router.tuning.judging.cross_validation import Split
from router.tuning.judging.evaluate import PROBE, judge, summarise
from router.tuning.judging.learning_curve import learning_points
from router.tuning.judging.mistakes import find_mistakes
from router.tuning.judging.pair_data import load_pair
from router.tuning.outcomes.datasets import Outcomes
from router.tuning.outcomes.feature_cache import Progress
from router.tuning.reporting import charts
from router.tuning.reporting.page import render_page
from router.tuning.reporting.policy_mark import PolicyMark, read_policy_mark

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
    marked = None if policy_file is None else read_policy_mark(policy_file, artifact.load(probe_dir), weak, strong)
    pair = load_pair(
        probe_dir, data, weak=weak, strong=strong, prices=prices, encoder_dir=encoder_dir, on_progress=on_progress
    )
    baselines = quick_baselines() if quick else all_baselines()
    page, pictures = build_report(
        pair.probe,
        pair.outcomes,
        pair.features,
        marked=marked,
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
    folds: int | None = None,
    split: Split = "random",
    baselines: Sequence[Baseline] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[str, dict[str, bytes]]:
    """The page, and its pictures as PNG by name. `marked`: a policy to show. Else as `evaluate`."""
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
    return render_page(found, probe, pictures, find_mistakes(judged, threshold), marked), pictures

"""`elle report`: one self-contained page, and its pictures as files, of what a probe does on data."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from probes.probe import DifficultyProbe
from router.config import GainRule, read_policy_file
from router.errors import ConfigError
from router.tuning import charts
from router.tuning.baselines import Baseline, all_baselines, quick_baselines
from router.tuning.crossval import Split
from router.tuning.datasets import Outcomes
from router.tuning.evaluate import PROBE, judge, load_pair, summarise
from router.tuning.features import Progress
from router.tuning.learning import learning_points
from router.tuning.mistakes import find_mistakes
from router.tuning.page import render_page

PAGE = "report.html"


def report_command(
    probe_dir: Path,
    data: Sequence[Path],
    out: Path,
    *,
    weak: str,
    strong: str,
    policy_file: Path | None,
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
    marked = None if policy_file is None else policy_threshold(policy_file, weak, strong)
    probe, outcomes, features = load_pair(
        probe_dir, data, weak=weak, strong=strong, encoder_dir=encoder_dir, on_progress=on_progress
    )
    baselines = quick_baselines() if quick else all_baselines()
    page, pictures = build_report(
        probe,
        outcomes,
        features,
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


def policy_threshold(path: Path, weak: str, strong: str) -> float:
    """The price of the step from `weak` to `strong` (names as in the probe) in a policy file.

    Raises ConfigError unless the policy has a gain rule with the two as neighbouring tiers.
    """
    policy = read_policy_file(path)
    names = [candidate.name_in_probe for candidate in policy.candidates]
    if isinstance(policy.rule, GainRule):
        for price, pair in zip(policy.rule.thresholds, pairwise(names), strict=True):
            if pair == (weak, strong):
                return price
    raise ConfigError(
        f"policy {path} must have a gain rule with {weak} and {strong} as neighbouring tiers, cheapest first; got "
        f"{policy.rule.kind} over {', '.join(names)}."
    )


def build_report(
    probe: DifficultyProbe,
    outcomes: Outcomes,
    features: npt.NDArray[np.float32],
    *,
    marked: float | None = None,
    folds: int | None = None,
    split: Split = "random",
    baselines: Sequence[Baseline] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[str, dict[str, bytes]]:
    """The page, and its pictures as PNG by name. `marked`: a policy's threshold, to show. Else as `evaluate`."""
    baselines = quick_baselines() if baselines is None else baselines
    judged = judge(probe, outcomes, features, folds=folds, split=split, baselines=baselines, seed=seed)
    found = summarise(judged, probe, features, folds=folds, split=split, resamples=resamples, seed=seed)
    gain = judged.judgements[PROBE].gain
    # Without a policy: where four fifths of the gap are recovered.
    usual = float(np.quantile(gain, 1.0 - (found.probe.value("cpt80") or 0.5)))
    threshold = usual if marked is None else marked
    truth = judged.truth
    pictures = {
        "cost-quality": charts.cost_quality_chart(judged.judgements, truth, outcomes.models, highlight=PROBE),
        "reliability": charts.reliability_chart(judged.risk, outcomes.scores, outcomes.models),
        "threshold": charts.threshold_chart(charts.threshold_curve(gain, truth), marked),
        **{f"slices-{by}": charts.slices_chart(slices) for by, slices in found.slices.items() if slices},
        "learning": charts.learning_chart(learning_points(outcomes, features, seed=seed)),
    }
    return render_page(found, probe, pictures, find_mistakes(judged, threshold), marked), pictures

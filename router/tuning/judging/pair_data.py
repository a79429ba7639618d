"""What `elle evaluate` and `elle report` judge: a probe, and the prompts that two models answered, with features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from probes.artifacts import store as artifact
from probes.errors import DataError
from probes.probe import DifficultyProbe
from router.tuning.outcomes.candidates import priced
from router.tuning.outcomes.datasets import Outcomes, read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache, Progress, encoder_spec


@dataclass(frozen=True)
class Pair:
    """A probe and what two models did, weak and strong, on n prompts with features (n, d).

    n_estimated_costs: answers whose cost rests on an estimated number of tokens.
    """

    probe: DifficultyProbe
    outcomes: Outcomes
    features: npt.NDArray[np.float32]
    n_estimated_costs: int


def load_pair(
    probe_dir: Path,
    data: Sequence[Path],
    *,
    weak: str,
    strong: str,
    prices: str | None,
    encoder_dir: Path | None,
    on_progress: Progress | None,
) -> Pair:
    """The probe, the prompts that both models answered, with costs at `prices` (as `priced`), and their features."""
    probe = artifact.load(probe_dir)
    for model in (weak, strong):
        if model not in probe.models:
            raise DataError(f"models must be among the probe's ({', '.join(probe.models)}), got {model!r}.")
    outcomes = read_outcomes(*data).select_models((weak, strong)).complete_rows()
    if not len(outcomes):
        raise DataError(f"the data must hold prompts that both {weak} and {strong} answered, got none.")
    estimated = 0
    if prices is not None:
        outcomes, estimated = priced(outcomes, prices)
    spec = encoder_spec(probe)
    features = FeatureCache().features(spec, outcomes.texts, encoder_dir=encoder_dir, on_progress=on_progress)
    return Pair(probe, outcomes, features, estimated)

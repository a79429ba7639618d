"""Load a probe and the prompts that two models answered, with features and costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from probes.artifacts import store as artifact
from probes.errors import DataError
from probes.probe import DifficultyProbe
from probes.shards.work import Engine
from router.quoting import did_you_mean
from router.tuning.outcomes.candidates import priced
from router.tuning.outcomes.datasets import Outcomes, read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache, Progress, encoder_spec


@dataclass(frozen=True)
class PairFiles:
    """Names a saved probe and files of outcomes, for one pair of models.

    Attributes:
        probe: folder of the probe. data: files of outcomes.
        weak, strong: names of the two models, as in the probe.
        prices: path of a price file, or `litellm`, for costs that the data do not have; None leaves these unknown.
        encoder_dir: folder of the encoder's files; None looks for them.
        engine: what encodes the prompts, in shards; None encodes them in this process.
    """

    probe: Path
    data: Sequence[Path]
    weak: str
    strong: str
    prices: str | None = None
    encoder_dir: Path | None = None
    engine: Engine | None = None


@dataclass(frozen=True)
class PairData:
    """Holds a probe and the n prompts that two models answered.

    Attributes:
        outcomes: of exactly these models, weak and strong in this order; every score is known.
        features: (n, d) of the prompts.
        n_estimated_costs: answers whose cost rests on an estimated number of tokens.
    """

    probe: DifficultyProbe
    outcomes: Outcomes
    features: npt.NDArray[np.float32]
    n_estimated_costs: int


def load_pair(files: PairFiles, on_progress: Progress | None) -> PairData:
    """Load the probe and the prompts that both models answered, with their costs and features.

    `on_progress` is called with (texts encoded, texts to encode). Raises ArtifactError, ConfigError, DataError or
    EncoderError.
    """
    probe = artifact.load(files.probe)
    weak, strong = files.weak, files.strong
    for model in (weak, strong):
        if model not in probe.models:
            hint = did_you_mean(model, probe.models)
            raise DataError(f"models must be among the probe's ({', '.join(probe.models)}), got {model!r}.{hint}")
    outcomes = read_outcomes(*files.data).select_models((weak, strong)).complete_rows()
    if not len(outcomes):
        raise DataError(f"the data must hold prompts that both {weak} and {strong} answered, got none.")
    estimated = 0
    if files.prices is not None:
        outcomes, estimated = priced(outcomes, files.prices)
    features = FeatureCache(engine=files.engine).features(
        encoder_spec(probe), outcomes.texts, encoder_dir=files.encoder_dir, on_progress=on_progress
    )
    return PairData(probe, outcomes, features, estimated)

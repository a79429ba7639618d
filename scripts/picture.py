"""Draw docs/cost-quality.png: quality against cost of routing MMLU's prompts between a cheap and an expensive model.

Run it with `make picture`. It needs ../shared/data, and minutes if the prompts are not encoded yet. Every router is
judged on prompts that it was not fitted on (five folds, equal texts in one fold).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from probes.encoders.spec import MINILM_L6
from probes.grouping import group_numbers
from router.tuning.judging.baselines import LiteLLM, NearestNeighbours, Random
from router.tuning.judging.cross_validation import probe_risk, score_baselines, split_folds
from router.tuning.judging.ranking import RouterScores, Truth
from router.tuning.outcomes.candidates import priced
from router.tuning.outcomes.datasets import Outcomes, read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache
from router.tuning.reporting.charts import cost_quality_chart

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "routellm_mmlu.parquet"
PRICES = ROOT / "examples" / "prices.yaml"
PICTURE = ROOT / "docs" / "cost-quality.png"
MODELS = ("Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview")
FOLDS = 5


def main() -> None:
    """Read the outcomes, encode their prompts, and write the picture."""
    outcomes = read_outcomes(DATA).select_models(MODELS).complete_rows()
    outcomes, _ = priced(outcomes, str(PRICES))
    PICTURE.write_bytes(chart(outcomes, FeatureCache().features(MINILM_L6, outcomes.texts)))


def chart(outcomes: Outcomes, features: npt.NDArray[np.float32]) -> bytes:
    """Return the picture as PNG, from outcomes of a cheap and an expensive model with costs, and features (n, d)."""
    fold = split_folds(outcomes, FOLDS, "random")
    risk = probe_risk(outcomes, features, fold)
    baselines = (NearestNeighbours(), LiteLLM("heuristic"), Random())
    routers = score_baselines(outcomes, features, fold, baselines).by_name
    routers["ELLE probe"] = RouterScores(risk[:, 0] - risk[:, 1], risk[:, 0])
    truth = Truth(outcomes.scores, group_numbers(outcomes.texts), outcomes.cost_usd)
    return cost_quality_chart(routers, truth, outcomes.models, highlight="ELLE probe")


if __name__ == "__main__":
    main()

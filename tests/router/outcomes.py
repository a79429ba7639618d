"""Make outcomes with known truth for tests of evaluation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from router.tuning.outcomes.datasets import Outcomes
from tests.fakes import N_FEATURES

WORDS = ("apple", "river", "proof", "matrix", "poem", "garden", "tensor", "sonata")


def make_outcomes(
    n: int = 400, *, seed: int = 0, groups: int = 4, costs: tuple[float, float] | None = None
) -> tuple[Outcomes, npt.NDArray[np.float32]]:
    """Return n prompts of two models, and features (n, 8); the strong one is right if the first feature is high.

    The weak model is right where it is low. Texts name the sign of the first feature, so that lexical baselines can
    learn it too; a group is a range of the second feature, which says nothing.
    """
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, N_FEATURES)).astype(np.float32)
    hard = rng.random(n) < 1 / (1 + np.exp(-3.0 * features[:, 0]))
    weak = (~hard | (rng.random(n) < 0.1)).astype(float)
    strong = (rng.random(n) < 0.9).astype(float)
    kinds = np.where(features[:, 0] > 0, "prove the theorem", "name the colour")
    texts = tuple(f"{kind} {WORDS[i % 8]} {i}" for i, kind in enumerate(kinds))
    known = np.full((n, 2), np.nan) if costs is None else np.tile(np.array(costs), (n, 1))
    outcomes = Outcomes(
        texts=texts,
        ids=tuple(f"id-{i}" for i in range(n)),
        groups=tuple(f"group {int(g)}" for g in np.argsort(np.argsort(features[:, 1])) * groups // n),
        models=("small", "large"),
        scores=np.stack([weak, strong], axis=1),
        cost_usd=known,
        input_tokens=np.full((n, 2), np.nan),
        output_tokens=np.full((n, 2), np.nan),
        sources=(),
    )
    return outcomes, features

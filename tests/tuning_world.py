"""A world with known truth for tests of tuning: outcomes that follow the fake encoder's first feature."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.fakes import FakeEncoder

MODELS = ("weak", "strong")
Array = npt.NDArray[np.float64]


def features(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    encoder = FakeEncoder()
    return np.stack([encoder.encode(text) for text in texts])


def chances(feature: npt.NDArray[np.float32]) -> Array:
    """Probability that weak and strong are right, (n, 2): they differ on prompts of a high first feature."""
    z = feature[:, 0].astype(np.float64)
    weak = 1 / (1 + np.exp(1.5 * z - 0.8))
    strong = 0.95 - 0.1 / (1 + np.exp(-z))
    return np.column_stack([weak, np.maximum(strong, weak - 0.03)])


def write_world(
    path: Path,
    n: int,
    *,
    tag: str = "prompt",
    seed: int = 0,
    models: Sequence[str] = MODELS,
    extra: dict[str, object] | None = None,
) -> Path:
    """n prompts named after `tag`, answered by two models; sorted by score, as files of people often are."""
    texts = [f"{tag} number {i}" for i in range(n)]
    right = np.random.default_rng(seed).random((n, 2)) < chances(features(texts))
    rows = [
        {"prompt": text, "model": model, "score": float(right[i, j]), "group": f"g{i % 2}", **(extra or {})}
        for i, text in enumerate(texts)
        for j, model in enumerate(models)
    ]
    rows.sort(key=lambda row: str(row["score"]))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path

"""Make outcomes with known truth for tests of tuning: they follow the fake encoder's first feature."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from probes.probe import DataSource, DifficultyProbe
from router.policies.policy_file import GainRule
from router.tuning.outcomes.datasets import Outcomes
from tests.fakes import N_FEATURES, FakeEncoder

MODELS = ("weak", "strong")
Array = npt.NDArray[np.float64]


def features(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    encoder = FakeEncoder()
    return np.stack([encoder.encode(text) for text in texts])


def chances(feature: npt.NDArray[np.float32]) -> Array:
    """Return the probability that weak and strong are right, (n, 2); they differ on prompts of a high first feature."""
    z = feature[:, 0].astype(np.float64)
    weak = 1 / (1 + np.exp(1.5 * z - 0.8))
    strong = 0.95 - 0.1 / (1 + np.exp(-z))
    return np.column_stack([weak, np.maximum(strong, weak - 0.03)])


def write_outcomes(
    path: Path,
    n: int,
    *,
    tag: str = "prompt",
    seed: int = 0,
    models: Sequence[str] = MODELS,
    extra: dict[str, object] | None = None,
) -> Path:
    """Return n prompts named after `tag`, answered by two models and sorted by score, as people's files often are."""
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


@functools.cache  # it is asked for once for each row
def frequent_text(*, easy: bool = True) -> str:
    """Return a prompt whose first feature says that the weak model gets it right, whatever it does."""
    texts = [f"frequent prompt {i}" for i in range(50)]
    first = features(texts)[:, 0]
    return texts[int(first.argmin() if easy else first.argmax())]


def traffic(n: int, *, seed: int, frequent: float = 0.3, tag: str = "draw") -> Outcomes:
    """Draw traffic n times: with probability `frequent` one prompt that only the strong model gets right."""
    rng = np.random.default_rng(seed)
    texts = tuple(frequent_text() if hit else f"{tag} {seed} {i}" for i, hit in enumerate(rng.random(n) < frequent))
    scores = (rng.random((n, 2)) < chances(features(texts))).astype(float)
    scores[[text == frequent_text() for text in texts]] = (0.0, 1.0)
    unknown = np.full((n, 2), np.nan)
    ids = tuple(f"{tag}-{seed}-{i}" for i in range(n))
    source = DataSource(f"{tag}-{seed}", sha256(f"{tag} {seed}".encode()).hexdigest(), 2 * n)
    return Outcomes(texts, ids, ("",) * n, MODELS, scores, unknown, unknown, unknown, (source,))


def write_traffic(path: Path, outcomes: Outcomes, *, ids: bool = True) -> Path:
    """Write the outcomes to a file, sorted by score, and without ids if they are not to be known."""
    rows = [
        {"prompt": text, "model": model, "score": float(outcomes.scores[i, j])}
        | ({"prompt_id": outcomes.ids[i]} if ids else {})
        for i, text in enumerate(outcomes.texts)
        for j, model in enumerate(outcomes.models)
    ]
    rows.sort(key=lambda row: str(row["score"]))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def true_loss(rule: GainRule, probe: DifficultyProbe, *, frequent: float = 0.3, n: int = 20_000) -> float:
    """Return the mean loss of a rule on that traffic: the frequent prompt counts exactly, the others over n of them."""
    columns = [probe.models.index(model) for model in MODELS]
    crowd = np.random.default_rng(99).standard_normal((n, N_FEATURES)).astype(np.float32)
    x = np.concatenate([features([frequent_text()]), crowd])
    risk = probe.predict(x).risk[:, columns]
    weak = risk[:, 0] - risk[:, 1] <= rule.thresholds[0]
    chance = chances(x)
    drop = np.where(weak, chance[:, 1] - chance[:, 0], 0.0)
    return float(frequent * weak[0] + (1 - frequent) * drop[1:].mean())

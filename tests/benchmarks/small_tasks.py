"""Make a small file of outcomes of several tasks, with features, for tests of the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from router.tuning.outcomes.datasets import Outcomes, read_outcomes

MODELS = {"tiny": 0.0, "small": 0.1, "middle": 0.3, "large": 0.6}


def small_tasks(folder: Path, *, n_tasks: int = 12, n_rows: int = 10) -> tuple[Outcomes, npt.NDArray[np.float32]]:
    """Write outcomes of four models, read them, and return them with features (n, 6).

    The first feature says a little about how hard a prompt is, and the task much more. The large model is always right
    on every second task, and no better than the others on the rest.
    """
    rng, path = np.random.default_rng(0), folder / "tasks.jsonl"
    n = n_tasks * n_rows
    features = rng.normal(size=(n, 6)).astype(np.float32)
    with path.open("w", encoding="utf-8") as file:
        for i in range(n):
            task, hardness = i // n_rows, 0.3 * features[i, 0]
            for model, skill in MODELS.items():
                chance = skill * (task % 2) + 0.3 - 0.2 * hardness
                right = float(rng.random() < np.clip(chance + (model == "large") * (task % 2), 0, 1))
                row = {"prompt": f"prompt {i} of task {task}", "model": model, "score": right, "group": f"task {task}"}
                file.write(json.dumps(row) + "\n")
    outcomes = read_outcomes(path)
    order = [int(text.split()[1]) for text in outcomes.texts]
    return outcomes, features[order]

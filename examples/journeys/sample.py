"""Write made-up files for the journeys into a folder, in place of the logs, scores and embeddings that you have.

Run it by `python examples/journeys/sample.py FOLDER`. The cheap model `small` and the expensive model `large` are good
at sums. At proofs `large` is good, the new model `fresh` less so, and `small` is not.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np

#: The probability that a model is right on a sum, and on a proof.
CHANCES = {"small": (0.9, 0.1), "fresh": (0.9, 0.6), "large": (0.9, 0.9)}


def prompts(n: int, tag: str) -> list[tuple[str, bool]]:
    """Return n prompts, and for each whether it is a proof."""
    # Of one length, so that only what they ask tells them apart.
    proof, total = (
        "Prove theorem {} of part {} for every finite group.",
        "What is {} plus {} if you add the one to the other?",
    )
    return [((proof if i % 2 else total).format(i + 2, tag), bool(i % 2)) for i in range(n)]


def ratings(path: Path, n: int, tag: str, models: tuple[str, ...], seed: int) -> None:
    """Write n prompts with a rating from 1 to 5 of each model's answer, as a team would keep them in a spreadsheet."""
    rng = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Question", "Model", "Rating"])
        for text, hard in prompts(n, tag):
            luck = rng.random()
            table.writerows([text, model, 5 if luck < CHANCES[model][hard] else 1] for model in models)


def main(folder: str = "journey") -> None:
    """Write every file."""
    out, rng = Path(folder), np.random.default_rng(0)
    (out / "embeddings").mkdir(parents=True, exist_ok=True)
    (out / "prompts.jsonl").write_text("".join(json.dumps({"prompt": t}) + "\n" for t, _ in prompts(500, "1")), "utf-8")
    ratings(out / "ratings.csv", 800, "2", ("small", "large"), 1)
    ratings(out / "later.csv", 200, "3", ("small", "large"), 2)
    ratings(out / "fresh-ratings.csv", 100, "4", ("fresh",), 3)
    ratings(out / "all-three.csv", 600, "5", ("small", "fresh", "large"), 4)
    known = rng.normal(size=(2_000, 32)).astype(np.float32)
    np.savez(out / "pairs.npz", embedding=known, loss=2 + known[:, 0] + 0.3 * rng.normal(size=len(known)))
    for name in ("monday", "tuesday"):
        np.save(out / "embeddings" / f"{name}.npy", rng.normal(size=(10_000, 32)).astype(np.float32))
    print(f"Wrote the files of the journeys to {out}.")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except OSError as error:
        sys.exit(f"The files cannot be written to {error.filename}: {error.strerror}. Name another folder.")

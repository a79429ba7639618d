"""Provide prompts of mixed length: real ones if they are at hand, else words drawn to the same lengths."""

from __future__ import annotations

import random
from pathlib import Path

DATA = Path(__file__).parents[3] / "shared" / "data"
FILES = ("routellm_mmlu.parquet", "routellm_gsm8k.parquet")

#: How many are sent before they come again.
COUNT = 4000

_WORDS = ("the", "of", "a", "number", "how", "many", "which", "what", "total", "statement", "best", "describes")


def read_prompts(count: int = COUNT, seed: int = 0) -> list[str]:
    """Return distinct prompts in random order."""
    rng = random.Random(seed)
    if not all((DATA / name).is_file() for name in FILES):
        # Log-normal lengths with the median and spread of the real ones.
        return [" ".join(rng.choices(_WORDS, k=max(3, int(rng.lognormvariate(3.9, 0.7))))) for _ in range(count)]
    import pyarrow.parquet as pq

    texts = {text for name in FILES for text in pq.read_table(DATA / name, columns=["prompt"])["prompt"].to_pylist()}
    return rng.sample(sorted(texts), count)

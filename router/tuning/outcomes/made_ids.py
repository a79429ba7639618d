"""Make up ids for the prompts of data that have none, and recognise such ids."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence


def make_ids(texts: Sequence[str], models: Sequence[str], tasks: Sequence[str]) -> list[str]:
    """Return ids for data without ids: the k-th answers of all models to a text of one task get the same id."""
    seen: Counter[tuple[str, str, str]] = Counter()
    ids = []
    for text, model, task in zip(texts, models, tasks, strict=True):
        apart = f"@{_stem(task)}" if task else ""
        ids.append(f"{_stem(text)}-{seen[text, model, task]}{apart}")
        seen[text, model, task] += 1
    return ids


def has_made_id(text: str, prompt_id: str) -> bool:
    """Return whether this reader made the id up, because the data gave none.

    Nothing then says which labels of equal texts belong together.
    """
    return prompt_id.rpartition("-")[0] == _stem(text)


def _stem(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""Graded outcomes, as `elle collect` writes them, for tests of labelling."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def rows(n: int = 6, models: Iterable[str] = ("cheap", "middle", "strong"), **fields: Any) -> list[dict[str, Any]]:
    """Return rows of n prompts, compared with `strong` by a judge that finds every second answer as good."""
    return [
        {
            "prompt": f"question {i}",
            "prompt_id": f"p{i}",
            "model": model,
            "group": "even" if i % 2 == 0 else "odd",
            "score": 0.5 if model == "strong" or i % 2 == 0 else 0.0,
            "grader": "judge",
            "grader_version": "0" * 16,
            "compared_with": "strong",
            "drawn": "random",
            "answer": f"answer {i} of {model[::-1]}",
        }
        | fields
        for i in range(n)
        for model in models
    ]


def write(path: Path, found: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), "utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

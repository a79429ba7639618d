"""Write policies that decide by a score of the caller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.fakes import write_policy

#: From 0 to 1 the small model's risk falls from 0.9 to 0.1; the large one's is always 0.1. At a threshold of 0.4 the
#: small one answers from a score of 0.5 up.
SCORE: dict[str, Any] = {
    "name": "Confidence",
    "low": 0.0,
    "high": 1.0,
    "risks": [{"scores": [0.0, 1.0], "risks": [0.9, 0.1]}, {"scores": [0.5], "risks": [0.1]}],
}
THRESHOLD = 0.4


def write_score_policy(folder: Path, **changes: Any) -> Path:
    """Write a policy with two candidates that decides by the score `Confidence`."""
    common: dict[str, Any] = {"probe": None, "score": SCORE, "rule": {"kind": "gain", "thresholds": [THRESHOLD]}}
    return write_policy(folder, **(common | changes))

"""Write small files as other programs do, and import them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from router.tuning.outcomes.adapters import ImportOptions, import_outcomes
from router.tuning.outcomes.adapters.summary import ImportSummary
from router.tuning.outcomes.datasets import Outcomes, read_outcomes

CHAT = [{"role": "user", "content": "How far is the moon?"}]


def write_rows(path: Path, *records: Any) -> Path:
    """Write records as JSON Lines, or as one JSON list if the file is called `.json`."""
    lines = "".join(json.dumps(record) + "\n" for record in records)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines if path.suffix == ".jsonl" else json.dumps(list(records)), "utf-8")
    return path


def imported(kind: str | None, *paths: Path, **options: Any) -> tuple[ImportSummary, Outcomes]:
    """Import files of a kind, or of one that is to be recognised, and return the summary and the outcomes."""
    out = paths[0].parent / "out" / "data.jsonl"
    summary = import_outcomes(kind, paths, out, ImportOptions(**options))
    return summary, read_outcomes(out)

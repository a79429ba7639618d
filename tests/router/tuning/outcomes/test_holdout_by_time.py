"""What `--holdout latest:SHARE` says of data that have no latest prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from probes.errors import DataError
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.holdout_by_time import choose_holdout


def test_equal_times_are_told_as_such_and_missing_ones_as_missing(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    row = {"model": "a", "score": 1}
    path.write_text("".join(json.dumps({"prompt": f"p{i}", "timestamp": "2026-01-31", **row}) + "\n" for i in range(9)))
    with pytest.raises(DataError, match=r"all 9 that have a time have the same, 2026-01-31 00:00:00 UTC\. Hold out"):
        choose_holdout(read_outcomes(path), "latest:20%", 0)
    path.write_text("".join(json.dumps({"prompt": f"p{i}", **row}) + "\n" for i in range(9)))
    with pytest.raises(DataError, match=r"0 of 9 have one\. Rename"):
        choose_holdout(read_outcomes(path), "latest:20%", 0)

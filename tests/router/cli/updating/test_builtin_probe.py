"""A built-in probe cannot be changed or reported on: the verbs that read a fitted probe say so."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from router.cli.main import cli


@pytest.mark.parametrize("verb", ["recalibrate", "forget"])
def test_a_built_in_probe_is_no_folder(verb: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, [verb, "builtin:tiers", "labels.jsonl", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "builtin:tiers can only be named in a policy" in done.output

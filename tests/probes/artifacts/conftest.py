"""Fixtures of the artifact tests: a probe that was saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.artifacts import store as artifact
from tests.probes.artifacts.edits import MakeProbe


@pytest.fixture
def saved(tmp_path: Path, make_probe: MakeProbe) -> Path:
    artifact.save(make_probe(), tmp_path / "probe")
    return tmp_path / "probe"

"""The picture of README can be drawn, from outcomes of any two models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.tuning.outcomes.datasets import read_outcomes
from scripts import picture
from tests.tuning_outcomes import MODELS, features, write_outcomes


def test_the_picture_is_drawn_from_outcomes_with_costs(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib")
    outcomes = read_outcomes(write_outcomes(tmp_path / "outcomes.jsonl", 200)).select_models(MODELS)
    outcomes = replace(outcomes, cost_usd=np.tile([0.001, 0.01], (len(outcomes), 1)))
    assert picture.chart(outcomes, features(outcomes.texts)).startswith(b"\x89PNG")


def test_the_picture_of_the_readme_is_there_and_small() -> None:
    assert 20_000 < picture.PICTURE.stat().st_size < 200_000
